"""The whole way back from a prediction or a version, recomputed: model, run, reports, parameters, months, code."""

from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from taxi.answered import check_prediction, read_prediction
from taxi.config import Settings
from taxi.evidence import (
    Finding,
    check_code,
    check_folder,
    check_months,
    check_published,
    compare,
    count_findings,
    describe_faults,
    hash_file,
)
from taxi.files import sha256_json
from taxi.golden import check_golden, read_golden
from taxi.integrity import UnsafeModel, check_registered_folder, model_part
from taxi.lineage import DEV, ENVIRONMENTS, Version, trace_version
from taxi.model import load_model
from taxi.registry import fetch_registered, find_version, recorded_manifest
from taxi.tracking import connect, reaching

Json = dict[str, Any]
RUN_TAGS = ("fingerprint", "git_commit", "git_dirty", "lock_sha256", "synthetic")


def check_model(tracking_uri: str, found: Version, prediction: Json | None) -> list[Finding]:
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
        return [Finding("model", found.label, "differs", str(error))]
    checked = [*same, Finding("golden trips", found.label, "same")]
    return [*checked, check_prediction(model, prediction)] if prediction else checked


def check_run(tracking_uri: str, found: Version) -> tuple[list[Finding], Json]:
    """Compare the run's parameters and its executed notebooks and reports; also return the parameters."""
    with reaching(tracking_uri), TemporaryDirectory() as place:
        client = connect(tracking_uri)
        data = client.get_run(found.run_id).data
        some = client.list_artifacts(found.run_id, "reports")
        got = Path(client.download_artifacts(found.run_id, "reports", place)) if some else Path(place)
        kept = check_folder("report", got, "run", found.recorded_reports, "gone")
    reports = [
        Finding(one.what, one.name, "differs", "is gone from the run") if one.status == "away" else one for one in kept
    ]
    expected = found.tags.get("params_sha256", "nothing")
    parameters = compare("parameters", f"of run {found.run_id}", expected, sha256_json(dict(data.params)))
    return [check_run_tags(found, dict(data.tags)), *reports, parameters], dict(data.params)


def check_run_tags(found: Version, tags: dict[str, str]) -> Finding:
    """Compare what the run says of its fingerprint, code, lock and raw bytes with what the version says of them."""
    months = [f"data.{month}" for month in found.tags["months"].split(",")]
    odd = [name for name in (*RUN_TAGS, *months) if tags.get(name) != found.tags.get(name)]
    if not odd:
        return Finding("run", found.run_id, "same")
    return Finding("run", found.run_id, "differs", f"says otherwise than {found.label} of {', '.join(odd)}")


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
    row = read_prediction(predictions or settings.predictions, identity)
    named = f"{row['service']}/{row['version']}"
    return verify_version(settings, find_version(settings.tracking_uri, named, environment=environment), row)
