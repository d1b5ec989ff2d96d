"""The prediction store's two tables."""

import sqlalchemy as sql

PREPARING = 7_012_023  # the number of PostgreSQL's advisory lock under which the tables are made
TABLES = sql.MetaData()
PREDICTIONS = sql.Table(
    "predictions",
    TABLES,
    sql.Column("prediction_id", sql.Text, primary_key=True),
    sql.Column("made_at", sql.DateTime, nullable=False, comment="UTC"),
    sql.Column("service", sql.Text, nullable=False),
    sql.Column("trip_id", sql.Text, index=True),
    sql.Column("pickup", sql.DateTime, nullable=False, comment="New York wall-clock"),
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
    *(sql.Column(name, sql.Double, nullable=False, comment="minutes") for name in ("mean", "median", "p10", "p90")),
    sql.Column("latency_ms", sql.Double),
    sql.Index("predictions_by_service", "service", "made_at"),
)
OUTCOMES = sql.Table(
    "outcomes",
    TABLES,
    sql.Column("key", sql.Text, primary_key=True, comment="trip:<trip_id> or prediction:<prediction_id>"),
    sql.Column("trip_id", sql.Text),
    sql.Column("prediction_id", sql.Text),
    sql.Column("duration", sql.Double, comment="minutes; without it, dropoff tells"),
    sql.Column("dropoff", sql.DateTime, comment="New York wall-clock"),
    sql.Column("source", sql.Text, nullable=False),
    sql.Column("received_at", sql.DateTime, nullable=False, comment="UTC"),
)
