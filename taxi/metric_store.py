"""All numbers about months, live traffic and costs in one table: SQLite by default, PostgreSQL in production."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Literal

import pandas as pd
import sqlalchemy as sql

from taxi.engines import Database, open_engine

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


class MetricStore(Database):
    """The table of metrics at one address."""

    what, tables, lock = WHAT, TABLES, PREPARING

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

    def newest(self, kind: Kind, service: str) -> str | None:
        """Return the latest time that the store has of a kind; None if it has nothing."""
        own = (METRICS.c.kind == kind) & (METRICS.c.service == service)
        with self._transaction() as connection:
            return connection.scalar(sql.select(sql.func.max(METRICS.c.at)).where(own))


def open_metrics(address: str) -> MetricStore:
    """Return the store at ``sqlite:///file`` or ``postgresql+psycopg2://…`` without connecting yet; UsageError otherwise."""
    return MetricStore(open_engine(address, WHAT, "TAXI_METRICS"))
