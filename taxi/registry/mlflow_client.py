"""MLflow client: its address, its SQLite file made ready once, and an error where it does not answer."""

import logging
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from sqlite3 import Error as SQLiteError
from typing import Any
from urllib.parse import urlsplit

import mlflow
import sqlalchemy as sql
from mlflow.environment_variables import (
    MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR,
    MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR,
    MLFLOW_HTTP_REQUEST_MAX_RETRIES,
)
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.store.db.utils import _initialize_tables
from mlflow.tracking import MlflowClient
from sqlalchemy.exc import SQLAlchemyError

from taxi.addresses import SQLITE, redact, shown, sqlite_file, why_unreachable
from taxi.config import Settings
from taxi.database import is_answer, open_engine
from taxi.errors import NoAnswer, TaxiError, UsageError
from taxi.files import STAGING_MARK, locked, read_kept, remove, staged, write_json
from taxi.locks import Lock, hold, lock_place

# --- The registry's SQLite file: made once however many processes start, and found again after it was moved.

ARTIFACTS = "mlartifacts"
PLACES = {
    "experiments": "artifact_location",
    "runs": "artifact_uri",
    "logged_models": "artifact_location",
    "model_versions": "storage_location",
}
MOVES = [  # what began with the place :old begins with :new
    f"UPDATE {table} SET {column} = :new || substr({column}, length(:old) + 1) WHERE substr({column}, 1, length(:old)) = :old"
    for table, column in PLACES.items()
]


def beside(database: Path, what: str) -> Path:
    """Return the path of a lock or mark that belongs to the database."""
    return database.with_name(f".{database.name}.{what}")


def prepare_database(database: Path, edition: str, migrate: Callable[[Path], None]) -> None:
    """Make the file with ``migrate`` (or bring it to ``edition``), once, under a lock; a killed making leaves no file.

    A file that was moved or copied with its ``mlartifacts`` is told where they are now.
    """
    stamp, now = beside(database, "ready"), {"edition": edition, "folder": str(database.parent)}

    def stamped() -> Any:
        return read_kept(stamp) if database.is_file() else {}

    if stamped() == now:  # without a lock: the folder may be one that can only be read
        return
    with locked(beside(database, "lock")):
        if (before := stamped()) == now:
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
        here = "name LIKE 'taxi-%' AND artifact_location LIKE 'file:%'"  # what lies on S3 does not move with the file
        found = connection.execute(f"SELECT artifact_location FROM experiments WHERE {here}").fetchall()
        for old in {f"{place.rpartition(f'/{ARTIFACTS}/')[0]}/{ARTIFACTS}/" for (place,) in found} - {now}:
            for move in MOVES:
                connection.execute(move, {"old": old, "new": now})


Client = MlflowClient


class RegistryError(TaxiError):
    """The registry cannot do what it is asked, or what keeps its artifacts can't; nothing is known about champions."""


class RegistryUnreachable(RegistryError, NoAnswer):
    """The registry did not answer; nothing is known about champions."""


def database_file(tracking_uri: str) -> Path | None:
    """Return the registry's SQLite file; None if the registry is a server."""
    named = sqlite_file(tracking_uri)
    return named and named.absolute()


def artifact_root(settings: Settings, service: str) -> str | None:
    """Return where a new experiment's artifacts go: TAXI_ARTIFACTS, or beside the SQLite file, or among the data.

    None where an MLflow server decides. Without a place MLflow takes the working folder, where none is named by a database's address.
    """
    if settings.artifacts:
        return f"{settings.artifacts.rstrip('/')}/{service}"
    database = database_file(settings.tracking_uri)
    if not database and _scheme(settings.tracking_uri) != "postgresql":
        return None
    return ((database.parent if database else settings.data) / ARTIFACTS / service).as_uri()


def _be_quiet() -> None:
    """Leave out what MLflow says of each try, statement and file: an error says it once."""
    for name in ("mlflow", "urllib3.connectionpool"):
        logging.getLogger(name).setLevel(logging.ERROR)
    MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR.set(False)


def fetch_artifacts(place: str, folder: Path) -> None:
    """Copy all artifacts of an experiment into a new folder, wherever MLflow keeps them; none is made where there are none."""
    _be_quiet()
    repository = get_artifact_repository(place)
    if repository.list_artifacts():
        folder.mkdir(parents=True)
        repository.download_artifacts("", str(folder))


def store_artifacts(folder: Path, place: str) -> None:
    """Put what ``fetch_artifacts`` copied where an experiment's artifacts are to lie."""
    _be_quiet()
    get_artifact_repository(place).log_artifacts(str(folder))


# --- Failures: a registry that is away is told from one that answers with an error.

AWAY = ("TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED")
OF_FILES = (FileNotFoundError, FileExistsError, PermissionError, IsADirectoryError, NotADirectoryError)


def _failures() -> tuple[type[Exception], ...]:
    """Return what MLflow, its database and the store of its artifacts raise; imported where something was raised."""
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError

    return (MlflowException, SQLAlchemyError, SQLiteError, OSError, BotoCoreError, ClientError, Boto3Error)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error:
        yield error
        error = error.__cause__ or error.__context__


def _is_away(error: Exception) -> bool:
    from botocore.exceptions import ConnectionError as AwsUnreachable
    from botocore.exceptions import HTTPClientError

    causes = list(_causes(error))
    if any(is_answer(cause) or isinstance(cause, OF_FILES) for cause in causes):
        return False
    away = (OSError, SQLiteError, sql.exc.DBAPIError, AwsUnreachable, HTTPClientError)
    return getattr(error, "error_code", "") in AWAY or any(isinstance(cause, away) for cause in causes)


def _refusal(error: Exception) -> str | None:
    """Return what to do where a server refused its user (status 401) or forbids him what was asked (403)."""
    if isinstance(error, MlflowException):
        statuses = {error.get_http_status_code()}
    else:  # of a file, which MLflow's server passes on
        statuses = {getattr(getattr(cause, "response", None), "status_code", None) for cause in _causes(error)}
    if 401 in statuses:
        return "refused the user or his password: set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
    return "forbids this to the user that MLFLOW_TRACKING_USERNAME names" if 403 in statuses else None


@contextmanager
def reaching(tracking_uri: str) -> Iterator[None]:
    """Turn whatever says that the registry did not answer into RegistryUnreachable, and what it answers amiss into RegistryError."""
    try:
        yield
    except _failures() as error:
        said = redact(str(error).strip().partition("\n")[0])
        if _scheme(tracking_uri) in ("http", "https") and (refusal := _refusal(error)):
            raise RegistryError(f"the model registry at {shown(tracking_uri)} {refusal}") from error
        if _is_away(error):
            raise RegistryUnreachable(f"the model registry at {shown(tracking_uri)} did not answer: {said}") from error
        raise RegistryError(f"the model registry at {shown(tracking_uri)} answered with an error: {said}") from error


# --- A registry is asked whether it is there before MLflow asks, which goes on trying for minutes.

PREPARING = 7_012_025  # the number of PostgreSQL's advisory lock under which MLflow's tables are made
FRESH_SECONDS = 5.0
TABLE = "registered_models"
_answered: dict[str, float] = {}


def _scheme(tracking_uri: str) -> str:
    return urlsplit(tracking_uri).scheme.partition("+")[0]


def check_address(tracking_uri: str) -> None:
    """Raise UsageError unless the address is of a SQLite file, of PostgreSQL, or of an MLflow server."""
    if not database_file(tracking_uri) and _scheme(tracking_uri) not in ("postgresql", "http", "https"):
        raise UsageError(
            "expected MLFLOW_TRACKING_URI as sqlite:///file, postgresql+psycopg2://… or http(s)://…; "
            f"got {shown(tracking_uri)!r}"
        )


def _knock(tracking_uri: str) -> None:
    """Raise RegistryUnreachable within seconds if the registry is a server and does not answer."""
    check_address(tracking_uri)
    if database_file(tracking_uri) or time.monotonic() - _answered.get(tracking_uri, -FRESH_SECONDS) < FRESH_SECONDS:
        return
    if _scheme(tracking_uri) == "postgresql":
        with reaching(tracking_uri), _connected(tracking_uri):
            pass
    elif reason := why_unreachable(tracking_uri, "/health", any_answer=True):
        raise RegistryUnreachable(f"the model registry is not there: {reason}; start it, or set MLFLOW_TRACKING_URI")
    _answered[tracking_uri] = time.monotonic()


@contextmanager
def _connected(tracking_uri: str) -> Iterator[sql.Connection]:
    engine = open_engine(tracking_uri, "model registry", "MLFLOW_TRACKING_URI")
    try:
        with engine.begin() as connection:
            yield connection
    finally:
        engine.dispose()


def prepare(tracking_uri: str, make: bool = True) -> bool:
    """Make a registry's database ready, once: a fresh one fails when many processes create it at the same time.

    Returns whether there is one: without ``make``, for those who only read, one that is not there is not made.
    """
    check_address(tracking_uri)
    database = database_file(tracking_uri)
    if database and not make and not database.is_file():
        return False
    with reaching(tracking_uri):
        if database:
            prepare_database(database, mlflow.__version__, _migrate)
        elif _scheme(tracking_uri) == "postgresql":
            return _prepare_postgres(tracking_uri, make)
    return True


def _prepare_postgres(tracking_uri: str, make: bool) -> bool:
    with _connected(tracking_uri) as connection:
        if make:
            connection.execute(sql.select(sql.func.pg_advisory_xact_lock(PREPARING)))
        if there := sql.inspect(connection).has_table(TABLE):
            return there
        if make:
            _initialize_tables(connection.engine)
    return make


def _migrate(database: Path) -> None:
    engine = sql.create_engine(f"{SQLITE}{database}")
    _initialize_tables(engine)
    engine.dispose()


def connect(tracking_uri: str) -> Client:
    """Return MLflow's client for runs and registry at the same address, with few retries unless the environment says more.

    Raises RegistryUnreachable within seconds where it is a server that does not answer.
    """
    _be_quiet()
    for limit, value in ((MLFLOW_HTTP_REQUEST_MAX_RETRIES, 3), (MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR, 1)):
        if not limit.is_set():
            limit.set(value)
    _knock(tracking_uri)
    mlflow.set_tracking_uri(tracking_uri)
    mlflow.set_registry_uri(tracking_uri)
    return MlflowClient(tracking_uri, tracking_uri)


WRITES = ("copy_", "create_", "delete_", "log_", "set_", "update_")
MOVE_SECONDS = 600.0  # to wait for who changes the same service's versions or aliases


class _GuardedClient(MlflowClient):
    """MLflow's client of one who holds a lock: each call that writes asks first whether it is held still."""

    def __init__(self, tracking_uri: str, lock: Lock) -> None:
        self._lock = lock
        super().__init__(tracking_uri, tracking_uri)

    def __getattribute__(self, name: str) -> Any:
        if name.startswith(WRITES):
            super().__getattribute__("_lock").check()
        return super().__getattribute__(name)


@contextmanager
def changing(tracking_uri: str, service: str) -> Iterator[Client]:
    """Hold the lock on a service's versions and aliases, and give a client that writes only while it is held.

    Raises LockHeld where another process holds it too long, and LockLost at a write after it was lost.
    """
    with hold(lock_place(tracking_uri), service, MOVE_SECONDS) as lock:
        connect(tracking_uri)
        yield _GuardedClient(tracking_uri, lock)


def is_missing(error: MlflowException) -> bool:
    """Return whether MLflow answered that what was asked for is not there (an answer, so not a failure to answer)."""
    return error.error_code == "RESOURCE_DOES_NOT_EXIST"
