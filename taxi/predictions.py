"""What was predicted and what became of it: the store, SQLite by default and PostgreSQL in production."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd
import sqlalchemy as sql
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection, Engine, make_url
from sqlalchemy.exc import (
    ArgumentError,
    DataError,
    DBAPIError,
    IntegrityError,
    NoSuchModuleError,
    SQLAlchemyError,
    StatementError,
)

from taxi.errors import TaxiError, UsageError
from taxi.prediction_rows import as_utc, outcome_rows, prediction_rows, with_durations
from taxi.prediction_tables import OUTCOMES, PREDICTIONS, make_tables

Json = dict[str, Any]
INSERT: dict[str, Callable[..., Any]] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}
PATIENCE = {  # seconds, and milliseconds for the last: a silent server counts as down instead of holding a thread
    "connect_timeout": 3,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}


class StoreDown(TaxiError):
    """The database did not answer; the rows were not written and may be written later."""


class BadRows(TaxiError):
    """The database answers and refuses these rows, as it always will."""


@contextmanager
def _reaching(shown: str) -> Iterator[None]:
    try:
        yield
    except (DataError, IntegrityError, OverflowError, ValueError, TypeError) as error:
        raise BadRows(f"the prediction store at {shown} refused the rows: {_in_short(error)}") from error
    except (DBAPIError, OSError) as error:
        raise StoreDown(f"the prediction store at {shown} did not answer: {_in_short(error)}") from error
    except SQLAlchemyError as error:
        raise BadRows(f"the prediction store at {shown} refused the rows: {_in_short(error)}") from error


def _in_short(error: Exception) -> str:
    """Return the driver's own words, without the statement and its values."""
    said = str(error.orig if isinstance(error, StatementError) and error.orig else error)
    return said.strip().partition("\n")[0]


def _set_pragmas(connection: Any, record: Any) -> None:
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "busy_timeout=5000"):
        connection.execute(f"PRAGMA {pragma}")


class Store:
    """The two tables at one address, made when first needed: a database that is down now may be up later."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._insert = INSERT[engine.dialect.name]
        self._ready = False
        self.address = engine.url.render_as_string(hide_password=True)

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        with _reaching(self.address):
            try:
                with self._engine.begin() as connection:
                    if not self._ready:
                        make_tables(connection)
                    yield connection
                self._ready = True
            except DBAPIError:
                self._ready = False  # the database may have been made anew
                raise

    def write_predictions(self, rows: Sequence[Json]) -> None:
        """Keep predictions (keys: the table's columns; made_at in UTC); those that are kept already change nothing.

        Raises StoreDown where the database does not answer, BadRows where a row is not one; then none was written.
        """
        self._write(self._insert(PREDICTIONS).on_conflict_do_nothing(), rows, prediction_rows)

    def write_outcomes(self, rows: Sequence[Json]) -> None:
        """Keep outcomes: trip_id or prediction_id, duration (minutes) or dropoff, source; in any order, repeated or not.

        Of two that differ about one trip the one received later counts. Raises as ``write_predictions``.
        """
        insert = self._insert(OUTCOMES)
        new = insert.excluded
        differs = sql.or_(*(OUTCOMES.c[name].is_distinct_from(new[name]) for name in ("duration", "dropoff")))
        later = (new.received_at >= OUTCOMES.c.received_at) & differs
        changed = {name: new[name] for name in ("duration", "dropoff", "source", "received_at")}
        self._write(insert.on_conflict_do_update(index_elements=["key"], set_=changed, where=later), rows, outcome_rows)

    def _write(self, statement: Any, rows: Sequence[Json], check: Callable[[Sequence[Json]], list[Json]]) -> None:
        if rows:
            with _reaching(self.address):
                checked = check(rows)
            with self._transaction() as connection:
                connection.execute(statement, checked)

    def with_outcomes(self, service: str, since: datetime | None = None) -> pd.DataFrame:
        """Return the predictions made since then (UTC) whose outcome is known, with duration (minutes), dropoff and source.

        An outcome of the prediction itself comes before one of its trip; a trip's counts for all its predictions.
        """
        own, trips = OUTCOMES.alias("own"), OUTCOMES.alias("trips")
        known = [
            sql.case((own.c.key.is_not(None), own.c[name]), else_=trips.c[name]).label(name)
            for name in ("duration", "dropoff", "source", "received_at")
        ]
        joined = PREDICTIONS.outerjoin(own, own.c.key == sql.literal("prediction:") + PREDICTIONS.c.prediction_id)
        joined = joined.outerjoin(trips, trips.c.key == sql.literal("trip:") + PREDICTIONS.c.trip_id)
        wanted = sql.select(PREDICTIONS, *known).select_from(joined).where(PREDICTIONS.c.service == service)
        if since is not None:
            wanted = wanted.where(PREDICTIONS.c.made_at >= as_utc(since))
        return with_durations(self._read(wanted.where(sql.func.coalesce(own.c.key, trips.c.key).is_not(None))))

    def newest(self, service: str, since: datetime, most: int) -> pd.DataFrame:
        """Return arm, version and latency_ms of the newest ``most`` predictions made since then (UTC), in their order."""
        made = [PREDICTIONS.c[name] for name in ("prediction_id", "made_at", "arm", "version", "latency_ms")]
        known = (PREDICTIONS.c.service == service) & (PREDICTIONS.c.made_at >= as_utc(since))
        latest = sql.select(*made).where(known).order_by(PREDICTIONS.c.made_at.desc()).limit(most).subquery()
        return self._read(sql.select(latest), latest)

    def count_made(self, service: str, since: datetime, until: datetime) -> int:
        """Return how many predictions were answered from ``since`` until before ``until`` (UTC); shadows are not."""
        made = (PREDICTIONS.c.made_at >= as_utc(since)) & (PREDICTIONS.c.made_at < as_utc(until))
        known = (PREDICTIONS.c.service == service) & ~PREDICTIONS.c.shadow & made
        with self._transaction() as connection:
            return int(connection.scalar(sql.select(sql.func.count()).select_from(PREDICTIONS).where(known)) or 0)

    def of_trips(self, prefix: str) -> pd.DataFrame:
        """Return the predictions of the trips whose id begins with ``prefix``, with or without an outcome."""
        return self._read(sql.select(PREDICTIONS).where(PREDICTIONS.c.trip_id.startswith(prefix, autoescape=True)))

    def find_prediction(self, prediction_id: str) -> Json | None:
        """Return one prediction's row, or None if there is none of that id."""
        with self._transaction() as connection:
            found = connection.execute(sql.select(PREDICTIONS).where(PREDICTIONS.c.prediction_id == prediction_id))
            return next((dict(row) for row in found.mappings()), None)

    def count(self) -> dict[str, int]:
        """Return the number of rows in each table."""
        with self._transaction() as connection:
            tables = (PREDICTIONS, OUTCOMES)
            counted = {one.name: connection.scalar(sql.select(sql.func.count()).select_from(one)) for one in tables}
            return {name: int(rows or 0) for name, rows in counted.items()}

    def _read(self, wanted: Any, table: Any = PREDICTIONS) -> pd.DataFrame:
        with self._transaction() as connection:
            result = connection.execute(wanted.order_by(table.c.made_at, table.c.prediction_id))
            kinds = {column.name: column.type for column in wanted.selected_columns}
            frame = pd.DataFrame(result.fetchall(), columns=list(result.keys()))
        types = {sql.DateTime: "datetime64[us]", sql.Double: "float64", sql.Boolean: "bool"}
        return frame.astype({name: types[type(kind)] for name, kind in kinds.items() if type(kind) in types})

    def close(self) -> None:
        """Give back the connections."""
        self._engine.dispose()


def open_store(address: str) -> Store:
    """Return the store at ``sqlite:///file`` or ``postgresql+psycopg2://…`` without connecting yet; UsageError otherwise."""
    try:
        url = make_url(address)
        if url.get_backend_name() not in INSERT:
            raise UsageError(f"expected {' or '.join(INSERT)} as the prediction store; got {url.drivername!r}")
        postgres = url.get_backend_name() == "postgresql"
        options = {"connect_args": PATIENCE, "executemany_mode": "values_plus_batch"} if postgres else {}
        engine = sql.create_engine(url, pool_recycle=3600, **options)
    except (ArgumentError, NoSuchModuleError) as error:
        raise UsageError("expected TAXI_PREDICTIONS as sqlite:///file or postgresql+psycopg2://…") from error
    except ModuleNotFoundError as error:
        raise UsageError(f"{error.name} is not installed: pip install 'taxi[serve]' brings it") from error
    if not postgres:
        Path(url.database or "").parent.mkdir(parents=True, exist_ok=True)
        sql.event.listen(engine, "connect", _set_pragmas)
    return Store(engine)
