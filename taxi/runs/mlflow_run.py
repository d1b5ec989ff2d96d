"""MLflow run of a month: parameters, metrics, models and their versions, nothing twice, whatever was interrupted."""

import json
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path, PurePath
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import unquote, urlsplit

import mlflow
import pandas as pd
from mlflow.data.code_dataset_source import CodeDatasetSource
from mlflow.data.pandas_dataset import PandasDataset
from mlflow.entities import LoggedModel, LoggedModelStatus, Run, RunInfo
from mlflow.models import infer_signature

from taxi.addresses import shown
from taxi.config import NOTEBOOKS, MonthPaths, Settings
from taxi.data.schema import AT_PICKUP
from taxi.files import read_json, remove, sha256_file, sha256_json, sha256_tree, staged
from taxi.models.model import load_model
from taxi.params import Params
from taxi.registry.aliases import follow_tags, make_name
from taxi.registry.golden import write_golden
from taxi.registry.integrity import check_registered_folder, read_manifest, write_manifest
from taxi.registry.lineage import keep_origins
from taxi.registry.mlflow_client import Client, RegistryError, artifact_root, changing, connect, prepare, reaching
from taxi.registry.provenance import (
    RESULT,
    SEAL,
    describe_code,
    describe_inputs,
    flatten_params,
    requirements,
    result_digest,
    sealed_digest,
)
from taxi.registry.versions import DEV, download_model, model_name, versions
from taxi.training.plan import Plan
from taxi.training.step_result import CompareResult, Scores
from taxi.training.train import judging_trips


def report_pages(paths: MonthPaths) -> list[Path]:
    """Return the month's executed notebooks, their pages and results, in order of their names."""
    return sorted(page for name in NOTEBOOKS for page in paths.reports.glob(f"{name}.*"))


def trail_tags(settings: Settings, plan: Plan, params: Params) -> dict[str, str]:
    """Return the digests by which a version's parameters and reports are known again: JSON of name to SHA-256."""
    pages = {page.name: sha256_file(page) for page in report_pages(settings.month(plan.service, plan.month))}
    logged = sha256_json(logged_params(plan, params))
    return {"reports": json.dumps(pages, sort_keys=True, separators=(",", ":")), "params_sha256": logged}


def logged_params(plan: Plan, params: Params) -> dict[str, str]:
    """Return what a month's run logs as its parameters: all of ``params.yaml`` and the months that train."""
    given = flatten_params(params) | {"months": ",".join(plan.learnt)}
    return {name: str(value) for name, value in given.items()}


def run_tags(settings: Settings, plan: Plan, inputs: dict[str, Any], fingerprint: str) -> dict[str, str]:
    """Return what the month's run and its versions have in common: code, lock, month, fingerprint, synthetic or not."""
    synthetic = str(any(one["synthetic"] for one in inputs.values())).lower()
    month = {"service": plan.service, "month": plan.month, "fingerprint": fingerprint, "synthetic": synthetic}
    return describe_code(settings.root) | month


def version_tags(
    plan: Plan, role: str, metrics: dict[str, float], inputs: dict[str, Any], challenger: int | None
) -> dict[str, str]:
    """Return a version's own tags: the months that trained it, their bytes, what judged it, and its parent version."""
    months = plan.months_of(role)
    parent = challenger if role == "winner" else plan.incumbent and plan.incumbent["version"]
    tags = {"role": role, "trained_from": months[0], "trained_to": months[-1], "months": ",".join(months)}
    tags |= {"judged_in": plan.month} | ({"promoted_in": plan.month} if role == "winner" else {})
    tags |= {"parent": f"{plan.service}/{parent}"} if parent else {}
    tags |= {f"metric.{name}": str(value) for name, value in metrics.items()}
    for month in dict.fromkeys([*months, plan.month]):  # the month that judged it, too
        tags |= {f"data.{month}": inputs[month]["raw_sha256"], f"trips.{month}": inputs[month]["trips_sha256"]}
        tags |= {f"{name}.{month}": inputs[month][name] for name in ("address", "etag", "fetched_at")}
        tags |= {f"records.{month}": json.dumps(inputs[month]["records"], sort_keys=True)}
    return tags | {"holdout_from": plan.holdout_from or "none"}


Json = dict[str, Any]
PAGES, KEPT, RESULT_NAME = "reports", "result", "month.json"  # among a run's artifacts
_LOG = logging.getLogger(__name__)


def _experiment(client: Client, settings: Settings, service: str) -> str:
    name = model_name(service)
    if found := client.get_experiment_by_name(name):
        return str(found.experiment_id)
    made = str(client.create_experiment(name, artifact_root(settings, service)))
    _LOG.info("MLflow keeps the artifacts of %s at %s", name, shown(client.get_experiment(made).artifact_location))
    return made


def artifacts_folder(settings: Settings, service: str) -> Path | None:
    """Return the folder in which a PostgreSQL registry, which other machines may use, keeps models or will; None if they lie elsewhere."""
    if not settings.tracking_uri.startswith("postgresql"):
        return None
    place = artifact_root(settings, service)
    if prepare(settings.tracking_uri, make=False):
        with reaching(settings.tracking_uri):
            if found := connect(settings.tracking_uri).get_experiment_by_name(model_name(service)):
                place = found.artifact_location
    parts = urlsplit(str(place))
    return Path(unquote(parts.path)) if parts.scheme in ("", "file") else None


ALONE = "set TAXI_ARTIFACTS to s3://… before a registry's first run, or share the folder between the machines"


def check_artifacts(settings: Settings, service: str) -> str | None:
    """Return why other machines may not read a registry's models, None if they can; raise RegistryError if this one cannot."""
    if (folder := artifacts_folder(settings, service)) is None:
        return None
    if not folder.is_dir() and versions(settings.tracking_uri, service):
        where = f"a folder that is not on this machine, {folder}"
        raise RegistryError(f"the registry keeps the models of {model_name(service)} in {where}: {ALONE}")
    return None if settings.artifacts else f"models of {service} lie in {folder}, where other machines do not see them"


def _log_month(
    settings: Settings, plan: Plan, params: Params, scores: Mapping[str, Scores | None], inputs: Json, at: int
) -> None:
    paths = settings.month(plan.service, plan.month)
    mlflow.log_params(logged_params(plan, params))
    for model, metrics in scores.items():
        mlflow.log_metrics({f"{model}_{name}": value for name, value in (metrics or {}).items()}, timestamp=at)
    for month, one in inputs.items():
        sha256, origin = one["trips_sha256"], {name: one[name] for name in ("address", "raw_sha256")}
        frame, source = pd.DataFrame({"sha256": [sha256]}), CodeDatasetSource(origin)
        data = PandasDataset(frame, source, name=f"{plan.service}-{month}", digest=sha256[:36])
        mlflow.log_input(data, "judging" if month == plan.month else "training", tags={"sha256": sha256, **origin})
    for page in report_pages(paths):
        mlflow.log_artifact(str(page), PAGES)


def _logged_model(client: Client, settings: Settings, plan: Plan, role: str, run_id: str, experiment: str) -> Any:
    """Log the model's files, unless a killed run had got so far."""
    for made in client.search_logged_models([experiment], f"source_run_id = '{run_id}' AND name = '{role}'"):
        # not in the search: the column holds a number, which PostgreSQL doesn't compare with a word
        if made.status == LoggedModelStatus.READY:
            return made
    folder = settings.month(plan.service, plan.month).models / role
    example = judging_trips(settings, plan)[AT_PICKUP].head(5).astype(dict.fromkeys(AT_PICKUP[1:], "float64"))
    info = mlflow.pyfunc.log_model(
        name=role,
        loader_module="taxi.pyfunc",
        data_path=str(folder),
        input_example=example,
        signature=infer_signature(example, load_model(folder).predict(example)),
        pip_requirements=requirements(),
    )
    return client.get_logged_model(info.model_id)


def _registered(tracking_uri: str, service: str, fingerprint: str) -> dict[str, int]:
    there = versions(tracking_uri, service)
    return {one.tags["role"]: one.number for one in there if one.tags["fingerprint"] == fingerprint}


def _marks(settings: Settings, plan: Plan, role: str, logged: LoggedModel) -> dict[str, str]:
    """Return what a version is known again by: its files' digests, and golden trips with their predictions."""
    folder = settings.month(plan.service, plan.month).models / role
    with TemporaryDirectory() as place:
        got = Path(mlflow.artifacts.download_artifacts(artifact_uri=f"models:/{logged.model_id}", dst_path=place))
        remove(got / "registered_model_meta")
        manifest = write_manifest(got)
        check_registered_folder(got, read_manifest(manifest))
    golden = write_golden(load_model(folder), judging_trips(settings, plan))
    return {"manifest": manifest, "golden": golden, "model_sha256": sha256_tree(folder)}


def _register_models(
    client: Client,
    settings: Settings,
    plan: Plan,
    params: Params,
    compare: CompareResult,
    tags: dict[str, str],
    inputs: Json,
    run: RunInfo,
) -> None:
    name = model_name(plan.service)
    there = _registered(settings.tracking_uri, plan.service, tags["fingerprint"])
    make_name(client, name)
    waits = {"awaits_approval": DEV} if DEV in params.release.approval else {}
    for role in ("challenger", "winner") if compare.promote else ("challenger",):
        if role not in there:
            logged = _logged_model(client, settings, plan, role, run.run_id, run.experiment_id)
            own = version_tags(plan, role, compare.challenger, inputs, there.get("challenger"))
            own |= _marks(settings, plan, role, logged) | (waits if role == "winner" else {})
            source = f"models:/{logged.model_id}"
            seal = sealed_digest(tags | own)
            client.set_tag(run.run_id, f"{SEAL}.{role}", seal)
            sealed = tags | own | {SEAL: seal}
            made = client.create_model_version(name, source, run.run_id, sealed, model_id=logged.model_id)
            there[role] = int(made.version)
            if "awaits_approval" in own:
                page = settings.month(plan.service, plan.month).reports / "05-compare.html"
                _LOG.warning("%s/%s waits: taxi approve %s/%s --report %s", *[plan.service, made.version] * 2, page)


def _month_run(client: Client, settings: Settings, plan: Plan, fingerprint: str) -> Run:
    experiment = _experiment(client, settings, plan.service)
    for run in client.search_runs([experiment], f"tags.fingerprint = '{fingerprint}'", max_results=1):
        return run
    return client.create_run(experiment, tags={"fingerprint": fingerprint}, run_name=f"{plan.service} {plan.month}")


def seal_result(settings: Settings, plan: Plan, fingerprint: str, result: Json) -> None:
    """Keep the month's result with its run, and its digest, before the result itself is written.

    With it are kept the pages that its notebooks made beside their own.
    """
    paths = settings.month(plan.service, plan.month)
    with reaching(settings.tracking_uri):
        client = connect(settings.tracking_uri)
        run = _month_run(client, settings, plan, fingerprint)
        for page in sorted({*paths.reports.glob("0*.html")} - {*report_pages(paths)}):
            client.log_artifact(run.info.run_id, str(page), KEPT)
        client.log_dict(run.info.run_id, result, f"{KEPT}/{RESULT_NAME}")
        client.set_tag(run.info.run_id, RESULT, result_digest(result))


# --- A month is run once by all installations that share a registry: the others take it up from there.


def _sealed_run(client: Client, service: str, fingerprint: str) -> Run | None:
    """Return the run that came to its end from these inputs and keeps its result; None if there is none."""
    experiment = client.get_experiment_by_name(model_name(service))
    same = f"tags.fingerprint = '{fingerprint}' and attributes.status = 'FINISHED'"
    for run in client.search_runs([experiment.experiment_id], same, max_results=1) if experiment else ():
        if RESULT in run.data.tags and client.list_artifacts(run.info.run_id, KEPT):
            return run
    return None


def _fetch(client: Client, run: Run, into: Path) -> Json:
    """Bring the run's pages and its result into a folder, and return the result; raise RegistryError if it is not as sealed."""
    for kind in (PAGES, KEPT):
        client.download_artifacts(run.info.run_id, kind, str(into))
    result: Json = read_json(into / KEPT / RESULT_NAME)
    expected, got = run.data.tags[RESULT], result_digest(result)
    if got != expected:
        raise RegistryError(
            f"expected {KEPT}/{RESULT_NAME} of run {run.info.run_id} with sha256 {expected}; got {got}: "
            "it was changed, and is not taken up; delete that run in MLflow, and the month is run anew"
        )
    return result


def _replace_pages(paths: MonthPaths, fetched: Path) -> None:
    pages = [page for page in sorted(fetched.glob("*/*")) if page.name != RESULT_NAME]
    for page in report_pages(paths):
        if page.name not in {page.name for page in pages}:
            remove(page)
    for page in pages:
        with staged(paths.reports / page.name) as part:
            shutil.copyfile(page, part)


def take_up_month(settings: Settings, plan: Plan, fingerprint: str) -> Json | None:
    """Return the result of a month that was run elsewhere from the same inputs, its pages and models fetched; None if it was not.

    Raises RegistryError if what the registry keeps of it is not as it was sealed.
    """
    uri, paths = settings.tracking_uri, settings.month(plan.service, plan.month)
    with reaching(uri), TemporaryDirectory() as place:
        client = connect(uri)
        if (run := _sealed_run(client, plan.service, fingerprint)) is None:
            return None
        result = _fetch(client, run, Path(place))
        _replace_pages(paths, Path(place))
    for version in versions(uri, plan.service):
        if version.tags["fingerprint"] == fingerprint:
            download_model(uri, version, paths.models / version.tags["role"])
            keep_origins(version, settings)
    said = "%s %s was run before, from the same inputs: result, pages and models come from the registry, to %s"
    _LOG.warning(said, plan.service, plan.month, paths.reports)
    return result | {"reports": [str(paths.reports / PurePath(page).name) for page in result["reports"]]}


def record_month(
    settings: Settings,
    plan: Plan,
    params: Params,
    champion: Scores | None,
    compare: CompareResult | None,
    fingerprint: str,
) -> dict[str, int]:
    """Keep the month's run and its models, and move the aliases; returns version numbers by role (challenger, winner).

    ``champion`` are the champion's scores on the month, ``compare`` is what judged the challenger; None: there was none.
    Safe to repeat: what is there, by ``fingerprint``, is taken up, and what a killed run did not get to is done.
    """
    uri = settings.tracking_uri
    scores = {"champion": champion, "challenger": compare.challenger if compare else None}
    prepare(uri)
    with changing(uri, plan.service) as client, reaching(uri):
        run = _month_run(client, settings, plan, fingerprint)
        if run.info.status != "FINISHED":
            inputs = describe_inputs(settings, plan.service, sorted({*plan.window, *plan.refit_window, plan.month}))
            tags = run_tags(settings, plan, inputs, fingerprint)
            with mlflow.start_run(run.info.run_id):
                mlflow.set_tags(tags | {f"data.{month}": one["raw_sha256"] for month, one in inputs.items()})
                _log_month(settings, plan, params, scores, inputs, run.info.start_time)
                if compare:
                    tags |= trail_tags(settings, plan, params)
                    _register_models(client, settings, plan, params, compare, tags, inputs, run.info)
        follow_tags(uri, plan.service, f"{plan.service} {plan.month} was run", client=client)
        return _registered(uri, plan.service, fingerprint)
