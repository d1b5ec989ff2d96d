"""Runtime of a process that runs flows: Prefect's home, quiet telemetry, no orphans of the dead, before Prefect is imported."""

import getpass
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

from taxi.addresses import check_server, why_unreachable
from taxi.config import TELEMETRY_OFF, Settings, expand_home, load_settings
from taxi.errors import TaxiError
from taxi.files import locked, remove
from taxi.processes import PARENT_MARK, end_orphans, mark_of

if TYPE_CHECKING:
    from prefect.server.api.server import SubprocessASGIServer

    from taxi.params import Params

_LOG = logging.getLogger(__name__)
PREFECT_READY = "taxi-database-ready"  # beside a database of Prefect that is complete


def provide_user() -> None:
    """Give a process without a home folder, or whose user the system does not know, both: Prefect, MLflow and Jupyter ask for them.

    The home is then ``home`` among the data; it is made when something is kept there.
    """
    try:
        getpass.getuser()
    except (KeyError, OSError):
        os.environ["LOGNAME"] = f"uid-{os.getuid()}"
    try:
        home = Path.home()
    except RuntimeError:
        home = Path("/")
    if home == Path("/") or not (home.is_dir() or _can_be_made(home)):  # one that cannot be written still holds keys
        os.environ["HOME"] = str(load_settings().data / "home")
        _LOG.info("there is no home folder that can be used; %s is", os.environ["HOME"])


def _can_be_made(folder: Path) -> bool:
    return os.access(next(path for path in folder.parents if path.exists()), os.W_OK)


def prepare_reading() -> None:
    """Set what Prefect and MLflow need quiet, and mark this process as the owner of what it starts."""
    defaults = {
        **TELEMETRY_OFF,
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
        "PREFECT_LOGGING_LEVEL": "WARNING",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
        # A server may be away for minutes; one of our own that does not answer has been ended with us.
        "PREFECT_CLIENT_MAX_RETRIES": "7" if os.environ.get("PREFECT_API_URL") else "2",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    os.environ[PARENT_MARK] = mark_of()


def is_prepared() -> bool:
    """Say whether this very process was prepared."""
    return os.environ.get(PARENT_MARK) == mark_of()


def is_workers() -> bool:
    """Say whether a Prefect worker started this process, to run one flow."""
    return "PREFECT__FLOW_RUN_ID" in os.environ


def prepare_process(settings: Settings) -> None:
    """Set the environment that children inherit, and clear away what killed runs left: processes and staged files."""
    from taxi.operations.leftovers import clear_sockets, clear_staging

    prepare_reading()
    end_orphans(settings.data)
    hand_on(settings)
    clear_staging(settings)
    clear_sockets(settings)


def hand_on(settings: Settings) -> None:
    """Set what kernels and other children read their settings from."""
    os.environ.update(
        TAXI_DATA=str(settings.data),
        TAXI_REPORTS=str(settings.reports),
        TAXI_SOURCE=settings.source,
        TAXI_ENGINE=settings.engine,
        TAXI_SCHEDULER=settings.scheduler or "",
        TAXI_ATTEMPT=settings.attempt or "",
        MLFLOW_TRACKING_URI=settings.tracking_uri,
    )
    stores = {"TAXI_PREDICTIONS": settings.predictions, "TAXI_METRICS": settings.metrics}
    os.environ.update({name: address for name, address in stores.items() if os.environ.get(name)})


@contextmanager
def attempting(settings: Settings, attempt: str) -> Iterator[Settings]:
    """Yield the settings of a retrain, which lies apart from the month's own run; notebooks meanwhile find it there."""
    apart = replace(settings, attempt=attempt)
    hand_on(apart)
    try:
        yield apart
    finally:
        hand_on(settings)


def prefect_home() -> Path:
    """Return Prefect's home folder (PREFECT_HOME, by default ~/.prefect)."""
    return expand_home(Path(os.environ.get("PREFECT_HOME") or "~/.prefect")).absolute()


def make_prefect_home() -> None:
    """Make Prefect's home folder, with those above it, before Prefect looks for it; children find it by its absolute place."""
    home = prefect_home()
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TaxiError(
            f"cannot make Prefect's home {home}: {error.strerror}; set PREFECT_HOME to a folder that can be written"
        ) from error
    os.environ["PREFECT_HOME"] = str(home)


def _prepare_prefect() -> None:
    """Create Prefect's database once, one process at a time: a fresh one fails under many."""
    home = prefect_home()
    stamp = home / PREFECT_READY
    if stamp.exists() and (home / "prefect.db").exists():
        return
    with locked(home / "taxi-database.lock"):
        if stamp.exists() and (home / "prefect.db").exists():
            return
        command = [sys.executable, "-m", "prefect", "server", "database", "upgrade", "--yes"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"Prefect could not create its database in {home}:\n{done.stdout}{done.stderr}")
        stamp.touch()


def why_server_is_away(settings: Settings) -> str | None:
    """Return why the Prefect server that is set does not answer, in seconds; None if it does, or none is set."""
    if settings.prefect is None:
        return None
    return why_unreachable(settings.prefect, "/health", any_answer=True)


def deliver_waiting(settings: Settings) -> None:
    """Send the alarms that wait for Prefect's server, if any do; Prefect is imported only then."""
    from taxi.monitoring.alarm_book import waits_for_server

    if waits_for_server(settings):
        import_module("pipelines.alarms").deliver_events(settings)


def start_prefect(settings: Settings) -> Callable[[], None]:
    """Start Prefect's embedded server, where no server is set; call what is returned, which waits for it, before the first flow."""
    if settings.prefect:
        return lambda: None
    from prefect.server.api.server import SubprocessASGIServer

    _prepare_prefect()
    started: Future[None] = Future()
    Thread(target=_start, args=(SubprocessASGIServer(), started), daemon=True).start()
    return started.result


def _start(server: "SubprocessASGIServer", started: "Future[None]") -> None:
    """Start the server; a failure is for who waits, and is none where the process ends and has taken the server with it."""
    try:
        server.start()
        started.set_result(None)
    except Exception as error:
        started.set_exception(error)


def load_checked(
    source: str | None = None, engine: str | None = None, scheduler: str | None = None
) -> tuple[Settings, "Params"]:
    """Return settings and parameters once they and the source are found to be right: before anything heavy is imported or started."""
    from taxi.data.source import open_source
    from taxi.params import load_params

    settings = load_settings(source, engine, scheduler)
    open_source(settings.source)
    return settings, load_params(settings.root / "params.yaml")


def begin_flow(settings: Settings, name: str) -> Callable[..., dict[str, Any]]:
    """Return the flow ``pipelines.<name>.<name>``; Prefect's server and the kernels' imports start meanwhile."""
    from taxi.runs.kernels import warm_up

    if settings.prefect:
        check_server(
            "Prefect server", settings.prefect, "PREFECT_API_URL to another, or unset it: the run then starts its own"
        )
    if name != "ingest":
        check_server("model registry", settings.tracking_uri, "MLFLOW_TRACKING_URI")
    if settings.scheduler:
        import_module("taxi.models.cluster").check_cluster(settings.scheduler, settings.data)
    prepare_process(settings)
    make_prefect_home()
    if name != "ingest":
        warm_up("pipelines.cli")
    wait_for_prefect, runs = start_prefect(settings), import_module("pipelines.flow_runs")
    if settings.prefect:  # it answers already: mark before the flow's imports, which take longer
        runs.mark_crashed()
    flow = getattr(import_module(f"pipelines.{name}"), name)
    wait_for_prefect()
    if not settings.prefect:
        runs.mark_crashed()
    return runs.tagged(flow)


def prepare_server(metrics: Path) -> None:
    """Set the environment that a server's processes inherit; they add up their ``metrics`` in that folder."""
    alone = {"OMP_NUM_THREADS": "1"}  # more threads of XGBoost's spin beside the requests while a version is examined
    for name, value in (TELEMETRY_OFF | alone).items():
        os.environ.setdefault(name, value)
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    remove(metrics)
    metrics.mkdir(parents=True)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(metrics)
