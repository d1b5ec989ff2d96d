"""Lineage verification: recomputes what a version's tags claim of files here; each is the same, differs, or is not here."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
from pydantic import BaseModel

from taxi.addresses import sqlite_file
from taxi.config import Settings, resolve_address
from taxi.data.origin import read_origin
from taxi.errors import UsageError
from taxi.files import read_model, sha256_file, sha256_json
from taxi.models.model import DurationModel, load_model
from taxi.outputs import OUTPUTS
from taxi.predictions.store import open_store
from taxi.registry.golden import TOLERANCE, check_golden, read_golden
from taxi.registry.integrity import Manifest, UnsafeModel, check_registered_folder, model_part
from taxi.registry.mlflow_client import connect, reaching
from taxi.registry.provenance import committed_sha256
from taxi.registry.versions import DEV, ENVIRONMENTS, Version, fetch_registered, find_version, recorded_manifest


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


def check_kept(found: Version, month: str, settings: Settings) -> Comparison:
    """Compare the kept trips of a month; those made anew from a later edition of it are not the ones that trained."""
    paths, expected = settings.month(found.service, month), found.tags[f"trips.{month}"]
    here = hash_file(paths.trips)
    if here not in (None, expected) and found.tags[f"data.{month}"] in _earlier(paths.sidecar):
        here = None
    return compare("kept month", f"trips/{found.service}/{month}.parquet", expected, here, _AWAY)


def check_origin(found: Version, month: str, settings: Settings) -> Comparison | None:
    """Compare the address in the month's sidecar with the one recorded; None where the sidecar is of another edition."""
    origin = read_origin(settings.month(found.service, month).sidecar)
    if origin is None or origin.sha256 != found.tags[f"data.{month}"]:
        return None
    expected, name = found.tags[f"address.{month}"], f"raw/{found.service}/{month}.json"
    if origin.address == expected:
        return Comparison("origin", name, "same")
    return Comparison("origin", name, "differs", f"names the address {origin.address}; {expected} was recorded")


def check_months(found: Version, settings: Settings) -> list[Comparison]:
    """Compare raw bytes, their origin and kept trips of all months that trained the version."""
    months = found.tags["months"].split(",")
    origins = [check_origin(found, month, settings) for month in months]
    return [
        *(check_kept(found, month, settings) for month in months),
        *(check_raw(found, month, settings) for month in months),
        *(one for one in origins if one),
    ]


class _MonthFingerprint(BaseModel):
    """The one field of ``runs.month_result.MonthResult`` that the registry, which lies below it, looks at."""

    fingerprint: str | None = None


def made_by_the_same_run(found: Version, settings: Settings) -> bool:
    """Return whether the reports and models in the month's folders are of the run that registered the version."""
    result = settings.month(found.service, found.tags["judged_in"]).reports / "month.json"
    if not result.is_file():
        return True
    kept = read_model(result, _MonthFingerprint, "the result of a month", "Remove it and run the month again")
    return kept.fingerprint == found.tags["fingerprint"]


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


def check_run(tracking_uri: str, found: Version) -> tuple[list[Comparison], Json]:
    """Compare the run's parameters and its executed notebooks and reports; also return the parameters."""
    with reaching(tracking_uri), TemporaryDirectory() as place:
        client = connect(tracking_uri)
        data = client.get_run(found.run_id).data
        some = client.list_artifacts(found.run_id, "reports")
        got = Path(client.download_artifacts(found.run_id, "reports", place)) if some else Path(place)
        kept = check_folder("report", got, "run", found.recorded_reports, "gone")
    reports = [
        Comparison(one.what, one.name, "differs", "is gone from the run") if one.status == "away" else one
        for one in kept
    ]
    expected = found.tags.get("params_sha256", "nothing")
    parameters = compare("parameters", f"of run {found.run_id}", expected, sha256_json(dict(data.params)))
    return [check_run_tags(found, dict(data.tags)), *reports, parameters], dict(data.params)


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
    uri = settings.tracking_uri
    with reaching(uri):
        pages = [page.path for page in connect(uri).list_artifacts(found.run_id, "reports")]
    of_run, params = check_run(uri, found)
    model = check_model(uri, found, prediction)
    local = check_published(found, settings, _own(found))
    findings = [*model, *of_run, *local, *check_months(found, settings), *check_code(found, settings.root)]
    faults = [one for one in findings if one.status == "differs"]
    trail, here = trace_version(found, pages), [one.status == "same" for one in findings if one.what == "raw month"]
    return trail | {
        "raw": [one | {"on_hand": same} for one, same in zip(trail["raw"], here, strict=True)],
        "prediction": prediction and {name: _plain(value) for name, value in prediction.items()},
        "parameters": params,
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
    """Return what recomputing found, for ``target``'s gate: the model's files and golden trips, for prod the whole way back."""
    if target != ENVIRONMENTS[-1]:
        return {"model": describe_faults(check_model(settings.tracking_uri, one, None))}
    return {"lineage": "; ".join(verify_version(settings, one)["faults"]) or None}


def trace(settings: Settings, wanted: str, environment: str = DEV, predictions: str | None = None) -> Json:
    """Trace and verify a version (SERVICE/NUMBER) or, by its 32 hexadecimal digits, a prediction in the log at ``predictions``."""
    identity = wanted.replace("-", "").lower()
    if len(identity) != 32 or not set(identity) <= set("0123456789abcdef"):
        return verify_version(settings, find_version(settings.tracking_uri, wanted, environment=environment))
    url = resolve_address(predictions, Path.cwd()) if predictions else settings.predictions
    row = read_prediction(url, identity)
    named = f"{row['service']}/{row['version']}"
    return verify_version(settings, find_version(settings.tracking_uri, named, environment=environment), row)
