"""Ingest flow, step 1: fetch what was published, keep its bytes, split it into kept trips and quarantine."""

from pathlib import Path
from typing import Any

from prefect import flow, task

from pipelines.flow_runs import patient, sign
from taxi.config import Settings, load_settings
from taxi.data.acceptance import Acceptance, clean_month, read_acceptance, ready_split, refuse_unreadable, split_ahead
from taxi.data.fetch import ZONE_FILES, fetch_month, fetch_zones
from taxi.data.source import open_source
from taxi.errors import BadFile, MonthRefused
from taxi.files import as_json
from taxi.params import load_params
from taxi.reporting.pages import write_refusal
from taxi.runs.dvc_snapshot import keep_edition, why_not


@task(name="fetch", task_run_name="fetch-{service}-{month}", timeout_seconds=3600)
def fetch(settings: Settings, service: str, month: str) -> str:
    """Bring the published month and the zone files; return what came of it: new, same, republished, unchecked."""
    source, paths = open_source(settings.source), settings.month(service, month)

    def keep(raw: Path) -> None:
        if why_not(settings.root, settings.data, settings.reports) is None:
            keep_edition(settings.root, raw)

    try:
        outcome = fetch_month(source, service, month, paths, before_replace=keep).outcome
    except BadFile as error:
        write_refusal(paths, refuse_unreadable(paths, error))
        raise
    if outcome != "unchecked" or not all((settings.zones / name).is_file() for name in ZONE_FILES):
        fetch_zones(source, settings.zones)  # a source that did not answer is not asked again for what is here
    return outcome


@task(name="clean", task_run_name="clean-{service}-{month}", timeout_seconds=3600)
def clean(settings: Settings, service: str, month: str) -> Acceptance:
    """Split the month into kept trips and quarantine; raise MonthRefused, with its evidence page written."""
    params, paths = load_params(settings.root / "params.yaml"), settings.month(service, month)
    try:
        if settings.scheduler and ready_split(paths, params) is None:
            from taxi.models.cluster import run_on_a_worker

            run_on_a_worker(settings.scheduler, settings.data, split_ahead, paths, params)
        return clean_month(paths, params)
    except MonthRefused:
        write_refusal(paths, read_acceptance(paths))
        raise


@flow(name="ingest", flow_run_name="ingest-{service}-{month}", on_running=[sign])
@patient
def ingest(
    service: str, month: str, source: str | None = None, engine: str | None = None, scheduler: str | None = None
) -> dict[str, Any]:
    """Fetch one month and split it; returns the acceptance summary with ``edition``."""
    settings = load_settings(source, engine, scheduler)
    edition = fetch(settings, service, month)
    return as_json(clean(settings, service, month)) | {"edition": edition}
