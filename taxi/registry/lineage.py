"""Lineage verification: recomputes what a version's tags claim of files here; each is the same, differs, or is not here."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from pydantic import BaseModel

from taxi.addresses import sqlite_file
from taxi.config import Settings, resolve_address
from taxi.data.origin import Edition, read_origin
from taxi.data.schema import read_trips
from taxi.errors import UsageError
from taxi.files import read_json, read_model, sha256_file, sha256_json, write_model
from taxi.models.evaluate import score
from taxi.models.model import DurationModel, load_model
from taxi.outputs import OUTPUTS
from taxi.predictions.store import open_store
from taxi.registry.golden import TOLERANCE, check_golden, read_golden
from taxi.registry.integrity import Manifest, UnsafeModel, check_registered_folder, model_part
from taxi.registry.mlflow_client import Client, connect, is_missing, reaching
from taxi.registry.provenance import RESULT, SEAL, committed_sha256, list_records, result_digest, sealed_digest
from taxi.registry.versions import (
    DECIDING,
    DEV,
    ENVIRONMENTS,
    Version,
    fetch_registered,
    find_version,
    recorded_manifest,
    versions,
)


def _raw_bytes(found: Version, month: str) -> dict[str, Any]:
    names = {
        "sha256": "data",
        "trips_sha256": "trips",
        "address": "address",
        "etag": "etag",
        "fetched_at": "fetched_at",
    }
    return {"month": month} | {name: found.tags.get(f"{tag}.{month}") for name, tag in names.items()}


def trace_version(found: Version, pages: list[str]) -> dict[str, Any]:
    """Spell out a version's way back to raw bytes, code and reports, as its tags have it."""
    tags = found.tags
    return {
        "version": f"{found.service}/{found.number}",
        "environment": found.environment,
        "released_from": tags.get("released_from"),
        "rolled_back": tags.get("rolled_back") or None,
        "approved": {name: tags[f"approved.{name}"] for name in ENVIRONMENTS if tags.get(f"approved.{name}")},
        "role": tags["role"],
        "parent": tags.get("parent"),
        "trained_from": found.trained_from,
        "trained_to": found.trained_to,
        "judged_in": tags["judged_in"],
        "promoted_in": found.promoted_in,
        "synthetic": tags["synthetic"] == "true",
        "metrics": found.metrics,
        "model_sha256": tags["model_sha256"],
        "fingerprint": tags["fingerprint"],
        "raw": [_raw_bytes(found, month) for month in tags["months"].split(",")],
        "code": {name: tags[name] for name in ("git_commit", "git_dirty", "lock_sha256")},
        "run": found.run_id,
        "reports": pages,
    }


LOCK = "requirements.lock"
SIDECAR = "sidecar"
FIGURES = f"{DECIDING}.json"
ROUNDING = 1e-4  # results keep six decimals, and the last bits of a sum differ from processor to processor
_AWAY = "is not on hand: it was published anew since, or is kept elsewhere"


@dataclass(frozen=True)
class Comparison:
    """What recomputing one thing found: ``status`` is same, differs or away (not on this machine, so not checked)."""

    what: str
    name: str
    status: str
    reason: str = ""


def compare(what: str, name: str, expected: str, found: str | None, away: str = "is not on hand") -> Comparison:
    """Return whether a digest is the one recorded; ``found`` is None where there is nothing to hash."""
    if found is None:
        return Comparison(what, name, "away", away)
    if found == expected:
        return Comparison(what, name, "same")
    return Comparison(what, name, "differs", f"has sha256 {found}; {expected} was recorded")


def hash_file(path: Path) -> str | None:
    """Return the SHA-256 of a file; None if it is not there."""
    return sha256_file(path) if path.is_file() else None


def check_raw(found: Version, month: str, settings: Settings) -> Comparison:
    """Compare the published bytes of a month; an edition that was replaced since is looked for among those kept."""
    paths, expected = settings.month(found.service, month), found.tags[f"data.{month}"]
    here, edition = hash_file(paths.raw), f"{month}-{expected[:12]}.parquet"
    if here != expected and (kept := settings.data / "editions" / found.service / edition).is_file():
        return compare("raw month", f"editions/{found.service}/{edition}", expected, sha256_file(kept))
    if here not in (None, expected) and expected in _earlier(paths.sidecar):
        here = None
    return compare("raw month", f"raw/{found.service}/{month}.parquet", expected, here, _AWAY)


def _earlier(sidecar: Path) -> set[str]:
    origin = read_origin(sidecar)
    return {edition.sha256 for edition in origin.previous} if origin else set()


def was_republished(found: Version, month: str, settings: Settings) -> bool:
    """Return whether another edition of the month took the place of the one that was recorded."""
    paths, expected = settings.month(found.service, month), found.tags[f"data.{month}"]
    return hash_file(paths.raw) not in (None, expected) and expected in _earlier(paths.sidecar)


def check_beside(found: Version, month: str, settings: Settings) -> list[Comparison]:
    """Compare kept trips, quarantine and acceptance of a month; those of a later edition are not what was recorded."""
    paths, anew = settings.month(found.service, month), was_republished(found, month, settings)
    recorded = {"kept month": (paths.trips, found.tags[f"trips.{month}"])}
    marks = json.loads(found.tags.get(f"records.{month}", "{}"))
    recorded |= {name: (path, marks[name]) for name, path in list_records(paths).items() if name in marks}
    return [
        compare(what, path.relative_to(settings.data).as_posix(), digest, None if anew else hash_file(path), _AWAY)
        for what, (path, digest) in recorded.items()
        if what != SIDECAR  # by its words: see check_origin
    ]


def _told(edition: Edition) -> dict[str, str]:
    return edition.model_dump(include={"sha256", "address", "fetched_at"}) | {"etag": edition.etag or "none"}


def _recorded_origin(found: Version, month: str) -> dict[str, str]:
    tags = {"sha256": "data", "address": "address", "etag": "etag", "fetched_at": "fetched_at"}
    return {key: found.tags[f"{tag}.{month}"] for key, tag in tags.items()}


def _recorded_months(found: Version) -> list[str]:
    """Return the months that trained the version or judged it, as far as their bytes were recorded."""
    months = dict.fromkeys([*found.tags["months"].split(","), found.tags["judged_in"]])
    return [month for month in months if f"data.{month}" in found.tags]


def keep_origins(found: Version, settings: Settings) -> None:
    """Keep among the editions of sidecars what was recorded elsewhere of the same bytes: this installation fetched them itself."""
    for month in _recorded_months(found):
        sidecar = settings.month(found.service, month).sidecar
        if (origin := read_origin(sidecar)) is None:
            continue
        recorded = _recorded_origin(found, month)
        if origin.sha256 == recorded["sha256"] and recorded not in map(_told, [origin, *origin.previous]):
            theirs = Edition.model_validate(
                recorded | {"etag": None if recorded["etag"] == "none" else recorded["etag"], "size": origin.size}
            )
            write_model(sidecar, origin.model_copy(update={"previous": [theirs, *origin.previous]}))


def check_origin(found: Version, month: str, settings: Settings) -> Comparison | None:
    """Compare what the month's sidecar says with what was recorded; None where there is none, or it is of another edition.

    The same bytes brought anew, from elsewhere or under another ETag, leave what was recorded among the sidecar's editions.
    """
    sidecar, name = settings.month(found.service, month).sidecar, f"raw/{found.service}/{month}.json"
    if (origin := read_origin(sidecar)) is None or was_republished(found, month, settings):
        return None
    recorded = _recorded_origin(found, month)
    if recorded in map(_told, origin.previous):
        return Comparison("origin", name, "same")
    odd = {key: text for key, text in _told(origin).items() if text != recorded[key]}
    if odd:
        said = "; ".join(f"names the {key} {text}; {recorded[key]} was recorded" for key, text in odd.items())
        return Comparison("origin", name, "differs", said)
    digest = json.loads(found.tags.get(f"records.{month}", "{}")).get(SIDECAR)
    return compare("origin", name, digest, hash_file(sidecar)) if digest else Comparison("origin", name, "same")


def check_months(found: Version, settings: Settings) -> list[Comparison]:
    """Compare raw bytes, and what was made and said of them, of all months that trained the version or judged it."""
    known = _recorded_months(found)
    origins = [check_origin(found, month, settings) for month in known]
    return [
        *(check_raw(found, month, settings) for month in known),
        *(one for month in known for one in check_beside(found, month, settings)),
        *(one for one in origins if one),
    ]


class _MonthFingerprint(BaseModel):
    """The one field of ``runs.month_result.MonthResult`` that the registry, which lies below it, looks at."""

    fingerprint: str | None = None


def _result_file(found: Version, settings: Settings) -> Path:
    return settings.month(found.service, found.tags["judged_in"]).reports / "month.json"


def made_by_the_same_run(found: Version, settings: Settings) -> bool:
    """Return whether the reports and models in the month's folders are of the run that registered the version."""
    path = _result_file(found, settings)
    return not path.is_file() or _fingerprint(path) == found.tags["fingerprint"]


def _fingerprint(path: Path) -> str | None:
    return read_model(path, _MonthFingerprint, "the result of a month", "Remove it and run the month again").fingerprint


def check_result(found: Version, run: Run, client: Client, settings: Settings) -> Comparison:
    """Compare the month's result, ``month.json``, with the digest that its run keeps; another run's is checked by that run."""
    path, name = _result_file(found, settings), f"reports/{found.service}/{found.tags['judged_in']}/month.json"
    if not path.is_file():
        return Comparison("month result", name, "away", "is not on hand")
    if (fingerprint := _fingerprint(path)) != found.tags["fingerprint"]:
        named = f"tags.fingerprint = '{fingerprint}'"
        plain = re.fullmatch(r"[\w-]+", fingerprint or "")
        if not plain or not client.search_runs([run.info.experiment_id], named, max_results=1):
            return Comparison(
                "month result", name, "differs", f"names a run that is not in the registry: {fingerprint!r}"
            )
        return Comparison("month result", name, "away", "is of another run since")
    if (expected := run.data.tags.get(RESULT)) is None:
        return Comparison("month result", name, "away", "was made before results were sealed")
    result = read_json(path)
    whole = sha256_json(result)  # as it was sealed before other installations took results up
    return compare("month result", name, expected, whole if whole == expected else result_digest(result))


def check_folder(what: str, folder: Path, shown: str, expected: Mapping[str, str], away: str) -> list[Comparison]:
    """Compare each expected file (by name, with its SHA-256) in a folder."""
    return [
        compare(what, f"{shown}/{name}", sha256, hash_file(folder / name), away) for name, sha256 in expected.items()
    ]


def check_published(found: Version, settings: Settings, manifest: Manifest) -> list[Comparison]:
    """Compare the copies that people open: the month's reports and the model's folder beside its data.

    Where a later run made the month anew, they are that run's, and nothing is said of them.
    """
    if not made_by_the_same_run(found, settings):
        return []
    paths, month = settings.month(found.service, found.tags["judged_in"]), found.tags["judged_in"]
    shown = f"reports/{found.service}/{month}"
    reports = check_folder("published report", paths.reports, shown, found.recorded_reports, "is not on hand")
    marks = {name: mark.sha256 for name, mark in manifest.items()}
    role, place = found.tags["role"], f"models/{found.service}/{month}/{found.tags['role']}"
    return [*reports, *check_folder("local model file", paths.models / role, place, marks, "is not on hand")]


def check_code(found: Version, root: Path) -> list[Comparison]:
    """Compare the lock in the version's commit, and the one in this checkout unless a later commit changed it."""
    commit, expected = found.tags["git_commit"], found.tags["lock_sha256"]
    committed, here = committed_sha256(root, commit, LOCK), hash_file(root / LOCK)
    findings = [compare("lock", f"{LOCK} in commit {commit[:12]}", expected, committed, "that commit is not on hand")]
    if findings[0].status == "differs" and found.tags["git_dirty"] == "true":
        findings = [Comparison("lock", findings[0].name, "away", "the lock that was used was in no commit")]
    if here != expected and here is not None and here == committed_sha256(root, "HEAD", LOCK):
        return [*findings, Comparison("lock", LOCK, "away", "a later commit changed it")]
    return [*findings, compare("lock", LOCK, expected, here)]


def describe_faults(findings: list[Comparison]) -> str | None:
    """Return what differs, in one line; None if nothing does."""
    faults = [f"{one.what} {one.name} {one.reason}" for one in findings if one.status == "differs"]
    return "; ".join(faults) or None


def count_findings(findings: list[Comparison]) -> dict[str, Any]:
    """Return how many findings have each status."""
    return {status: sum(one.status == status for one in findings) for status in ("same", "differs", "away")}


# --- One prediction that was answered: found in the log by its id, and predicted again from the inputs kept there.

Json = dict[str, Any]


def read_prediction(url: str, prediction_id: str) -> Json:
    """Return the row that the prediction log keeps of one prediction; raise UsageError if there is none, StoreDown without an answer."""
    if (file := sqlite_file(url)) and not file.is_file():
        raise UsageError(f"expected the prediction log at {file}; there is none (TAXI_PREDICTIONS)")
    row = open_store(url, make=False).find_prediction(prediction_id)
    if row is None:
        raise UsageError(f"the prediction log has no prediction {prediction_id!r}")
    return row


def predict_again(model: DurationModel, row: Json) -> pd.Series:
    """Return mean, median, p10 and p90 (minutes) that ``model`` predicts for the inputs in a row of the prediction log."""
    miles = row.get("planned_distance_miles")
    trip = {"pickup": pd.Timestamp(row["pickup"]), "VendorID": row["vendor"]}
    trip |= {name: row[name] for name in ("PULocationID", "DOLocationID", "passenger_count", "trip_type")}
    frame = pd.DataFrame([trip]).astype({"pickup": "datetime64[us]", "PULocationID": "int32", "DOLocationID": "int32"})
    frame = frame.astype(dict.fromkeys(("passenger_count", "trip_type", "VendorID"), "float64"))
    if miles is None or model.planned is None:
        return model.predict(frame).iloc[0]
    return model.planned.predict(frame.assign(planned_distance=float(miles))).iloc[0]


def check_prediction(model: DurationModel, row: Json) -> Comparison:
    """Predict again with the version's model and compare with what was answered."""
    again = predict_again(model, row)
    for name in OUTPUTS:
        if not abs(again[name] - float(row[name])) <= TOLERANCE:
            said = f"{name} was answered as {row[name]} minutes; the model says {again[name]:.4f}"
            return Comparison("prediction", row["prediction_id"], "differs", said)
    return Comparison("prediction", row["prediction_id"], "same")


# --- The whole way back from a prediction or a version, recomputed: model, run, reports, parameters, months, code.

RUN_TAGS = ("fingerprint", "git_commit", "git_dirty", "lock_sha256", "synthetic")


def check_model(tracking_uri: str, found: Version, prediction: Json | None) -> list[Comparison]:
    """Fetch the version's files and compare every byte; then let the model answer its golden trips, and ``prediction``."""
    try:
        manifest = recorded_manifest(found)
        with TemporaryDirectory() as place:
            got = fetch_registered(tracking_uri, found, Path(place) / "model")
            same = [compare("model file", name, mark.sha256, hash_file(got / name)) for name, mark in manifest.items()]
            if describe_faults(same):
                return same
            check_registered_folder(got, manifest)
            model = load_model(got / model_part(manifest)[0])
        check_golden(model, read_golden(found.tags.get("golden")))
    except UnsafeModel as error:
        return [Comparison("model", found.label, "differs", str(error))]
    checked = [*same, Comparison("golden trips", found.label, "same")]
    return [*checked, check_prediction(model, prediction)] if prediction else checked


@dataclass(frozen=True)
class RunChecks:
    """What comparing a version with its run gave: the findings, the parameters that it logged, and the paths of its reports."""

    findings: list[Comparison]
    params: Json
    pages: list[str]


def check_run(settings: Settings, found: Version) -> RunChecks:
    """Compare the run's tags and parameters, its executed notebooks and reports, and the figures that the version is judged by."""
    with reaching(settings.tracking_uri), TemporaryDirectory() as place:
        client = connect(settings.tracking_uri)
        try:
            run = client.get_run(found.run_id)
        except MlflowException as error:
            if not is_missing(error):
                raise
            return RunChecks([Comparison("run", found.run_id, "differs", "is gone from the registry")], {}, [])
        some = client.list_artifacts(found.run_id, "reports")
        got = Path(client.download_artifacts(found.run_id, "reports", place)) if some else Path(place)
        kept = check_folder("report", got, "run", found.recorded_reports, "gone")
        figures = check_figures(found, got / FIGURES)
        result = check_result(found, run, client, settings)
    reports = [
        Comparison(one.what, one.name, "differs", "is gone from the run") if one.status == "away" else one
        for one in kept
    ]
    tags, params = dict(run.data.tags), dict(run.data.params)
    parameters = compare(
        "parameters", f"of run {found.run_id}", found.tags.get("params_sha256", "nothing"), sha256_json(params)
    )
    run_findings = [check_run_tags(found, tags), check_seal(found, tags), *reports, figures, parameters, result]
    return RunChecks(run_findings, params, [page.path for page in some])


def check_seal(found: Version, run_tags: Mapping[str, str]) -> Comparison:
    """Compare the version's tags with the digest of them that it and its run keep: one that was edited since differs."""
    seals = {found.tags.get(SEAL), run_tags.get(f"{SEAL}.{found.tags['role']}")}
    if seals == {None}:
        return Comparison("tags", found.label, "away", "was registered before tags were sealed")
    if seals == {sealed_digest(found.tags)}:
        return Comparison("tags", found.label, "same")
    return Comparison("tags", found.label, "differs", "are not those that it was registered with")


def check_figures(found: Version, report: Path) -> Comparison:
    """Compare the version's metrics with those that the comparison's result, a report of its run, has of the challenger."""
    digest = found.recorded_reports.get(FIGURES)
    if digest is None:
        return Comparison("metrics", found.label, "away", f"no {FIGURES} was recorded")
    if hash_file(report) != digest:
        return Comparison("metrics", found.label, "differs", f"cannot be told from {FIGURES}, which is not as recorded")
    return compare_scores(found, _Figures.model_validate_json(report.read_bytes()).challenger, f"the report {FIGURES}")


class _Figures(BaseModel):
    """The one field of ``training.step_result.CompareResult`` that the registry, which lies below it, looks at."""

    challenger: dict[str, float]


def compare_scores(found: Version, scores: Mapping[str, float], told: str) -> Comparison:
    """Return whether the version's metrics are the ``scores`` that ``told`` has, but for a processor's rounding."""
    names = sorted({*found.metrics, *scores})
    pairs = {name: (found.metrics.get(name, math.nan), scores.get(name, math.nan)) for name in names}
    odd = [name for name, pair in pairs.items() if not math.isclose(*pair, rel_tol=ROUNDING)]
    if not odd:
        return Comparison("metrics", found.label, "same")
    said = ", ".join(f"{name} {pairs[name][0]:g} where {told} has {pairs[name][1]:g}" for name in odd)
    return Comparison("metrics", found.label, "differs", f"say {said}")


def score_again(settings: Settings, found: Version) -> Comparison:
    """Let the challenger predict again the trips that judged it, and compare its scores with the version's metrics."""
    trips = settings.month(found.service, found.tags["judged_in"]).trips
    rivals = [
        one
        for one in versions(settings.tracking_uri, found.service)
        if (one.run_id, one.tags["role"]) == (found.run_id, "challenger")
    ]
    since, digest = found.tags.get("holdout_from"), found.tags.get(f"trips.{found.tags['judged_in']}")
    if since is None or not rivals or hash_file(trips) != digest:
        return Comparison("metrics", found.label, "away", "the trips or the model that judged it are not on hand")
    with TemporaryDirectory() as place:
        try:
            got = fetch_registered(settings.tracking_uri, rivals[-1], Path(place) / "model")
            check_registered_folder(got, recorded_manifest(rivals[-1]))
            model = load_model(got / model_part(recorded_manifest(rivals[-1]))[0])
        except UnsafeModel as error:
            return Comparison("metrics", rivals[-1].label, "differs", str(error))
    rows = read_trips(trips)
    judging = rows if since == "none" else rows[rows["pickup"] >= pd.Timestamp(since)].reset_index(drop=True)
    return compare_scores(found, score(judging["duration"], model.predict(judging)), "predicting again")


def check_run_tags(found: Version, tags: dict[str, str]) -> Comparison:
    """Compare what the run says of its fingerprint, code, lock and raw bytes with what the version says of them."""
    months = [f"data.{month}" for month in found.tags["months"].split(",")]
    odd = [name for name in (*RUN_TAGS, *months) if tags.get(name) != found.tags.get(name)]
    if not odd:
        return Comparison("run", found.run_id, "same")
    return Comparison("run", found.run_id, "differs", f"says otherwise than {found.label} of {', '.join(odd)}")


def verify_version(settings: Settings, found: Version, prediction: Json | None = None) -> Json:
    """Return the way back with every step recomputed: ``verified`` is whether nothing differs, ``faults`` name what does.

    What is not on this machine is counted under ``away``, and is no fault. Raises RegistryUnreachable without an answer.
    """
    of_run, model = check_run(settings, found), check_model(settings.tracking_uri, found, prediction)
    local = check_published(found, settings, _own(found))
    findings = [*model, *of_run.findings, *local, *check_months(found, settings), *check_code(found, settings.root)]
    faults = [one for one in findings if one.status == "differs"]
    # in the order of the months that trained it; a month that only judged it comes last
    trail, here = (
        trace_version(found, of_run.pages),
        [one.status == "same" for one in findings if one.what == "raw month"],
    )
    return trail | {
        "raw": [one | {"on_hand": same} for one, same in zip(trail["raw"], here, strict=False)],
        "prediction": prediction and {name: _plain(value) for name, value in prediction.items()},
        "parameters": of_run.params,
        "verified": not faults,
        "counts": count_findings(findings),
        "faults": [f"{one.what} {one.name} {one.reason}" for one in faults],
        "checks": [asdict(one) for one in findings],
    }


def _own(found: Version) -> Any:
    return model_part(recorded_manifest(found))[1] if found.tags.get("manifest") else {}


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def gate_faults(settings: Settings, one: Version, target: str) -> dict[str, str | None]:
    """Return what recomputing found, for ``target``'s gate: model, golden trips, run, reports and scores; for prod the whole way back."""
    if target == ENVIRONMENTS[-1]:
        whole = {"lineage": "; ".join(verify_version(settings, one)["faults"]) or None}
    elif fault := describe_faults(check_model(settings.tracking_uri, one, None)):
        return {"model": fault}
    else:
        findings = [*check_run(settings, one).findings, *check_published(one, settings, {})]
        whole = {"model": None, "record": describe_faults(findings)}
    return whole | {"metrics": describe_faults([score_again(settings, one)])}


def trace(settings: Settings, wanted: str, environment: str = DEV, predictions: str | None = None) -> Json:
    """Trace and verify a version (SERVICE/NUMBER) or, by its 32 hexadecimal digits, a prediction in the log at ``predictions``."""
    identity = wanted.replace("-", "").lower()
    if len(identity) != 32 or not set(identity) <= set("0123456789abcdef"):
        return verify_version(settings, find_version(settings.tracking_uri, wanted, environment=environment))
    url = resolve_address(predictions, Path.cwd()) if predictions else settings.predictions
    row = read_prediction(url, identity)
    named = f"{row['service']}/{row['version']}"
    return verify_version(settings, find_version(settings.tracking_uri, named, environment=environment), row)
