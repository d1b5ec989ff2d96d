"""Database engines for SQLite and PostgreSQL: time limits, retries while busy, and errors that say which store it was."""

import logging
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any

import sqlalchemy as sql
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection, Engine, make_url
from sqlalchemy.exc import (
    ArgumentError,
    DataError,
    DBAPIError,
    IntegrityError,
    InternalError,
    NoSuchModuleError,
    NotSupportedError,
    OperationalError,
    ProgrammingError,
    SQLAlchemyError,
    StatementError,
)
from tenacity import retry, retry_if_exception, stop_after_delay, wait_random

from taxi.addresses import redact, shown, sqlite_file
from taxi.errors import NoAnswer, TaxiError, UsageError

_LOG = logging.getLogger(__name__)
INSERT: dict[str, Callable[..., Any]] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}
PATIENCE = {  # seconds, and milliseconds for the last: a silent server counts as down instead of holding a thread
    "connect_timeout": 3,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
BUSY_SECONDS = 5


class StoreDown(NoAnswer):
    """The database did not answer, or cannot do what it is asked; the rows were not written and may be written later."""


class BadRows(TaxiError):
    """The database answers and refuses these rows, as it always will."""


def is_answer(error: BaseException) -> bool:
    """Return whether a database answered, with an error about what it was asked: no such table or column, no permission."""
    return (
        isinstance(error, DataError | IntegrityError | InternalError | NotSupportedError | ProgrammingError)
        or _sqlite_code(error) == sqlite3.SQLITE_ERROR
    )


def _sqlite_code(error: BaseException) -> int:
    return int(getattr(getattr(error, "orig", error), "sqlite_errorcode", 0))


@contextmanager
def reaching(what: str, address: str) -> Iterator[None]:
    """Turn what a driver raises into StoreDown or BadRows about ``what`` (for example "prediction store") at ``address``, as it may be shown."""
    try:
        yield
    except (DataError, IntegrityError, OverflowError, ValueError, TypeError) as error:
        raise BadRows(f"the {what} at {address} refused the rows: {_in_short(error)}") from error
    except (DBAPIError, OSError) as error:
        came = "answered with an error" if is_answer(error) else "did not answer"
        raise StoreDown(f"the {what} at {address} {came}: {_in_short(error)}") from error
    except SQLAlchemyError as error:
        raise BadRows(f"the {what} at {address} refused the rows: {_in_short(error)}") from error


def _in_short(error: Exception) -> str:
    """Return the driver's own words, without the statement and its values."""
    said = str(error.orig if isinstance(error, StatementError) and error.orig else error)
    return redact(said.strip().partition("\n")[0])


def _is_busy(error: BaseException) -> bool:
    return _sqlite_code(error) & 0xFF == sqlite3.SQLITE_BUSY  # the low byte: the rest says why


@retry(
    retry=retry_if_exception(_is_busy),
    stop=stop_after_delay(BUSY_SECONDS),
    wait=wait_random(0.01, 0.05),
    reraise=True,
)
def _set_pragmas(connection: Any, record: Any) -> None:
    """Prepare a new connection; of those that first make a file's journal WAL at once, SQLite lets none but one wait."""
    for pragma in (f"busy_timeout={1000 * BUSY_SECONDS}", "journal_mode=WAL", "synchronous=NORMAL"):
        connection.execute(f"PRAGMA {pragma}")


def open_engine(address: str, what: str, variable: str) -> Engine:
    """Return an engine for ``sqlite:///file`` or ``postgresql+psycopg2://…`` without connecting yet; UsageError otherwise.

    ``variable`` is the environment's name for the address of the ``what``, for messages.
    """
    try:
        url = make_url(address)
        if url.get_backend_name() not in INSERT:
            raise UsageError(f"expected {' or '.join(INSERT)} as the {what}; got {url.drivername!r}")
        postgres = url.get_backend_name() == "postgresql"
        options = {"connect_args": PATIENCE, "executemany_mode": "values_plus_batch"} if postgres else {}
        engine = sql.create_engine(url, pool_recycle=3600, **options)
    except (ArgumentError, NoSuchModuleError) as error:
        raise UsageError(f"expected {variable} as sqlite:///file or postgresql+psycopg2://…") from error
    except ModuleNotFoundError as error:
        raise UsageError(f"{error.name} is not installed: pip install 'taxi[serve]' brings it") from error
    if not postgres:
        sql.event.listen(engine, "connect", _set_pragmas)
    return engine


# --- A store's tables: Alembic brings them to the newest edition when the store is opened; the edition is kept beside them.

MIGRATIONS = Path(__file__).parent / "migrations"
_MIGRATING = Lock()  # Alembic keeps what it is at in globals of its modules


class Database:
    """The tables of ``tables`` at one address, brought to ``edition`` when first needed: a database that is down now may be up later.

    ``what`` names it in messages, ``folder`` its migrations; ``lock`` is the number of PostgreSQL's advisory lock under which they
    run. Without ``make``, for those who only read, nothing is made: tables that are not there are read as empty.
    """

    what: str
    tables: sql.MetaData
    folder: str
    edition: str
    lock: int

    def __init__(self, engine: Engine, make: bool = True) -> None:
        self._engine, self._make = engine, make
        self._ready = False
        self._file = sqlite_file(str(engine.url))
        self.address = shown(engine.url.render_as_string(hide_password=False))

    @property
    def version_table(self) -> str:
        """The table that keeps the edition: two stores may share a database, with MLflow's ``alembic_version`` in it."""
        return f"alembic_version_{self.folder}"

    def upgrade(self) -> str:
        """Bring the tables to the newest edition now; return it."""
        with self._transaction():
            return self.edition

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        with reaching(self.what, self.address):
            try:
                engine = self._reached()
                with engine.begin() as connection:
                    if not self._ready:
                        self._prepare(connection)
                    yield connection
                self._ready = engine is self._engine
            except DBAPIError:
                self._ready = False  # the database may have been made anew
                raise

    def _prepare(self, connection: Connection) -> None:
        if connection.engine is not self._engine:  # in memory, for those who only read
            self.tables.create_all(connection)
            return
        if self._read_edition(connection) == self.edition:
            return
        if connection.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN IMMEDIATE")  # it would begin no transaction for this, and let two do so
        else:
            connection.execute(sql.select(sql.func.pg_advisory_xact_lock(self.lock)))
        if (edition := self._read_edition(connection)) != self.edition:  # nobody was faster
            self._migrate(connection, edition)

    def _read_edition(self, connection: Connection) -> str | None:
        """Return the edition of the tables; None where they are not there, or are older than editions. StoreDown if it is unknown."""
        there = sql.inspect(connection).get_table_names()
        if self.version_table not in there:
            return None
        edition = connection.scalar(sql.select(sql.column("version_num")).select_from(sql.table(self.version_table)))
        if edition and not (MIGRATIONS / self.folder / f"edition_{edition}.py").is_file():
            raise StoreDown(
                f"the {self.what} at {self.address} is newer than this taxi: expected tables of edition {self.edition} at most; "
                f"they are of {edition}: install the taxi that made them, or restore a backup from before"
            )
        whole = edition != self.edition or set(self.tables.tables) <= set(there)
        return edition if whole else None

    def _migrate(self, connection: Connection, edition: str | None) -> None:
        from alembic import command, config  # half a second, which an up-to-date store need not wait for

        settings = config.Config(attributes={"connection": connection, "version_table": self.version_table})
        settings.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
        settings.set_main_option("version_locations", str(MIGRATIONS / self.folder).replace("%", "%%"))
        settings.set_main_option("path_separator", "newline")
        try:
            with _MIGRATING:
                if edition is None and sql.inspect(connection).has_table(self.version_table):
                    connection.execute(sql.delete(sql.table(self.version_table)))  # its tables were dropped
                command.upgrade(settings, self.edition)
        except (OperationalError, ProgrammingError) as error:
            if not (is_answer(error) or _sqlite_code(error) == sqlite3.SQLITE_READONLY):
                raise
            had = f"those of edition {edition}" if edition else "none, or some of before editions"
            raise StoreDown(
                f"the {self.what} at {self.address} needs the tables of edition {self.edition}, has {had}, and did not let this "
                f"user change them: run `taxi database upgrade` as their owner: {_in_short(error)}"
            ) from error
        _LOG.info("the %s at %s has the tables of edition %s now", self.what, self.address, self.edition)

    def _reached(self) -> Engine:
        """Return the engine; for those who only read, one in memory where there is nothing to read yet."""
        if self._ready:
            return self._engine
        if self._make and self._file:
            self._file.parent.mkdir(parents=True, exist_ok=True)
        return self._engine if self._make or self._is_there() else sql.create_engine("sqlite://")

    def _is_there(self) -> bool:
        if self._file and not self._file.is_file():
            return False
        return bool(set(self.tables.tables) & set(sql.inspect(self._engine).get_table_names()))

    def close(self) -> None:
        """Give back the connections."""
        self._engine.dispose()
