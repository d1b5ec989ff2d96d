"""What a process that runs flows needs before Prefect is imported: its home, quiet telemetry, no orphans of the dead."""

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Thread

from taxi.config import TELEMETRY_OFF, Settings
from taxi.files import locked, remove, remove_staging
from taxi.processes import PARENT_MARK, end_orphans, left_sockets, mark_of

_LOG = logging.getLogger(__name__)


def prepare_reading() -> None:
    """Set what Prefect and MLflow need quiet, and mark this process as the owner of what it starts."""
    defaults = {
        **TELEMETRY_OFF,
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
        "PREFECT_LOGGING_LEVEL": "WARNING",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    os.environ[PARENT_MARK] = mark_of()


def prepare_process(settings: Settings) -> None:
    """Set the environment that children inherit, and clear away what killed runs left: processes and staged files."""
    prepare_reading()
    end_orphans()
    hand_on(settings)
    for folder in (settings.data, settings.reports):
        for path in remove_staging(folder):
            _LOG.info("removed %s, left by a run that was killed", path)
    for path in left_sockets():
        remove(path)


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


@contextmanager
def attempting(settings: Settings, attempt: str) -> Iterator[Settings]:
    """Yield the settings of a retrain, which lies apart from the month's own run; notebooks meanwhile find it there."""
    apart = replace(settings, attempt=attempt)
    hand_on(apart)
    try:
        yield apart
    finally:
        hand_on(settings)


def has_server() -> bool:
    """Return whether a Prefect server is set (PREFECT_API_URL): without one there is nobody to tell events to."""
    return bool(os.environ.get("PREFECT_API_URL"))


def prefect_home() -> Path:
    """Return Prefect's home folder (PREFECT_HOME, by default ~/.prefect)."""
    return Path(os.environ.get("PREFECT_HOME") or Path.home() / ".prefect").expanduser()


def _prepare_prefect() -> None:
    """Create Prefect's database once, one process at a time: a fresh one fails under many."""
    home = prefect_home()
    stamp = home / "taxi-database-ready"
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


def start_prefect() -> Callable[[], None]:
    """Start Prefect's embedded server, where no server is set; call what is returned, which waits for it, before the first flow."""
    if has_server():
        return lambda: None
    from prefect.server.api.server import SubprocessASGIServer

    _prepare_prefect()
    starting = Thread(target=SubprocessASGIServer().start, daemon=True)
    starting.start()
    return starting.join


def prepare_server(metrics: Path | None) -> None:
    """Set the environment that a server's processes inherit; several workers add up their ``metrics`` in that folder."""
    for name, value in TELEMETRY_OFF.items():
        os.environ.setdefault(name, value)
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    if metrics:
        remove(metrics)
        metrics.mkdir(parents=True)
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(metrics)
