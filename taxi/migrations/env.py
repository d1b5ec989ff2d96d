"""Alembic's environment: it runs the migrations on the connection that it is given, inside the transaction that is open there."""

from alembic import context

given = context.config.attributes
context.configure(connection=given["connection"], version_table=given["version_table"])
with context.begin_transaction():
    context.run_migrations()
