"""Tables as they were before services were told apart; a database that no edition was written into has them or later ones."""

import sqlalchemy as sql
from alembic import op

revision, down_revision = "0001", None


def upgrade() -> None:
    """Make both tables, unless they are there."""
    op.create_table(
        "predictions",
        sql.Column("prediction_id", sql.Text, primary_key=True),
        sql.Column("made_at", sql.DateTime, nullable=False, comment="UTC"),
        sql.Column("service", sql.Text, nullable=False),
        sql.Column("trip_id", sql.Text),
        sql.Column("pickup", sql.DateTime, nullable=False, comment="New York wall-clock"),
        sql.Column("PULocationID", sql.Integer, nullable=False),
        sql.Column("DOLocationID", sql.Integer, nullable=False),
        *(
            sql.Column(name, sql.Double)
            for name in ("passenger_count", "trip_type", "vendor", "planned_distance_miles")
        ),
        sql.Column("arm", sql.Text, nullable=False, comment="champion or challenger"),
        sql.Column("shadow", sql.Boolean, nullable=False, comment="computed beside the answer, never sent"),
        sql.Column("fallback", sql.Boolean, nullable=False, comment="the challenger failed and the champion answered"),
        sql.Column("version", sql.Integer, nullable=False),
        *(sql.Column(name, sql.Double, nullable=False, comment="minutes") for name in ("mean", "median", "p10", "p90")),
        sql.Column("latency_ms", sql.Double),
        if_not_exists=True,
    )
    op.create_table(
        "outcomes",
        sql.Column("key", sql.Text, primary_key=True, comment="<service>:trip:<trip_id> or prediction:<prediction_id>"),
        sql.Column("trip_id", sql.Text),
        sql.Column("prediction_id", sql.Text),
        sql.Column("duration", sql.Double, comment="minutes; without it, dropoff tells"),
        sql.Column("dropoff", sql.DateTime, comment="New York wall-clock"),
        sql.Column("source", sql.Text, nullable=False),
        sql.Column("received_at", sql.DateTime, nullable=False, comment="UTC"),
        if_not_exists=True,
    )
