"""Metric store, and its numbers in Prometheus' text format, beside what the service itself says at ``/metrics``."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Literal
from wsgiref.simple_server import WSGIServer

import pandas as pd
import sqlalchemy as sql
from prometheus_client import CollectorRegistry, generate_latest, start_http_server
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from taxi.config import SERVICES
from taxi.database import Database, open_engine
from taxi.months import shift_month

# --- All numbers about months, live traffic and costs in one table: SQLite by default, PostgreSQL in production.

WHAT = "metrics store"
PREPARING = 7_012_024  # the number of PostgreSQL's advisory lock under which the table is made
Kind = Literal["month", "live", "cost"]
TABLES = sql.MetaData()
METRICS = sql.Table(
    "metrics",
    TABLES,
    sql.Column("kind", sql.Text, primary_key=True, comment="month, live or cost"),
    sql.Column("service", sql.Text, primary_key=True),
    sql.Column("at", sql.Text, primary_key=True, comment="a month as 2023-03, or an hour as 2023-03-01T14 (UTC)"),
    sql.Column("name", sql.Text, primary_key=True),
    sql.Column(
        "part", sql.Text, primary_key=True, comment="model, arm, step, reason, alarm; empty where there is none"
    ),
    sql.Column("value", sql.Double),
    sql.Column("text", sql.Text, comment="what is no number: a status, a decision and its inputs as JSON"),
    sql.Column("written_at", sql.DateTime, nullable=False, comment="UTC"),
)


@dataclass(frozen=True)
class Metric:
    """One number (or text): of which service, when, what, and of which part."""

    kind: Kind
    service: str
    at: str
    name: str
    part: str = ""
    value: float | None = None
    text: str | None = None


def _live_before(hour: str) -> sql.ColumnElement[bool]:
    return (METRICS.c.kind == "live") & (METRICS.c["at"] < hour)


class MetricStore(Database):
    """The table of metrics at one address."""

    what, tables, lock = WHAT, TABLES, PREPARING
    folder, edition = "metrics", "0001"

    def replace(self, metrics: Sequence[Metric]) -> None:
        """Write metrics; those of the same kind, service and time are replaced as a whole, so that twice is once.

        Raises StoreDown where the database does not answer; then nothing was changed.
        """
        rows = [asdict(one) | {"written_at": datetime.now(UTC).replace(tzinfo=None)} for one in metrics]
        with self._transaction() as connection:
            for kind, service, at in sorted({(one.kind, one.service, one.at) for one in metrics}):
                same = (METRICS.c.kind == kind) & (METRICS.c.service == service) & (METRICS.c.at == at)
                connection.execute(sql.delete(METRICS).where(same))
            if rows:
                connection.execute(sql.insert(METRICS), rows)

    def read(self, kind: Kind, service: str | None = None, since: str = "") -> pd.DataFrame:
        """Return service, at, name, part, value and text of one kind, from ``since`` on, in order of time."""
        names = ("service", "at", "name", "part", "value", "text")
        wanted = sql.select(*(METRICS.c[name] for name in names)).where(METRICS.c.kind == kind, METRICS.c.at >= since)
        if service is not None:
            wanted = wanted.where(METRICS.c.service == service)
        with self._transaction() as connection:
            rows = connection.execute(wanted.order_by(*(METRICS.c[name] for name in names[:4]))).fetchall()
        return pd.DataFrame([tuple(row) for row in rows], columns=list(names)).astype({"value": "float64"})

    def count_live_before(self, hour: str) -> int:
        """Return how many live metrics are of before an hour (2023-03-01T14, UTC)."""
        with self._transaction() as connection:
            return int(
                connection.scalar(sql.select(sql.func.count()).select_from(METRICS).where(_live_before(hour))) or 0
            )

    def delete_live_before(self, hour: str) -> None:
        """Remove what ``count_live_before`` counts; months and costs stay."""
        with self._transaction() as connection:
            connection.execute(sql.delete(METRICS).where(_live_before(hour)))

    def newest(self, kind: Kind, service: str) -> str | None:
        """Return the latest time that the store has of a kind; None if it has nothing."""
        own = (METRICS.c.kind == kind) & (METRICS.c.service == service)
        with self._transaction() as connection:
            return connection.scalar(sql.select(sql.func.max(METRICS.c.at)).where(own))


def open_metrics(address: str, make: bool = True) -> MetricStore:
    """Return the store at ``sqlite:///file`` or ``postgresql+psycopg2://…`` without connecting yet; UsageError otherwise.

    Without ``make`` it is only read, and one that is not there is empty.
    """
    return MetricStore(open_engine(address, WHAT, "TAXI_METRICS"), make)


@dataclass(frozen=True)
class Series:
    """One exported series: its source in the store, what it is called and says, what its ``part`` means, and its unit's factor."""

    kind: Kind
    name: str
    exported: str
    says: str
    part: str = ""
    factor: float = 1.0


SERIES = (
    Series("month", "rows", "taxi_month_rows", "Rows of a month: raw, kept, quarantined.", "rows"),
    Series(
        "month",
        "rows_refused",
        "taxi_month_rows_refused",
        "Rows in quarantine by the rule that refused them.",
        "reason",
    ),
    Series("month", "rmse", "taxi_month_rmse_minutes", "RMSE on the month, which the model had not seen.", "model"),
    Series("month", "mae", "taxi_month_mae_minutes", "Mean absolute error on the month.", "model"),
    Series("month", "coverage80", "taxi_month_coverage80_ratio", "Share of trips inside the 80 % interval.", "model"),
    Series(
        "month", "version", "taxi_month_model_version", "Version of the model that was judged on the month.", "model"
    ),
    Series("month", "promoted", "taxi_month_promoted", "1 where the month's challenger was promoted."),
    Series("month", "trained", "taxi_month_trained", "1 where a challenger was trained."),
    Series("month", "alarms", "taxi_month_alarms", "Alarms of the month."),
    Series("month", "alarm", "taxi_month_alarm", "1 for each alarm of the month, by name.", "alarm"),
    Series("cost", "seconds", "taxi_month_seconds", "Seconds that a month's step took, in its last run.", "step"),
    Series("cost", "bytes", "taxi_month_bytes", "Bytes that a month holds on disk.", "what"),
    Series("live", "predictions", "taxi_live_predictions", "Predictions in the newest hour that had any.", "arm"),
    Series("live", "judged", "taxi_live_judged", "Those of them whose outcome is known.", "arm"),
    Series("live", "rmse", "taxi_live_rmse_minutes", "RMSE of the newest judged hour.", "arm"),
    Series("live", "mae", "taxi_live_mae_minutes", "Mean absolute error of the newest judged hour.", "arm"),
    Series(
        "live",
        "coverage80",
        "taxi_live_coverage80_ratio",
        "Share inside the 80 % interval in the newest judged hour.",
        "arm",
    ),
    Series(
        "live",
        "latency_p99_ms",
        "taxi_live_latency_p99_seconds",
        "99th percentile of latency in the newest hour.",
        "arm",
        0.001,
    ),
)
NEWEST = (
    "taxi_month_newest_end_timestamp_seconds",
    "When the newest month with a result ended, in seconds since 1970 (UTC).",
)


def _month_end(month: str) -> float:
    return float(pd.Timestamp(f"{shift_month(month, 1)}-01").timestamp())


def _latest(rows: pd.DataFrame) -> pd.DataFrame:
    """Return each service's and part's newest row: an hour without judged trips does not hide the one before."""
    return rows.drop_duplicates(["service", "part"], keep="last")


def _family(series: Series, rows: pd.DataFrame) -> GaugeMetricFamily:
    """Return a series' values: months by ``month``, of live metrics the newest hour only."""
    by_month = series.kind != "live"
    labels = ["service", *(["month"] if by_month else []), *([series.part] if series.part else [])]
    family = GaugeMetricFamily(series.exported, series.says, labels=labels)
    own = rows[(rows["name"] == series.name) & rows["value"].notna()]
    for row in (own if by_month else _latest(own)).to_dict("records"):
        values = [row["service"], *([row["at"]] if by_month else []), *([row["part"]] if series.part else [])]
        family.add_metric([str(value) for value in values], float(row["value"]) * series.factor)
    return family


class StoreCollector(Collector):
    """Reads the store at every scrape: whoever serves it need not be told of a new month."""

    def __init__(self, store: MetricStore) -> None:
        self._store = store

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Give every series, those without values too, so that a dashboard's names are always known."""
        kinds: tuple[Kind, ...] = ("month", "cost", "live")
        read = {kind: self._store.read(kind) for kind in kinds}
        newest = GaugeMetricFamily(*NEWEST, labels=["service"])
        for service in SERVICES:
            months = read["month"].loc[read["month"]["service"] == service, "at"]
            if len(months):
                newest.add_metric([service], _month_end(str(months.max())))
        yield newest
        for series in SERIES:
            yield _family(series, read[series.kind])


def pipeline_exposition(store: MetricStore) -> str:
    """Return the store's numbers as Prometheus scrapes them; raises StoreDown where the store does not answer."""
    registry = CollectorRegistry()
    registry.register(StoreCollector(store))
    return generate_latest(registry).decode()


def serve_metrics(store: MetricStore, host: str, port: int) -> tuple[int, WSGIServer]:
    """Serve them at ``/metrics`` from a thread; return the port, and the server, whose ``shutdown`` ends it."""
    registry = CollectorRegistry()
    registry.register(StoreCollector(store))
    server, _ = start_http_server(port, host, registry)
    return int(server.server_port), server
