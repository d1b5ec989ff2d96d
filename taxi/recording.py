"""A month's run, its models and their versions, written to MLflow: nothing twice, whatever was interrupted."""

import logging
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import mlflow
import pandas as pd
from mlflow.data.code_dataset_source import CodeDatasetSource
from mlflow.data.pandas_dataset import PandasDataset
from mlflow.entities import LoggedModel, Run, RunInfo
from mlflow.models import infer_signature

from taxi.aliases import follow_tags, make_name
from taxi.config import Settings
from taxi.database import ARTIFACTS
from taxi.files import locked, remove, sha256_tree
from taxi.golden import write_golden
from taxi.integrity import check_registered_folder, read_manifest, write_manifest
from taxi.lineage import DEV, model_name
from taxi.model import load_model
from taxi.params import Params
from taxi.plan import Plan
from taxi.provenance import (
    describe_inputs,
    logged_params,
    report_pages,
    requirements,
    run_tags,
    trail_tags,
    version_tags,
)
from taxi.registry import versions
from taxi.schema import AT_PICKUP
from taxi.tracking import Client, connect, database_file, lock_file, prepare, reaching
from taxi.training import judging_trips

Json = dict[str, Any]
_LOG = logging.getLogger(__name__)


def _experiment(client: Client, tracking_uri: str, service: str) -> str:
    name, database = model_name(service), database_file(tracking_uri)
    place = (database.parent / ARTIFACTS / service).as_uri() if database else None
    found = client.get_experiment_by_name(name)
    return str(found.experiment_id if found else client.create_experiment(name, place))


def _log_month(settings: Settings, plan: Plan, params: Params, steps: Json, inputs: Json, at: int) -> None:
    paths, compare = settings.month(plan.service, plan.month), steps.get("05-compare", {})
    mlflow.log_params(logged_params(plan, params))
    for who, scores in (("champion", steps["03-monitor"]["metrics"]), ("challenger", compare.get("challenger"))):
        mlflow.log_metrics({f"{who}_{name}": value for name, value in (scores or {}).items()}, timestamp=at)
    for month, one in inputs.items():
        sha256, origin = one["trips_sha256"], {name: one[name] for name in ("address", "raw_sha256")}
        frame, source = pd.DataFrame({"sha256": [sha256]}), CodeDatasetSource(origin)
        data = PandasDataset(frame, source, name=f"{plan.service}-{month}", digest=sha256[:36])
        mlflow.log_input(data, "judging" if month == plan.month else "training", tags={"sha256": sha256, **origin})
    for page in report_pages(paths):
        mlflow.log_artifact(str(page), "reports")


def _logged_model(client: Client, settings: Settings, plan: Plan, role: str, run_id: str, experiment: str) -> Any:
    """Log the model's files, unless a killed run had got so far."""
    made = f"source_run_id = '{run_id}' AND name = '{role}' AND status = 'READY'"
    for one in client.search_logged_models([experiment], made):
        return one
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
    compare: Json,
    tags: dict[str, str],
    inputs: Json,
    run: RunInfo,
) -> None:
    name = model_name(plan.service)
    there = _registered(settings.tracking_uri, plan.service, tags["fingerprint"])
    make_name(client, name)
    waits = {"awaits_approval": DEV} if DEV in params.release.approval else {}
    for role in ("challenger", "winner") if compare["promote"] else ("challenger",):
        if role not in there:
            logged = _logged_model(client, settings, plan, role, run.run_id, run.experiment_id)
            own = version_tags(plan, role, compare["challenger"], inputs, there.get("challenger"))
            own |= _marks(settings, plan, role, logged) | (waits if role == "winner" else {})
            source = f"models:/{logged.model_id}"
            made = client.create_model_version(name, source, run.run_id, tags | own, model_id=logged.model_id)
            there[role] = int(made.version)
            if "awaits_approval" in own:
                page = settings.month(plan.service, plan.month).reports / "05-compare.html"
                _LOG.warning("%s/%s waits: taxi approve %s/%s --report %s", *[plan.service, made.version] * 2, page)


def _month_run(client: Client, tracking_uri: str, plan: Plan, fingerprint: str) -> Run:
    experiment = _experiment(client, tracking_uri, plan.service)
    for run in client.search_runs([experiment], f"tags.fingerprint = '{fingerprint}'", max_results=1):
        return run
    return client.create_run(experiment, tags={"fingerprint": fingerprint}, run_name=f"{plan.service} {plan.month}")


def record_month(settings: Settings, plan: Plan, params: Params, steps: Json, fingerprint: str) -> dict[str, int]:
    """Keep the month's run and its models, and move the aliases; returns version numbers by role (challenger, winner).

    Safe to repeat: what is there, by ``fingerprint``, is taken up, and what a killed run did not get to is done.
    """
    uri = settings.tracking_uri
    prepare(uri)
    with reaching(uri), locked(lock_file(uri, plan.service)):
        client = connect(uri)
        run = _month_run(client, uri, plan, fingerprint)
        if run.info.status != "FINISHED":
            inputs = describe_inputs(settings, plan.service, sorted({*plan.window, *plan.refit_window, plan.month}))
            tags = run_tags(settings, plan, inputs, fingerprint)
            with mlflow.start_run(run.info.run_id):
                mlflow.set_tags(tags | {f"data.{month}": one["raw_sha256"] for month, one in inputs.items()})
                _log_month(settings, plan, params, steps, inputs, run.info.start_time)
                if "05-compare" in steps:
                    tags |= trail_tags(settings, plan, params)
                    _register_models(client, settings, plan, params, steps["05-compare"], tags, inputs, run.info)
        follow_tags(uri, plan.service, f"{plan.service} {plan.month} was run")
        return _registered(uri, plan.service, fingerprint)
