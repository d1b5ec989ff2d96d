"""Prediction store: tables of predictions, outcomes and erased trips, SQLite by default and PostgreSQL in production."""

import hashlib
import logging
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import sqlalchemy as sql
from sqlalchemy.engine import Connection, Engine

from taxi.config import SERVICES
from taxi.data.clock import elapsed_minutes
from taxi.database import INSERT, BadRows, Database, StoreDown, open_engine, reaching
from taxi.outputs import OUTPUTS
from taxi.predictions.spool import Entry, encode_rows, read_rows

# --- Rows of the prediction store as plain values: checked and cast before they are written, completed when they are read.

Json = dict[str, Any]
_LOG = logging.getLogger(__name__)
NEW_YORK = "America/New_York"


def as_utc(time: datetime | str) -> datetime:
    """Return a moment as a zoneless datetime in UTC; one without a zone is taken to be in UTC already."""
    moment = datetime.fromisoformat(time) if isinstance(time, str) else time
    return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment


def _wall_clock(time: datetime | str) -> datetime:
    moment = datetime.fromisoformat(time) if isinstance(time, str) else time
    if moment.tzinfo:
        raise ValueError(f"expected New York wall-clock time without a zone; got {moment.isoformat()}")
    return moment


def _number(value: Any) -> float | None:
    number = None if value is None else float(value)
    return None if number is None or math.isnan(number) else number


def _minutes(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"expected finite minutes; got {number}")
    return number


REQUIRED: dict[str, Callable[[Any], Any]] = {
    "prediction_id": str,
    "made_at": as_utc,
    "service": str,
    "pickup": _wall_clock,
    "PULocationID": int,
    "DOLocationID": int,
    "arm": str,
    "version": int,
    **dict.fromkeys(OUTPUTS, _minutes),
}


def _optional_utc(value: Any) -> datetime | None:
    return None if value is None else as_utc(value)


OPTIONAL: dict[str, Callable[[Any], Any]] = {
    "pickup_utc": _optional_utc,
    "trip_id": lambda value: None if value is None else str(value),
    **dict.fromkeys(("passenger_count", "trip_type", "vendor", "planned_distance_miles", "latency_ms"), _number),
    "shadow": bool,
    "fallback": bool,
}
OUTCOME = {"service", "trip_id", "prediction_id", "duration", "dropoff", "dropoff_utc", "source", "received_at", "key"}


def prediction_rows(rows: Sequence[Json]) -> list[Json]:
    """Return predictions with every column of the table; raise ValueError that names what is missing or unknown."""
    return [_prediction(row) for row in rows]


def _prediction(row: Json) -> Json:
    missing, unknown = REQUIRED.keys() - row.keys(), row.keys() - REQUIRED.keys() - OPTIONAL.keys()
    if missing or unknown:
        raise ValueError(f"expected a prediction; missing: {sorted(missing)}, unknown: {sorted(unknown)}")
    made = {name: cast(row[name]) for name, cast in REQUIRED.items()}
    return made | {name: cast(row.get(name)) for name, cast in OPTIONAL.items()}


def outcome_key(row: Json) -> str:
    """Return what an outcome is about: its service's trip where it names one, else its prediction; ValueError if neither.

    Two services may name different trips alike. A trip without its service is as an edition before this one wrote it.
    """
    if row.get("trip_id"):
        return f"{row['service']}:trip:{row['trip_id']}" if row.get("service") else f"trip:{row['trip_id']}"
    if row.get("prediction_id"):
        return f"prediction:{row['prediction_id']}"
    raise ValueError("expected an outcome with trip_id or prediction_id; it has neither")


def erased_key(service: str, trip: str) -> str:
    """Return the mark of an erased trip, which does not name it."""
    return hashlib.sha256(f"{service}:trip:{trip}".encode("utf-8", "surrogatepass")).hexdigest()


def _moment(row: Json) -> datetime:
    moment: datetime = row["made_at"] if "made_at" in row else row["received_at"]
    return moment


def _is_erased(row: Json, marks: Mapping[str, datetime]) -> bool:
    if not row.get("trip_id"):
        return False
    keys = [erased_key(service, row["trip_id"]) for service in ([row["service"]] if row["service"] else SERVICES)]
    return any(key in marks and _moment(row) <= marks[key] for key in keys)


def outcome_rows(rows: Sequence[Json]) -> list[Json]:
    """Return outcomes with every column of the table, one a key: of several the one received last."""
    checked = sorted((_outcome(row) for row in rows), key=lambda one: one["received_at"])
    return list({one["key"]: one for one in checked}.values())


def _outcome(row: Json) -> Json:
    if unknown := row.keys() - OUTCOME:
        raise ValueError(f"expected an outcome with {sorted(OUTCOME)}; got also {sorted(unknown)}")
    duration, dropoff = row.get("duration"), row.get("dropoff")
    if duration is None and dropoff is None:
        raise ValueError("expected an outcome with duration or dropoff; it has neither")
    return {
        "key": outcome_key(row),
        **{name: OPTIONAL["trip_id"](row.get(name)) for name in ("service", "trip_id", "prediction_id")},
        "duration": None if duration is None else _minutes(duration),
        "dropoff": None if dropoff is None else _wall_clock(dropoff),
        "dropoff_utc": _optional_utc(row.get("dropoff_utc")),
        "source": str(row.get("source", "http")),
        "received_at": as_utc(row.get("received_at") or datetime.now(UTC)),
    }


def _exact_minutes(trips: pd.DataFrame) -> pd.Series:
    """Return minutes from pickup to drop-off where each is known in UTC, or by a clock that shows it once; NaN elsewhere."""
    ends = []
    for name in ("pickup", "dropoff"):
        clock = trips[name].dt.tz_localize(NEW_YORK, ambiguous="NaT", nonexistent="NaT")
        ends.append(trips[f"{name}_utc"].fillna(clock.dt.tz_convert("UTC").dt.tz_localize(None)))
    return (ends[1] - ends[0]).dt.total_seconds() / 60


def with_durations(joined: pd.DataFrame) -> pd.DataFrame:
    """Return the predictions with ``duration`` (minutes) filled from pickup and drop-off where only those are known."""
    lacking, filled = joined["duration"].isna() & joined["dropoff"].notna(), joined["duration"].copy()
    exact = lacking & (joined["pickup_utc"].notna() | joined["dropoff_utc"].notna())
    filled.loc[exact] = _exact_minutes(joined[exact])
    lacking &= filled.isna()
    for year, part in joined[lacking].groupby(joined["pickup"].dt.year):
        filled.loc[part.index] = elapsed_minutes(part["pickup"], part["dropoff"], f"{year}-01")
    return joined.assign(duration=filled)


# --- The prediction store's tables.

PREPARING = 7_012_023  # the number of PostgreSQL's advisory lock under which the tables are made
ERASING = 7_012_027  # and of the one that writers share and an erasure has alone
TABLES = sql.MetaData()
PREDICTIONS = sql.Table(
    "predictions",
    TABLES,
    sql.Column("prediction_id", sql.Text, primary_key=True),
    sql.Column("made_at", sql.DateTime, nullable=False, comment="UTC"),
    sql.Column("service", sql.Text, nullable=False),
    sql.Column("trip_id", sql.Text, index=True),
    sql.Column("pickup", sql.DateTime, nullable=False, comment="New York wall-clock"),
    sql.Column("pickup_utc", sql.DateTime, comment="UTC, where it is known exactly"),
    sql.Column("PULocationID", sql.Integer, nullable=False),
    sql.Column("DOLocationID", sql.Integer, nullable=False),
    sql.Column("passenger_count", sql.Double),
    sql.Column("trip_type", sql.Double),
    sql.Column("vendor", sql.Double),
    sql.Column("planned_distance_miles", sql.Double),
    sql.Column("arm", sql.Text, nullable=False, comment="champion or challenger"),
    sql.Column("shadow", sql.Boolean, nullable=False, comment="computed beside the answer, never sent"),
    sql.Column("fallback", sql.Boolean, nullable=False, comment="the challenger failed and the champion answered"),
    sql.Column("version", sql.Integer, nullable=False),
    *(sql.Column(name, sql.Double, nullable=False, comment="minutes") for name in OUTPUTS),
    sql.Column("latency_ms", sql.Double),
    sql.Index("predictions_by_service", "service", "made_at"),
)
OUTCOMES = sql.Table(
    "outcomes",
    TABLES,
    sql.Column("key", sql.Text, primary_key=True, comment="<service>:trip:<trip_id> or prediction:<prediction_id>"),
    sql.Column("service", sql.Text, comment="empty: several had predicted the trip, and it is not known whose it was"),
    sql.Column("trip_id", sql.Text),
    sql.Column("prediction_id", sql.Text),
    sql.Column("duration", sql.Double, comment="minutes; without it, dropoff tells"),
    sql.Column("dropoff", sql.DateTime, comment="New York wall-clock"),
    sql.Column("dropoff_utc", sql.DateTime, comment="UTC, where it is known exactly"),
    sql.Column("source", sql.Text, nullable=False),
    sql.Column("received_at", sql.DateTime, nullable=False, comment="UTC"),
)
ERASED = sql.Table(
    "erased",
    TABLES,
    sql.Column("key", sql.Text, primary_key=True, comment="SHA-256 of <service>:trip:<trip_id>"),
    sql.Column("at", sql.DateTime, nullable=False, comment="UTC; rows of before do not come back"),
)
NOT_SAID = OUTCOMES.c.service.is_(None) & OUTCOMES.c.trip_id.is_not(None)
sql.Index("outcomes_without_service", OUTCOMES.c.trip_id, sqlite_where=NOT_SAID, postgresql_where=NOT_SAID)
WRITTEN = (
    "duration",
    "dropoff",
    "dropoff_utc",
    "source",
    "received_at",
)  # what a later outcome of the same trip replaces


__all__ = ["BadRows", "Carried", "Store", "StoreDown", "open_store"]

WHAT = "prediction store"


def _before(moment: datetime) -> list[tuple[sql.Table, Any, Any]]:
    """Return each table, its key, and the condition that a row is of before the moment."""
    made, received = PREDICTIONS.c.made_at, OUTCOMES.c.received_at
    return [
        (PREDICTIONS, PREDICTIONS.c.prediction_id, made < as_utc(moment)),
        (OUTCOMES, OUTCOMES.c.key, received < as_utc(moment)),
    ]


@dataclass(frozen=True)
class Carried:
    """What became of a segment: how many rows were written, and the lines that the store will never take, with reasons."""

    written: int
    aside: list[str]
    reasons: list[str]


class Store(Database):
    """The tables of predictions, outcomes and erased trips at one address."""

    what, tables, lock = WHAT, TABLES, PREPARING
    folder, edition = "predictions", "0003"

    def __init__(self, engine: Engine, make: bool = True) -> None:
        super().__init__(engine, make)
        self._insert = INSERT[engine.dialect.name]
        # ids of erased trips' predictions that waited in a spool: their outcomes follow them
        self._dropped = set[str]()

    def write_predictions(self, rows: Sequence[Json]) -> None:
        """Keep predictions (keys: the table's columns; made_at in UTC); those that are kept already change nothing.

        Raises StoreDown where the database does not answer, BadRows where a row is not one; then none was written.
        """
        self._write(self._insert(PREDICTIONS).on_conflict_do_nothing(), rows, prediction_rows)

    def write_outcomes(self, rows: Sequence[Json]) -> None:
        """Keep outcomes: trip_id or prediction_id, duration (minutes) or dropoff, source; in any order, repeated or not.

        Of two that differ about one trip the one received later counts. Raises as ``write_predictions``.
        """
        self._write(self._unless_older(self._insert(OUTCOMES)), rows, outcome_rows)
        if any(row.get("trip_id") and not row.get("service") for row in rows):
            with self._transaction() as connection:
                self._give_services(connection)

    def _unless_older(self, insert: Any) -> Any:
        new = insert.excluded
        differs = sql.or_(*(OUTCOMES.c[name].is_distinct_from(new[name]) for name in WRITTEN[:3]))
        later = (new.received_at >= OUTCOMES.c.received_at) & differs
        return insert.on_conflict_do_update(
            index_elements=["key"], set_={name: new[name] for name in WRITTEN}, where=later
        )

    def _prepare(self, connection: Connection) -> None:
        super()._prepare(connection)
        self._give_services(connection)

    def _give_services(self, connection: Connection) -> None:
        """Give outcomes of trips that an edition before this one kept without a service the one that had predicted the trip.

        Where several had, nobody knows whose it was: it stays, and counts for none.
        """
        of_trip = PREDICTIONS.c.trip_id == OUTCOMES.c.trip_id
        services = sql.select(sql.func.count(PREDICTIONS.c.service.distinct())).where(of_trip).scalar_subquery()
        service = sql.select(sql.func.min(PREDICTIONS.c.service)).where(of_trip).scalar_subquery()
        sure, kept = NOT_SAID & (services == 1), ("trip_id", "prediction_id", *WRITTEN)
        if not connection.scalar(sql.select(OUTCOMES.c.trip_id).where(NOT_SAID & (services > 0)).limit(1)):
            return
        key = service + sql.literal(":trip:") + OUTCOMES.c.trip_id
        given = sql.select(key, service, *(OUTCOMES.c[name] for name in kept)).where(sure)
        insert = self._insert(OUTCOMES).from_select(["key", "service", *kept], given)
        connection.execute(self._unless_older(insert))
        connection.execute(sql.delete(OUTCOMES).where(sure))
        unsure = connection.execute(sql.update(OUTCOMES).where(NOT_SAID & (services > 1)).values(service="")).rowcount
        if unsure:
            _LOG.warning("%d outcomes count for no service: several had predicted a trip of that id", unsure)

    def write_segment(self, segment: Path) -> Carried:
        """Keep the rows of a segment of the spool; those that cannot be are found by writing each alone. Raises StoreDown."""
        entries, unreadable = read_rows(segment)
        refused = self._write_entries(entries)
        aside, _ = encode_rows([entry for entry, _ in refused])
        return Carried(len(entries) - len(refused), unreadable + aside, [why for _, why in refused])

    def _write_entries(self, entries: Sequence[Entry]) -> list[tuple[Entry, str]]:
        try:
            self.write_predictions([row for table, row in entries if table == "predictions"])
            self.write_outcomes([row for table, row in entries if table == "outcomes"])
        except BadRows as error:
            if len(entries) == 1:
                return [(entries[0], str(error))]
            return [bad for entry in entries for bad in self._write_entries([entry])]
        return []

    def _write(self, statement: Any, rows: Sequence[Json], check: Callable[[Sequence[Json]], list[Json]]) -> None:
        if rows:
            with reaching(WHAT, self.address):
                checked = check(rows)
            with self._transaction() as connection:
                if kept := self._without_erased(connection, checked):
                    connection.execute(statement, kept)

    def _without_erased(self, connection: Connection, rows: Sequence[Json]) -> list[Json]:
        """Return the rows but those of trips that were erased after they were made; an erasure waits for this transaction."""
        if connection.dialect.name == "postgresql":
            # a lock of the table's would wait for a `pg_dump`, and all behind it
            connection.execute(sql.select(sql.func.pg_advisory_xact_lock_shared(ERASING)))
        elif not connection.connection.dbapi_connection.in_transaction:  # type: ignore[union-attr]
            connection.exec_driver_sql("BEGIN IMMEDIATE")  # else the marks would be read outside of it
        oldest = min(_moment(row) for row in rows)
        marks = {row.key: row.at for row in connection.execute(sql.select(ERASED).where(ERASED.c.at >= oldest))}
        if not marks and not self._dropped:
            return list(rows)
        kept = [row for row in rows if row["prediction_id"] not in self._dropped and not _is_erased(row, marks)]
        made = {row["prediction_id"] for row in rows if "made_at" in row}
        self._dropped |= made - {row["prediction_id"] for row in kept}
        if len(kept) < len(rows):
            _LOG.info("%d rows of erased trips were not written", len(rows) - len(kept))
        return kept

    def with_outcomes(self, service: str, since: datetime | None = None) -> pd.DataFrame:
        """Return all predictions made since then (UTC), with duration (minutes), dropoff, source and received_at of the outcome.

        These are empty where none came. An outcome of the prediction itself comes before one of its trip; a trip's counts for
        all its predictions.
        """
        own, trips = OUTCOMES.alias("own"), OUTCOMES.alias("trips")
        known = [sql.case((own.c.key.is_not(None), own.c[name]), else_=trips.c[name]).label(name) for name in WRITTEN]
        joined = PREDICTIONS.outerjoin(own, own.c.key == sql.literal("prediction:") + PREDICTIONS.c.prediction_id)
        key = PREDICTIONS.c.service + sql.literal(":trip:") + PREDICTIONS.c.trip_id
        joined = joined.outerjoin(trips, trips.c.key == key)
        wanted = sql.select(PREDICTIONS, *known).select_from(joined).where(PREDICTIONS.c.service == service)
        if since is not None:
            wanted = wanted.where(PREDICTIONS.c.made_at >= as_utc(since))
        return with_durations(self._read(wanted))

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

    def made(self, service: str, since: datetime) -> pd.DataFrame:
        """Return when (UTC), by which arm, in the shadow or not, and in how many ms each prediction since then was made."""
        known = (PREDICTIONS.c.service == service) & (PREDICTIONS.c.made_at >= as_utc(since))
        names = ("made_at", "prediction_id", "arm", "shadow", "latency_ms")
        return self._read(sql.select(*(PREDICTIONS.c[name] for name in names)).where(known))

    def of_trips(self, service: str, prefix: str) -> pd.DataFrame:
        """Return a service's predictions of the trips whose id begins with ``prefix``, with or without an outcome."""
        begins = PREDICTIONS.c.trip_id.startswith(prefix, autoescape=True)
        return self._read(sql.select(PREDICTIONS).where((PREDICTIONS.c.service == service) & begins))

    def find_prediction(self, prediction_id: str) -> Json | None:
        """Return one prediction's row, or None if there is none of that id."""
        with self._transaction() as connection:
            found = connection.execute(sql.select(PREDICTIONS).where(PREDICTIONS.c.prediction_id == prediction_id))
            return next((dict(row) for row in found.mappings()), None)

    def count_before(self, moment: datetime) -> dict[str, int]:
        """Return how many predictions were made, and outcomes received, before a moment."""
        with self._transaction() as connection:
            counted = {
                table.name: connection.scalar(sql.select(sql.func.count()).select_from(table).where(old))
                for table, _, old in _before(moment)
            }
        return {name: int(rows or 0) for name, rows in counted.items()}

    def delete_before(self, moment: datetime, batch: int = 10_000) -> None:
        """Remove what ``count_before`` counts, in batches: a service writes between them."""
        for table, key, old in _before(moment):
            removed = 1
            while removed:
                with self._transaction() as connection:
                    some = sql.select(key).where(old).limit(batch)
                    removed = connection.execute(sql.delete(table).where(key.in_(some))).rowcount

    def mark_erased(self, service: str, trip: str) -> None:
        """Keep that a trip is erased now: no row of it that was made before, wherever it waits, is written from here on."""
        mark = self._insert(ERASED).values(key=erased_key(service, trip), at=as_utc(datetime.now(UTC)))
        with self._transaction() as connection:
            if connection.dialect.name == "postgresql":  # so that it waits for whoever has read the marks of before
                connection.execute(sql.select(sql.func.pg_advisory_xact_lock(ERASING)))
            connection.execute(mark.on_conflict_do_update(index_elements=["key"], set_={"at": mark.excluded.at}))

    def trip_predictions(self, service: str, trip: str) -> list[str]:
        """Return the ids of a trip's predictions."""
        of_trip = (PREDICTIONS.c.service == service) & (PREDICTIONS.c.trip_id == trip)
        with self._transaction() as connection:
            return list(connection.scalars(sql.select(PREDICTIONS.c.prediction_id).where(of_trip)))

    def delete_trip(self, service: str, trip: str, ids: Collection[str]) -> dict[str, int]:
        """Remove a trip's predictions and outcomes, those of the predictions ``ids`` too; return how many of each went."""
        of_trip = (PREDICTIONS.c.service == service) & (PREDICTIONS.c.trip_id == trip)
        theirs = sql.or_(OUTCOMES.c.service.in_((service, "")), OUTCOMES.c.service.is_(None))
        told = ((OUTCOMES.c.trip_id == trip) & theirs) | OUTCOMES.c.key.in_([f"prediction:{one}" for one in ids])
        with self._transaction() as connection:
            return {
                table.name: connection.execute(sql.delete(table).where(wanted)).rowcount
                for table, wanted in ((PREDICTIONS, of_trip), (OUTCOMES, told))
            }

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


def open_store(address: str, make: bool = True) -> Store:
    """Return the store at ``sqlite:///file`` or ``postgresql+psycopg2://…`` without connecting yet; UsageError otherwise.

    Without ``make`` it is only read, and one that is not there is empty.
    """
    return Store(open_engine(address, WHAT, "TAXI_PREDICTIONS"), make)
