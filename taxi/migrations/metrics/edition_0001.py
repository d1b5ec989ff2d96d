"""The table of metrics; a database that no edition was written into may have it."""

import sqlalchemy as sql
from alembic import op

revision, down_revision = "0001", None


def upgrade() -> None:
    """Make the table, unless it is there."""
    part = "model, arm, step, reason, alarm; empty where there is none"
    op.create_table(
        "metrics",
        sql.Column("kind", sql.Text, primary_key=True, comment="month, live or cost"),
        sql.Column("service", sql.Text, primary_key=True),
        sql.Column("at", sql.Text, primary_key=True, comment="a month as 2023-03, or an hour as 2023-03-01T14 (UTC)"),
        sql.Column("name", sql.Text, primary_key=True),
        sql.Column("part", sql.Text, primary_key=True, comment=part),
        sql.Column("value", sql.Double),
        sql.Column("text", sql.Text, comment="what is no number: a status, a decision and its inputs as JSON"),
        sql.Column("written_at", sql.DateTime, nullable=False, comment="UTC"),
        if_not_exists=True,
    )
