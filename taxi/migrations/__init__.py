"""Schema migrations (Alembic) of this package's own tables: one folder a store, brought up by ``taxi.database`` when a store is opened."""
