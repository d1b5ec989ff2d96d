"""A backfill's ingest, spread over a Dask cluster: months are fetched here, one after the other, and split by the workers meanwhile.

Splitting needs no other month. Judging a month looks at the months before it, so it stays where it is: in the month's own run.
"""

import logging
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.server.api.server import SubprocessASGIServer
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect_dask import DaskTaskRunner

from pipelines.ingest import fetch
from taxi.config import MonthPaths, Settings, load_settings
from taxi.errors import MonthRefused, NotPublished
from taxi.params import Params, load_params
from taxi.splitting import split_ahead

_LOG = logging.getLogger(__name__)


@task(name="split", task_run_name="split-{paths.service}-{paths.month}", cache_policy=NO_CACHE)
def split(paths: MonthPaths, params: Params) -> None:
    """Split one month, on a worker."""
    split_ahead(paths, params)


def _to_split(settings: Settings, service: str, month: str) -> bool:
    try:
        edition = fetch(settings, service, month)
    except (NotPublished, MonthRefused) as error:
        _LOG.info("%s %s is not split ahead, its own run will say more: %s", service, month, error)
        return False
    return edition in ("new", "republished") or not settings.month(service, month).trips.is_file()


@flow(name="spread", flow_run_name="spread-{service}")
def spread(service: str, months: list[str], source: str, engine: str, scheduler: str) -> int:
    """Fetch months, have those that are new split by the workers, and return how many those were."""
    settings = load_settings(source, engine, scheduler)
    params = load_params(settings.root / "params.yaml")
    begun = [
        split.submit(settings.month(service, month), params) for month in months if _to_split(settings, service, month)
    ]
    for one in begun:
        one.result()
    return len(begun)


def spread_ingest(settings: Settings, service: str, months: list[str]) -> int:
    """Run ``spread`` on the settings' cluster; its workers report to Prefect's server, the embedded one where none is set."""
    server = PREFECT_API_URL.value() or SubprocessASGIServer().api_url
    runner: Any = DaskTaskRunner(address=settings.scheduler)
    with temporary_settings(updates={PREFECT_API_URL: server}):
        return spread.with_options(task_runner=runner)(
            service, months, settings.source, settings.engine, str(settings.scheduler)
        )
