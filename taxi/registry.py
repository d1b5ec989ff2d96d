"""Runs, models, versions and aliases in MLflow. "No champion yet" is None; a registry that does not answer is an error."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import infer_signature
from mlflow.store.db.utils import _initialize_tables
from mlflow.tracking import MlflowClient
from sqlalchemy import create_engine
from sqlalchemy.exc import SQLAlchemyError

from taxi.config import NOTEBOOKS, Params, Settings, parse_service
from taxi.errors import TaxiError, UsageError
from taxi.files import locked, remove, sha256_tree, staged
from taxi.model import load_model
from taxi.plan import Plan
from taxi.provenance import describe_code, describe_inputs, flatten_params
from taxi.schema import AT_PICKUP
from taxi.training import judging_trips

_LOG = logging.getLogger(__name__)
_SQLITE = "sqlite:///"
LOADER = "taxi.pyfunc"
REQUIREMENTS = ("holidays", "numpy", "pandas", "pyarrow", "scikit-learn", "xgboost-cpu")


class RegistryUnreachable(TaxiError):
    """The registry did not answer; nothing is known about champions."""


@dataclass(frozen=True)
class Version:
    """One registered version of a service's model."""

    service: str
    number: int
    trained_from: str
    trained_to: str
    promoted_in: str | None
    metrics: dict[str, float]
    tags: dict[str, str]
    run_id: str | None


def model_name(service: str) -> str:
    """Return the registered model's name."""
    return f"taxi-{service}"


def _database(tracking_uri: str) -> Path | None:
    return Path(tracking_uri.removeprefix(_SQLITE)) if tracking_uri.startswith(_SQLITE) else None


def _artifacts(tracking_uri: str, service: str) -> str | None:
    database = _database(tracking_uri)
    return (database.resolve().parent / "mlartifacts" / service).as_uri() if database else None


def prepare(tracking_uri: str) -> None:
    """Create the SQLite database once, under a lock: fresh ones fail when many processes create them at once."""
    database = _database(tracking_uri)
    if database is None or _ready(database):
        return
    with locked(database.with_name(f".{database.name}.lock")):
        if _ready(database):
            return
        database.parent.mkdir(parents=True, exist_ok=True)
        with _reaching(tracking_uri):
            engine = create_engine(tracking_uri)
            _initialize_tables(engine)
            engine.dispose()
            _stamp(database).touch()


def _stamp(database: Path) -> Path:
    return database.with_name(f".{database.name}.{mlflow.__version__}.ready")


def _ready(database: Path) -> bool:
    return database.is_file() and _stamp(database).is_file()


@contextmanager
def _reaching(tracking_uri: str) -> Iterator[None]:
    try:
        yield
    except (MlflowException, SQLAlchemyError, OSError) as error:
        shown = tracking_uri.split("@")[-1]
        raise RegistryUnreachable(f"the model registry at {shown} did not answer: {error}") from error


def _client(tracking_uri: str) -> MlflowClient:
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
    mlflow.set_tracking_uri(tracking_uri)
    return MlflowClient(tracking_uri)


def _version(one: ModelVersion, service: str) -> Version:
    metrics = {name.removeprefix("metric."): float(value) for name, value in one.tags.items() if name.startswith("metric.")}
    return Version(
        service,
        int(one.version),
        one.tags["trained_from"],
        one.tags["trained_to"],
        one.tags.get("promoted_in"),
        metrics,
        dict(one.tags),
        one.run_id,
    )


def versions(tracking_uri: str, service: str) -> list[Version]:
    """Return the service's complete versions, oldest first; raise RegistryUnreachable if the registry does not answer."""
    prepare(tracking_uri)
    with _reaching(tracking_uri):
        found = _client(tracking_uri).search_model_versions(f"name = '{model_name(service)}'", max_results=10_000)
    return sorted((_version(one, service) for one in found if "complete" in one.tags), key=lambda one: one.number)


def champion_before(tracking_uri: str, service: str, month: str) -> Version | None:
    """Return the newest promoted version whose training ends before ``month``; None if the registry has none."""
    promoted = [one for one in versions(tracking_uri, service) if one.promoted_in and one.trained_to < month]
    return max(promoted, key=lambda one: (one.trained_to, one.number), default=None)


def champion_now(tracking_uri: str, service: str) -> Version | None:
    """Return the version that the alias ``champion`` names; None if the registry has none."""
    return champion_before(tracking_uri, service, "9999-12")


def download_model(tracking_uri: str, wanted: Version, folder: Path) -> None:
    """Bring a version's files into ``folder``, whole; raise TaxiError if their bytes are not those that were registered."""
    if folder.is_dir() and sha256_tree(folder) == wanted.tags["model_sha256"]:
        return
    with staged(folder) as part, _reaching(tracking_uri):
        _client(tracking_uri)
        uri = f"models:/{model_name(wanted.service)}/{wanted.number}"
        got = Path(mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=f"{part}-all"))
        (got / "data" / "model").rename(part) if (got / "data" / "model").is_dir() else (got / "model").rename(part)
    remove(Path(f"{part}-all"))
    found, expected = sha256_tree(folder), wanted.tags["model_sha256"]
    if found != expected:
        raise TaxiError(f"expected {uri} with sha256 {expected}; what came has {found}")


def _experiment(client: MlflowClient, tracking_uri: str, service: str) -> str:
    name, database = model_name(service), _database(tracking_uri)
    with locked((database.parent if database else Path.home() / ".taxi") / f".{name}.experiment.lock"):
        found = client.get_experiment_by_name(name)
        return str(found.experiment_id if found else client.create_experiment(name, _artifacts(tracking_uri, service)))


def _registered(tracking_uri: str, service: str, fingerprint: str) -> dict[str, int]:
    return {
        one.tags["role"]: one.number
        for one in versions(tracking_uri, service)
        if one.tags["fingerprint"] == fingerprint
    }


def _forget_unfinished(client: MlflowClient, experiment: str, service: str, fingerprint: str) -> None:
    for one in client.search_model_versions(f"name = '{model_name(service)}'", max_results=10_000):
        if one.tags.get("fingerprint") == fingerprint and "complete" not in one.tags:
            client.delete_model_version(one.name, one.version)
    for run in client.search_runs([experiment], f"tags.fingerprint = '{fingerprint}'"):
        client.delete_run(run.info.run_id)


def _log_month(settings: Settings, plan: Plan, params: Params, steps: dict[str, Any], inputs: dict[str, Any]) -> None:
    paths, compare = settings.month(plan.service, plan.month), steps.get("05-compare", {})
    mlflow.log_params(flatten_params(params) | {"months": ",".join(plan.window) or plan.month})
    for who, scores in (("champion", steps["03-monitor"]["metrics"]), ("challenger", compare.get("challenger"))):
        mlflow.log_metrics({f"{who}_{name}": value for name, value in (scores or {}).items()})
    for month, one in inputs.items():
        source = str(settings.month(plan.service, month).trips)
        frame = pd.DataFrame({"sha256": [one["trips_sha256"]]})
        data = mlflow.data.from_pandas(frame, source=source, name=f"{plan.service}-{month}", digest=one["trips_sha256"][:36])
        context = "judging" if month == plan.month else "training"
        mlflow.log_input(data, context=context, tags={"sha256": one["trips_sha256"], "raw_sha256": one["raw_sha256"]})
    for page in sorted(page for name in NOTEBOOKS for page in paths.reports.glob(f"{name}.*")):
        mlflow.log_artifact(str(page), "reports")


def _register(settings: Settings, plan: Plan, role: str, tags: dict[str, str]) -> int:
    folder, name = settings.month(plan.service, plan.month).models / role, model_name(plan.service)
    numbers = {column: "float64" for column in AT_PICKUP[1:]}
    example = judging_trips(settings, plan)[AT_PICKUP].head(5).astype(numbers)
    logged = mlflow.pyfunc.log_model(
        name=role,
        loader_module=LOADER,
        data_path=str(folder),
        input_example=example,
        signature=infer_signature(example, load_model(folder).predict(example)),
        pip_requirements=[f"{package}=={version(package)}" for package in REQUIREMENTS],
    )
    made = mlflow.register_model(logged.model_uri, name, tags=tags | {"role": role, "model_sha256": sha256_tree(folder)})
    return int(made.version)


def record_month(
    settings: Settings, plan: Plan, params: Params, steps: dict[str, Any], fingerprint: str
) -> dict[str, int]:
    """Keep the month's run and its models, and move the aliases; returns version numbers by role (challenger, winner).

    Safe to repeat: what is there whole, by ``fingerprint``, is taken as it is; what a killed run left is done again.
    """
    prepare(settings.tracking_uri)
    with _reaching(settings.tracking_uri), locked(settings.data / ".locks" / f"{plan.service}-registry.lock"):
        client = _client(settings.tracking_uri)
        experiment = _experiment(client, settings.tracking_uri, plan.service)
        whole = client.search_runs([experiment], f"tags.fingerprint = '{fingerprint}' and tags.complete = 'yes'")
        if not whole:
            _record(client, experiment, settings, plan, params, steps, fingerprint)
        found = _registered(settings.tracking_uri, plan.service, fingerprint)
        _move_aliases(client, settings.tracking_uri, plan.service, found)
    return found


def _record(
    client: MlflowClient, experiment: str, settings: Settings, plan: Plan, params: Params, steps: dict[str, Any],
    fingerprint: str,
) -> None:
    _forget_unfinished(client, experiment, plan.service, fingerprint)
    compare = steps.get("05-compare")
    inputs = describe_inputs(settings, plan.service, sorted({*plan.window, *plan.refit_window, plan.month}))
    tags = describe_code(settings.root) | {"service": plan.service, "month": plan.month, "fingerprint": fingerprint}
    with mlflow.start_run(experiment_id=experiment, run_name=f"{plan.service} {plan.month}", tags=tags):
        _log_month(settings, plan, params, steps, inputs)
        roles = {"challenger": plan.window or [plan.month]} if compare else {}
        if compare and compare["promote"]:
            roles["winner"] = plan.refit_window
        made = {}
        for role, months in roles.items():
            metrics = {f"metric.{name}": str(value) for name, value in compare["challenger"].items()}
            own = {"trained_from": months[0], "trained_to": months[-1], "months": ",".join(months)}
            data = {f"data.{month}": inputs[month]["raw_sha256"] for month in months}
            more = {"promoted_in": plan.month} if role == "winner" else {}
            made[role] = _register(settings, plan, role, tags | metrics | own | data | more)
        for number in made.values():
            client.set_model_version_tag(model_name(plan.service), str(number), "complete", "yes")
        mlflow.set_tag("complete", "yes")


def _move_aliases(client: MlflowClient, tracking_uri: str, service: str, made: dict[str, int]) -> None:
    name = model_name(service)
    if "challenger" in made:
        client.set_registered_model_alias(name, "challenger", str(made["challenger"]))
    champion = champion_now(tracking_uri, service)
    if champion:
        client.set_registered_model_alias(name, "champion", str(champion.number))


def find_version(tracking_uri: str, text: str) -> Version:
    """Return the version that ``SERVICE/NUMBER`` or ``SERVICE/champion`` names; raise UsageError that lists what there is."""
    service, _, wanted = text.partition("/")
    there = versions(tracking_uri, parse_service(service))
    if wanted == "champion":
        there = [one for one in (champion_now(tracking_uri, service),) if one]
        wanted = str(there[0].number) if there else wanted
    for one in there:
        if str(one.number) == wanted:
            return one
    known = ", ".join(f"{service}/{one.number}" for one in there) or "none yet"
    raise UsageError(f"expected a version as SERVICE/NUMBER; got {text!r}; of {service} there are: {known}")
