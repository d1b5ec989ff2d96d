"""Registered versions in MLflow: their bytes, aliases, releases, integrity, and the lineage back to raw bytes."""
