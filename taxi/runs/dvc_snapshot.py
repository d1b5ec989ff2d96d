"""What DVC keeps: every month's files, in one ``published/<service>/<month>.dvc`` each, and the newest months' stages.

The newest finished month of a service is what ``dvc.yaml`` rebuilds; ``published/newest.yaml`` names it. Its raw bytes,
plan and champion stand in its ``.dvc`` file, what its stages make in ``dvc.lock``. Nothing here commits to git.
"""

import logging
import shutil
import sys
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from botocore.exceptions import BotoCoreError, ClientError
from dvc.exceptions import DvcException
from dvc.lock import LockError
from dvc.repo import Repo, lock_repo
from dvc.scm import SCMError

from taxi.addresses import redact, why_unreachable
from taxi.config import SERVICES, MonthPaths, load_settings
from taxi.data.acceptance import read_acceptance
from taxi.errors import TaxiError
from taxi.files import Damaged, locked, read_yaml, sha256_file, staged, write_json
from taxi.runs.month_result import read_results, result_file
from taxi.training.plan import load_plan, plan_file
from taxi.training.step_result import CompareResult, MonitorResult, read_step

_LOG = logging.getLogger(__name__)
PUBLISHED = "published"
NEWEST = f"{PUBLISHED}/newest.yaml"


class NotVersioned(TaxiError):
    """DVC did not do what was asked of it."""


@contextmanager
def _repo(root: Path) -> Iterator[Repo]:
    logging.getLogger("dvc").setLevel(logging.ERROR)
    with locked(root / ".dvc" / "tmp" / "taxi.lock"):
        try:
            with chdir(root), Repo(str(root)) as repo:  # DVC takes the working folder for the stages'
                yield repo
        except (DvcException, LockError, SCMError) as error:
            raise NotVersioned(f"DVC could not keep what is in {root}: {error}") from error


def why_not(root: Path, data: Path, reports: Path) -> str | None:
    """Return why DVC does not keep these folders, or None if it does."""
    if (data, reports) != (root / "data", root / "reports"):
        return f"DVC keeps {root / 'data'} and {root / 'reports'}; this run used {data} and {reports}"
    missing = [name for name in (".dvc/config", "dvc.yaml", ".git") if not (root / name).exists()]
    return f"{root} has no {', no '.join(missing)}" if missing else None


def _write(path: Path, content: Any) -> None:
    text = yaml.safe_dump(content, sort_keys=False)
    if not (path.is_file() and path.read_text(encoding="utf-8") == text):
        with staged(path) as part:
            part.write_text(text, encoding="utf-8")


def read_newest(root: Path) -> dict[str, dict[str, Any]]:
    """Return the stages' variables: by ``published`` and ``trained``, service to its newest finished month."""
    path = root / NEWEST
    found = read_yaml(path) if path.is_file() else {}
    if not isinstance(found, dict):
        raise Damaged(f"expected the newest months at {path}; it has {found!r:.60}. Restore it from git")
    return {name: found.get(name) or {} for name in ("published", "trained")}


def _advance(root: Path, reports: Path) -> dict[str, str]:
    """Name the newest finished months; never an older one than before, since a clone may not hold every month."""
    before = read_newest(root)
    newest, trained = dict(before["published"]), dict(before["trained"])
    for service in SERVICES:
        there = {month: result.status for month, result in read_results(reports, service).items()}
        elsewhere = {newest.pop(service, "")} - {"", *there}
        done = {month for month, status in there.items() if status == "done"} | elsewhere
        if done:
            newest[service] = max(done)
        if done and max(done) not in elsewhere:
            trained.pop(service, None)
            if (reports / service / max(done) / "05-compare.json").is_file():
                trained[service] = max(done)
    _write(root / NEWEST, {"published": newest, "trained": trained})
    return newest


def month_outputs(paths: MonthPaths, newest: bool) -> list[Path]:
    """Return what the month's ``.dvc`` file keeps: everything; of a newest month only what its stages do not make."""
    source = [paths.raw, paths.sidecar]
    if not newest:
        return [*source, paths.trips, paths.quarantine, paths.acceptance, paths.models, paths.reports]
    given = [paths.models / name for name in ("plan.json", "incumbent", "winner")]
    return [*source, *given, result_file(paths)]


def _entries(file: Path) -> dict[str, dict[str, Any]]:
    try:
        return {one["path"]: one for one in read_yaml(file)["outs"]} if file.is_file() else {}
    except (KeyError, TypeError) as error:
        raise Damaged(f"expected DVC's outputs at {file}; it has no {error} as one has. Restore it from git") from error


def _declare(root: Path, file: Path, outputs: list[Path], exact: bool) -> bool:
    """List the outputs that are there in a ``.dvc`` file, and return whether they are to be hashed.

    Unless ``exact``, outputs that it listed before and that are not on hand stay: a clone may hold a part of them.
    """
    known = _entries(file)
    names = [path.relative_to(root).as_posix() for path in outputs]
    listed = [name for name in names if (root / name).exists() or (name in known and not exact)]
    if not listed:
        return False
    up = "/".join([".."] * len(file.parent.relative_to(root).parts))
    if list(known) != listed:
        _write(file, {"wdir": up, "outs": [known.get(name, {"path": name}) for name in listed]})
    return list(known) != listed or _changed(file, [root / name for name in listed])


def _changed(file: Path, outputs: list[Path]) -> bool:
    kept = file.stat().st_mtime
    inside = (path for output in outputs for path in (output, *output.rglob("*")) if path.exists())
    return any(path.stat().st_mtime >= kept for path in inside)


def _months(data: Path, reports: Path, service: str) -> list[str]:
    kept = {path.stem for kind in ("raw", "trips") for path in (data / kind / service).glob("????-??.parquet")}
    return sorted(kept | {path.name for path in (reports / service).glob("????-??")})


def _declare_all(
    root: Path, data: Path, reports: Path, newest: dict[str, str], ran: tuple[str, str] | None
) -> list[Path]:
    """Bring every ``.dvc`` file's list up to date, and return the files whose hashes are to be taken."""
    due = []
    for service in SERVICES:
        for month in _months(data, reports, service):
            file = root / PUBLISHED / service / f"{month}.dvc"
            outputs = month_outputs(MonthPaths(data, reports, service, month), newest.get(service) == month)
            if _declare(root, file, outputs, exact=ran == (service, month)):
                due.append(file)
    for name, output in (("zones", data / "zones"), ("gallery", reports / "index.html")):
        if _declare(root, file := root / PUBLISHED / f"{name}.dvc", [output], exact=False):
            due.append(file)
    return due


def _write_window(root: Path, paths: MonthPaths) -> None:
    """Write the hashes of the months that come before: by them the stages know whether their window changed."""
    months = load_plan(plan_file(paths)).refit_window
    window = {}
    for month in (one for one in months if one != paths.month):
        known = _entries(root / PUBLISHED / paths.service / f"{month}.dvc")
        earlier = MonthPaths(paths.data, paths.report_root, paths.service, month)
        names = {"trips": earlier.trips, "acceptance": earlier.acceptance}
        places = {name: path.relative_to(root).as_posix() for name, path in names.items()}
        window[month] = {name: known.get(place, {}).get("md5") for name, place in places.items()}
    write_json(root / PUBLISHED / paths.service / "window.json", window)


def snapshot(
    root: Path, data: Path, reports: Path, service: str | None = None, month: str | None = None, push: bool = True
) -> str | None:
    """Bring DVC up to date with the folders after a month was run; return why not, or None if it was done.

    The stages of a newest month are taken as done if it is the month that was run (or if none is named). Raises
    NotVersioned if DVC fails.
    """
    if reason := why_not(root, data, reports):
        return reason
    ran = (service, month) if service and month else None
    with _repo(root) as repo:
        newest = _advance(root, reports)
        for file in _declare_all(root, data, reports, newest, ran):
            repo.commit(str(file), force=True, allow_missing=True)
        for one, its_month in newest.items():
            paths = MonthPaths(data, reports, one, its_month)
            if plan_file(paths).is_file():
                _write_window(root, paths)
            if paths.trips.is_file() and ran in (None, (one, its_month)):
                summarise(root, paths)
                _take_as_done(repo, one)
        return _push(repo) if push else None


def _take_as_done(repo: Repo, service: str) -> None:
    """Do what ``dvc commit --force`` does, for all of a service's stages with one writing of ``dvc.lock``."""
    with lock_repo(repo):
        stages = [stage for stage in repo.index.stages if getattr(stage, "name", "").endswith(f"@{service}")]
        for stage in stages:
            stage.save()
            stage.commit()
        stages[0].dvcfile.dump_stages(stages, update_pipeline=False)


def _push(repo: Repo) -> str | None:
    if not (remote := repo.config["core"].get("remote")):
        return None
    endpoint = repo.config["remote"].get(remote, {}).get("endpointurl")
    if endpoint and (reason := why_unreachable(endpoint, any_answer=True)):
        return f"kept in DVC's cache, but not pushed: {reason}"
    try:
        sent = repo.push()
    except (DvcException, OSError, BotoCoreError, ClientError) as error:
        return f"kept in DVC's cache, but not pushed: {redact(str(error))}"
    _LOG.info("DVC pushed %s objects", sent)
    return None


def keep_edition(root: Path, raw: Path) -> Path:
    """Keep the raw month that is about to be replaced as ``data/editions/<service>/<month>-<sha256>.parquet``.

    DVC keeps them too where the folder is the checkout's own. Returns the kept file.
    """
    data, service = raw.parents[2], raw.parent.name
    kept = data / "editions" / service / f"{raw.stem}-{sha256_file(raw)[:12]}{raw.suffix}"
    if not kept.is_file():
        with staged(kept) as part:
            shutil.copyfile(raw, part)
    if why_not(root, data, root / "reports") is None:
        with _repo(root) as repo:
            if _declare(root, file := root / PUBLISHED / service / f"{kept.stem}.dvc", [kept], exact=False):
                repo.commit(str(file), force=True)
    return kept


def _errors(paths: MonthPaths, now: dict[str, Any]) -> pd.DataFrame:
    """Return the RMSE of every month's champion and challenger; those of the published month are ``now``."""
    rows = [(paths.month, who, metrics["rmse"]) for who, metrics in now.items()]
    for month, result in read_results(paths.report_root, paths.service).items():
        if month != paths.month:
            models = {"champion": result.champion, "challenger": result.challenger}
            rows += [(month, who, one.metrics["rmse"]) for who, one in models.items() if one and one.metrics]
    return pd.DataFrame(sorted(rows), columns=["month", "model", "rmse"])


def summarise(root: Path, paths: MonthPaths) -> None:
    """Write the published month's metrics and plots for git, which ``dvc metrics diff`` and ``dvc plots diff`` read."""
    folder = root / PUBLISHED / paths.service
    monitor, compare = read_step(paths, MonitorResult), read_step(paths, CompareResult)
    rows = read_acceptance(paths).rows
    scores = {"champion": monitor and monitor.metrics, "challenger": compare and compare.challenger}
    found = {who: metrics for who, metrics in scores.items() if metrics}
    counts = {"raw": rows["raw"], "kept": rows["kept"], "quarantined": rows["quarantined"]}
    promoted = bool(compare and compare.promote)
    write_json(folder / "metrics.json", {"month": paths.month, "rows": counts, "promoted": promoted} | found)
    reasons = pd.DataFrame(sorted(rows["reasons"].items()), columns=["reason", "rows"])
    reasons.assign(share=reasons["rows"] / rows["raw"]).to_csv(folder / "refused.csv", index=False)
    _errors(paths, found).to_csv(folder / "error.csv", index=False)


if __name__ == "__main__":
    _settings = load_settings()
    summarise(_settings.root, _settings.month(sys.argv[1], sys.argv[2]))
