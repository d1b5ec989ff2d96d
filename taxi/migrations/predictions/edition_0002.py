"""Services told apart, and exact moments in UTC; databases made by hand may have some of these columns already."""

import sqlalchemy as sql
from alembic import op

revision, down_revision = "0002", "0001"
COLUMNS = {
    "predictions": (sql.Column("pickup_utc", sql.DateTime, comment="UTC, where it is known exactly"),),
    "outcomes": (
        sql.Column(
            "service", sql.Text, comment="empty: several had predicted the trip, and it is not known whose it was"
        ),
        sql.Column("dropoff_utc", sql.DateTime, comment="UTC, where it is known exactly"),
    ),
}


def upgrade() -> None:
    """Add the columns and indexes that are not there; whose an outcome is, the store says at each opening."""
    present = sql.inspect(op.get_bind())
    for table, columns in COLUMNS.items():
        names = {column["name"] for column in present.get_columns(table)}
        for column in columns:
            if column.name not in names:
                op.add_column(table, column._copy())
    op.create_index("ix_predictions_trip_id", "predictions", ["trip_id"], if_not_exists=True)
    op.create_index("predictions_by_service", "predictions", ["service", "made_at"], if_not_exists=True)
    unsaid = sql.text("service IS NULL AND trip_id IS NOT NULL")
    op.create_index(
        "outcomes_without_service",
        "outcomes",
        ["trip_id"],
        if_not_exists=True,
        sqlite_where=unsaid,
        postgresql_where=unsaid,
    )
