"""Prefect flows and the ``taxi`` command: order, retries, schedules. The logic is in the package ``taxi``."""
