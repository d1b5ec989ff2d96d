"""Runs, models, versions and aliases in MLflow. "No champion yet" is None; a registry without an answer is an error."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from sqlite3 import Error as SQLiteError
from typing import Any

import mlflow
import pandas as pd
from mlflow.data.code_dataset_source import CodeDatasetSource
from mlflow.data.pandas_dataset import PandasDataset
from mlflow.entities import Run, RunInfo
from mlflow.entities.model_registry import ModelVersion
from mlflow.environment_variables import MLFLOW_HTTP_REQUEST_MAX_RETRIES
from mlflow.exceptions import MlflowException
from mlflow.models import infer_signature
from mlflow.store.db.utils import _initialize_tables
from mlflow.tracking import MlflowClient
from sqlalchemy import create_engine
from sqlalchemy.exc import SQLAlchemyError

from taxi.config import NOTEBOOKS, Params, Settings, parse_service
from taxi.database import ARTIFACTS, beside, prepare_database
from taxi.errors import TaxiError
from taxi.files import locked, remove, sha256_tree, staged
from taxi.lineage import Version, newest_version, pick_champion, pick_version, trace_version
from taxi.model import load_model
from taxi.plan import Plan
from taxi.provenance import describe_inputs, flatten_params, requirements, run_tags, version_tags
from taxi.schema import AT_PICKUP
from taxi.training import judging_trips

Json = dict[str, Any]
_SQLITE = "sqlite:///"


class RegistryUnreachable(TaxiError):
    """The registry did not answer; nothing is known about champions."""


def model_name(service: str) -> str:
    """Return the registered model's name."""
    return f"taxi-{service}"


def _database(tracking_uri: str) -> Path | None:
    return Path(tracking_uri.removeprefix(_SQLITE)).absolute() if tracking_uri.startswith(_SQLITE) else None


def _lock(tracking_uri: str, service: str) -> Path:
    database = _database(tracking_uri)
    return beside(database, f"{service}.lock") if database else Path.home() / ".taxi" / f"{service}.lock"


@contextmanager
def _reaching(tracking_uri: str) -> Iterator[None]:
    try:
        yield
    except (MlflowException, SQLAlchemyError, SQLiteError, OSError) as error:
        shown = tracking_uri.split("@")[-1]
        raise RegistryUnreachable(f"the model registry at {shown} did not answer: {error}") from error


def prepare(tracking_uri: str) -> None:
    """Make a SQLite registry ready, once: a fresh one fails when many processes create it at the same time."""
    database = _database(tracking_uri)
    if database:
        with _reaching(tracking_uri):
            prepare_database(database, mlflow.__version__, _migrate)


def _migrate(database: Path) -> None:
    engine = create_engine(f"{_SQLITE}{database}")
    _initialize_tables(engine)
    engine.dispose()


def _client(tracking_uri: str) -> MlflowClient:
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    if not MLFLOW_HTTP_REQUEST_MAX_RETRIES.is_set():
        MLFLOW_HTTP_REQUEST_MAX_RETRIES.set(3)
    mlflow.set_tracking_uri(tracking_uri)
    mlflow.set_registry_uri(tracking_uri)
    return MlflowClient(tracking_uri, tracking_uri)


def _version(one: ModelVersion, service: str) -> Version:
    tags = dict(one.tags)
    metrics = {name.removeprefix("metric."): float(value) for name, value in tags.items() if name.startswith("metric.")}
    trained = tags["trained_from"], tags["trained_to"]
    source, run_id = str(one.source), str(one.run_id)
    return Version(service, int(one.version), *trained, tags.get("promoted_in"), metrics, tags, source, run_id)


def versions(tracking_uri: str, service: str) -> list[Version]:
    """Return the versions that this package registered, oldest first; raise RegistryUnreachable without an answer."""
    prepare(tracking_uri)
    with _reaching(tracking_uri):
        found = _client(tracking_uri).search_model_versions(f"name = '{model_name(service)}'", max_results=10_000)
    return sorted((_version(one, service) for one in found if "fingerprint" in one.tags), key=lambda one: one.number)


def champion_before(tracking_uri: str, service: str, month: str) -> Version | None:
    """Return the newest promoted version whose training ends before ``month``; None if the registry has none."""
    return pick_champion(versions(tracking_uri, service), month)


def champion_now(tracking_uri: str, service: str) -> Version | None:
    """Return the version that the alias ``champion`` names; None if the registry has none."""
    return pick_champion(versions(tracking_uri, service))


def aliased_version(tracking_uri: str, service: str, alias: str) -> Version | None:
    """Return the version that ``alias`` names now; None if it names none."""
    prepare(tracking_uri)
    with _reaching(tracking_uri):
        client = _client(tracking_uri)
        for name in client.search_registered_models(f"name = '{model_name(service)}'"):
            if alias in name.aliases:
                return _version(client.get_model_version(model_name(service), name.aliases[alias]), service)
    return None


def download_model(tracking_uri: str, wanted: Version, folder: Path) -> None:
    """Bring a version's files into ``folder``, whole; raise TaxiError if they are gone or not those registered."""
    expected, label = wanted.tags["model_sha256"], f"{wanted.service}/{wanted.number}"
    if folder.is_dir() and sha256_tree(folder) == expected:
        return
    prepare(tracking_uri)
    with staged(folder) as part:
        everything = Path(f"{part}-all")
        try:
            everything.mkdir()
            with _reaching(tracking_uri):
                _client(tracking_uri)
                uri = f"models:/{model_name(wanted.service)}/{wanted.number}"
                got = Path(mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=str(everything)))
            kept = [path for path in (got / "data").glob("*") if path.is_dir()]
            found = sha256_tree(kept[0]) if kept else "no files"
            if found != expected:
                raise TaxiError(f"expected the files of {label} with sha256 {expected}; the registry has {found}")
            kept[0].rename(part)
        finally:
            remove(everything)


def _experiment(client: MlflowClient, tracking_uri: str, service: str) -> str:
    name, database = model_name(service), _database(tracking_uri)
    place = (database.parent / ARTIFACTS / service).as_uri() if database else None
    found = client.get_experiment_by_name(name)
    return str(found.experiment_id if found else client.create_experiment(name, place))


def _log_month(settings: Settings, plan: Plan, params: Params, steps: Json, inputs: Json, at: int) -> None:
    paths, compare = settings.month(plan.service, plan.month), steps.get("05-compare", {})
    mlflow.log_params(flatten_params(params) | {"months": ",".join(plan.window) or plan.month})
    for who, scores in (("champion", steps["03-monitor"]["metrics"]), ("challenger", compare.get("challenger"))):
        mlflow.log_metrics({f"{who}_{name}": value for name, value in (scores or {}).items()}, timestamp=at)
    for month, one in inputs.items():
        sha256, origin = one["trips_sha256"], {name: one[name] for name in ("address", "raw_sha256")}
        frame, source = pd.DataFrame({"sha256": [sha256]}), CodeDatasetSource(origin)
        data = PandasDataset(frame, source, name=f"{plan.service}-{month}", digest=sha256[:36])
        mlflow.log_input(data, "judging" if month == plan.month else "training", tags={"sha256": sha256, **origin})
    for page in sorted(page for name in NOTEBOOKS for page in paths.reports.glob(f"{name}.*")):
        mlflow.log_artifact(str(page), "reports")


def _logged_model(client: MlflowClient, settings: Settings, plan: Plan, role: str, run_id: str, experiment: str) -> Any:
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


def _register_models(
    client: MlflowClient,
    settings: Settings,
    plan: Plan,
    compare: Json,
    tags: dict[str, str],
    inputs: Json,
    run: RunInfo,
) -> None:
    name = model_name(plan.service)
    there = _registered(settings.tracking_uri, plan.service, tags["fingerprint"])
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name)
    for role in ("challenger", "winner") if compare["promote"] else ("challenger",):
        if role not in there:
            logged = _logged_model(client, settings, plan, role, run.run_id, run.experiment_id)
            own = version_tags(plan, role, compare["challenger"], inputs, there.get("challenger"))
            own["model_sha256"] = sha256_tree(settings.month(plan.service, plan.month).models / role)
            source = f"models:/{logged.model_id}"
            made = client.create_model_version(name, source, run.run_id, tags | own, model_id=logged.model_id)
            there[role] = int(made.version)


def _month_run(client: MlflowClient, tracking_uri: str, plan: Plan, fingerprint: str) -> Run:
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
    with _reaching(uri), locked(_lock(uri, plan.service)):
        client = _client(uri)
        run = _month_run(client, uri, plan, fingerprint)
        if run.info.status != "FINISHED":
            inputs = describe_inputs(settings, plan.service, sorted({*plan.window, *plan.refit_window, plan.month}))
            tags = run_tags(settings, plan, inputs, fingerprint)
            with mlflow.start_run(run.info.run_id):
                mlflow.set_tags(tags | {f"data.{month}": one["raw_sha256"] for month, one in inputs.items()})
                _log_month(settings, plan, params, steps, inputs, run.info.start_time)
                if "05-compare" in steps:
                    _register_models(client, settings, plan, steps["05-compare"], tags, inputs, run.info)
        _move_aliases(client, uri, plan.service)
        return _registered(uri, plan.service, fingerprint)


def _move_aliases(client: MlflowClient, tracking_uri: str, service: str) -> None:
    there = versions(tracking_uri, service)
    tried = newest_version([one for one in there if one.tags["role"] == "challenger"])
    for alias, one in {"champion": pick_champion(there), "challenger": tried}.items():
        if one:
            client.set_registered_model_alias(model_name(service), alias, str(one.number))


def find_version(tracking_uri: str, wanted: str, service: str | None = None) -> Version:
    """Return the version that SERVICE/NUMBER, SERVICE/champion or NUMBER names; UsageError lists what there is."""
    service, _, number = (wanted if "/" in wanted else f"{service}/{wanted}").partition("/")
    return pick_version(versions(tracking_uri, parse_service(service)), service, number)


def lineage(tracking_uri: str, wanted: str, service: str | None = None, settings: Settings | None = None) -> Json:
    """Go from a version back to raw bytes, code, run and reports; with ``settings``, say which bytes are on hand."""
    found = find_version(tracking_uri, wanted, service)
    with _reaching(tracking_uri):
        pages = _client(tracking_uri).list_artifacts(found.run_id, "reports")
    return trace_version(found, [page.path for page in pages], settings)
