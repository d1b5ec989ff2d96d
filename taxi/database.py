"""Database engines for SQLite and PostgreSQL: time limits, retries while busy, and errors that say which store it was."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
    ProgrammingError,
    SQLAlchemyError,
    StatementError,
)
from sqlalchemy.schema import CreateIndex, CreateTable
from tenacity import retry, retry_if_exception, stop_after_delay, wait_random

from taxi.addresses import redact, shown, sqlite_file
from taxi.errors import NoAnswer, TaxiError, UsageError

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


class Database:
    """The tables of ``tables`` at one address, made when first needed: a database that is down now may be up later.

    ``what`` names it in messages; ``lock`` is as for ``make_all``. Without ``make``, for those who only read, nothing is made:
    tables that are not there are read as empty.
    """

    what: str
    tables: sql.MetaData
    lock: int

    def __init__(self, engine: Engine, make: bool = True) -> None:
        self._engine, self._make = engine, make
        self._ready = False
        self._file = sqlite_file(str(engine.url))
        self.address = shown(engine.url.render_as_string(hide_password=False))

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
        make_all(connection, self.tables, self.lock)

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
        return set(self.tables.tables) <= set(sql.inspect(self._engine).get_table_names())

    def close(self) -> None:
        """Give back the connections."""
        self._engine.dispose()


def _lacking_columns(connection: Connection, tables: sql.MetaData) -> list[sql.Column[Any]]:
    look = sql.inspect(connection)
    present = {table: {column["name"] for column in look.get_columns(table)} for table in tables.tables}
    return [column for table in tables.sorted_tables for column in table.c if column.name not in present[table.name]]


def make_all(connection: Connection, tables: sql.MetaData, lock: int) -> None:
    """Make the tables, columns and indexes that are not there; however many processes do so at once, each succeeds.

    A column that an edition before this one did not have must be one that may be empty.

    ``lock`` is the number of PostgreSQL's advisory lock under which it is done: CREATE … IF NOT EXISTS races with itself there.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(sql.select(sql.func.pg_advisory_xact_lock(lock)))
    for table in tables.sorted_tables:
        connection.execute(CreateTable(table, if_not_exists=True))
    if _lacking_columns(connection, tables):
        if connection.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN IMMEDIATE")  # it would begin no transaction for this, and let two do so
        for column in _lacking_columns(connection, tables):
            kind = column.type.compile(connection.dialect)
            connection.execute(sql.DDL(f'ALTER TABLE {column.table.name} ADD COLUMN "{column.name}" {kind}'))
    for table in tables.sorted_tables:
        for index in table.indexes:
            connection.execute(CreateIndex(index, if_not_exists=True))
