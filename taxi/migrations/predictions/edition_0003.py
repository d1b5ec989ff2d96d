"""Marks of erased trips, which whoever adds predictions reads, so that a row that waited elsewhere does not bring a trip back."""

import sqlalchemy as sql
from alembic import op

revision, down_revision = "0003", "0002"
WRITERS = """SELECT DISTINCT grantee FROM information_schema.role_table_grants WHERE table_schema = current_schema()
 AND table_name = 'predictions' AND privilege_type = 'INSERT' AND grantee <> current_user"""


def upgrade() -> None:
    """Make the table, and let those read it who may add predictions."""
    op.create_table(
        "erased",
        sql.Column("key", sql.Text, primary_key=True, comment="SHA-256 of <service>:trip:<trip_id>"),
        sql.Column("at", sql.DateTime, nullable=False, comment="UTC; rows of before do not come back"),
        if_not_exists=True,
    )
    bind = op.get_bind()
    for role in bind.scalars(sql.text(WRITERS)).all() if bind.dialect.name == "postgresql" else ():
        op.execute(f"GRANT SELECT ON erased TO {bind.dialect.identifier_preparer.quote(role)}")
