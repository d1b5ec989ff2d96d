"""MLflow client: its address, its SQLite file made ready once, and an error where it does not answer."""

import logging
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from sqlite3 import Error as SQLiteError

import mlflow
from mlflow.environment_variables import MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR, MLFLOW_HTTP_REQUEST_MAX_RETRIES
from mlflow.exceptions import MlflowException
from mlflow.store.db.utils import _initialize_tables
from mlflow.tracking import MlflowClient
from sqlalchemy import create_engine
from sqlalchemy.exc import SQLAlchemyError

from taxi.config import SQLITE, sqlite_file
from taxi.errors import NoAnswer
from taxi.files import STAGING_MARK, locked, read_kept, remove, staged, write_json

# --- The registry's SQLite file: made once however many processes start, and found again after it was moved.

ARTIFACTS = "mlartifacts"
PLACES = {
    "experiments": "artifact_location",
    "runs": "artifact_uri",
    "logged_models": "artifact_location",
    "model_versions": "storage_location",
}


def beside(database: Path, what: str) -> Path:
    """Return the path of a lock or mark that belongs to the database."""
    return database.with_name(f".{database.name}.{what}")


def prepare_database(database: Path, edition: str, migrate: Callable[[Path], None]) -> None:
    """Make the file with ``migrate`` (or bring it to ``edition``), once, under a lock; a killed making leaves no file.

    A file that was moved or copied with its ``mlartifacts`` is told where they are now.
    """
    stamp, now = beside(database, "ready"), {"edition": edition, "folder": str(database.parent)}
    with locked(beside(database, "lock")):
        before = read_kept(stamp) if database.is_file() else {}
        if before == now:
            return
        for leftover in database.parent.glob(f".{database.stem}{STAGING_MARK}*"):
            remove(leftover)
        if not database.is_file():
            with staged(database) as part:
                migrate(part)
        elif before.get("edition") != edition:
            migrate(database)
        move_places(database)
        write_json(stamp, now)


def move_places(database: Path) -> None:
    """Rewrite where artifacts lie, if the database's folder is another than when its experiments were made."""
    now = f"{database.parent.as_uri()}/{ARTIFACTS}/"
    with closing(sqlite3.connect(database)) as connection, connection:
        found = connection.execute("SELECT artifact_location FROM experiments WHERE name LIKE 'taxi-%'").fetchall()
        for old in {f"{place.rpartition(f'/{ARTIFACTS}/')[0]}/{ARTIFACTS}/" for (place,) in found} - {now}:
            for table, column in PLACES.items():
                moved = f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?"
                connection.execute(moved, (now, len(old) + 1, len(old), old))


Client = MlflowClient


class RegistryUnreachable(NoAnswer):
    """The registry did not answer; nothing is known about champions."""


def database_file(tracking_uri: str) -> Path | None:
    """Return the registry's SQLite file; None if the registry is a server."""
    named = sqlite_file(tracking_uri)
    return named and named.absolute()


def lock_file(tracking_uri: str, service: str) -> Path:
    """Return the file whose lock a process holds while it changes a service's versions or aliases."""
    database = database_file(tracking_uri)
    return beside(database, f"{service}.lock") if database else Path.home() / ".taxi" / f"{service}.lock"


@contextmanager
def reaching(tracking_uri: str) -> Iterator[None]:
    """Turn whatever says that the registry did not answer into RegistryUnreachable."""
    try:
        yield
    except (MlflowException, SQLAlchemyError, SQLiteError, OSError) as error:
        shown = tracking_uri.split("@")[-1]
        raise RegistryUnreachable(f"the model registry at {shown} did not answer: {error}") from error


def prepare(tracking_uri: str, make: bool = True) -> bool:
    """Make a SQLite registry ready, once: a fresh one fails when many processes create it at the same time.

    Returns whether there is one: without ``make``, for those who only read, a file that is not there is not made.
    """
    database = database_file(tracking_uri)
    if database and not make and not database.is_file():
        return False
    if database:
        with reaching(tracking_uri):
            prepare_database(database, mlflow.__version__, _migrate)
    return True


def _migrate(database: Path) -> None:
    engine = create_engine(f"{SQLITE}{database}")
    _initialize_tables(engine)
    engine.dispose()


def connect(tracking_uri: str) -> Client:
    """Return MLflow's client for runs and registry at the same address, with few retries unless the environment says more."""
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    if not MLFLOW_HTTP_REQUEST_MAX_RETRIES.is_set():
        MLFLOW_HTTP_REQUEST_MAX_RETRIES.set(3)
    MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR.set(False)
    mlflow.set_tracking_uri(tracking_uri)
    mlflow.set_registry_uri(tracking_uri)
    return MlflowClient(tracking_uri, tracking_uri)


def is_missing(error: MlflowException) -> bool:
    """Return whether MLflow answered that what was asked for is not there (an answer, so not a failure to answer)."""
    return error.error_code == "RESOURCE_DOES_NOT_EXIST"
