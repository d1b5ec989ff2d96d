"""Backfill flow: many months of one service, oldest first, so that each is judged by a champion trained before it."""

from typing import Any

from prefect import flow

from pipelines.flow_runs import patient, sign
from pipelines.monthly import monthly
from taxi.months import iterate_months


@flow(name="backfill", flow_run_name="backfill-{service}-{first}-{last}", on_running=[sign])
@patient
def backfill(
    service: str,
    first: str,
    last: str,
    source: str | None = None,
    version: bool = True,
    engine: str | None = None,
    scheduler: str | None = None,
) -> dict[str, Any]:
    """Run every month from ``first`` to ``last``; a month that is refused or not published does not stop the others."""
    results = [monthly(service, month, source, version, engine, scheduler) for month in iterate_months(first, last)]
    return {"service": service, "months": results}
