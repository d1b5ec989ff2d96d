"""Brings numbers together in the metrics store: from months' results and from the prediction log, as often as one likes."""

import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from taxi.config import SERVICES, Settings
from taxi.engines import StoreDown
from taxi.files import read_json
from taxi.live_metrics import HOUR, error_metrics, volume_metrics
from taxi.live_page import write_live_page
from taxi.metric_store import MetricStore, open_metrics
from taxi.month import read_results
from taxi.month_metrics import cost_metrics, month_metrics
from taxi.params import load_params
from taxi.predictions import open_store
from taxi.reachable import SQLITE

AGAIN = timedelta(hours=72)  # outcomes come later than predictions: so long an hour is looked at again
_LOG = logging.getLogger(__name__)


def collect_month(store: MetricStore, settings: Settings, result: dict[str, Any]) -> int:
    """Write one month's metrics and costs; return how many."""
    paths = settings.month(result["service"], result["month"])
    metrics = [*month_metrics(result), *cost_metrics(result, paths)]
    store.replace(metrics)
    return len(metrics)


def _log_is_there(address: str) -> bool:
    return urlsplit(address).scheme != "sqlite" or Path(address.removeprefix(SQLITE)).is_file()


def collect_live(store: MetricStore, settings: Settings, service: str, since: datetime | None = None) -> int:
    """Write the hours of the prediction log since then, or since 72 hours before the newest that is known; return how many metrics.

    An hour is always written whole, from the predictions of the whole hour.
    """
    if not _log_is_there(settings.predictions):
        return 0
    newest = store.newest("live", service)
    again = datetime.strptime(newest, HOUR).replace(tzinfo=UTC) - AGAIN if newest else datetime(2000, 1, 1, tzinfo=UTC)
    start = (since or again).replace(minute=0, second=0, microsecond=0)
    log = open_store(settings.predictions)
    try:
        made, known = log.made(service, start), log.with_outcomes(service, start)
    finally:
        log.close()
    clean = load_params(settings.root / "params.yaml").clean
    metrics = [*volume_metrics(made, service), *error_metrics(known, service, clean)]
    store.replace(metrics)
    return len(metrics)


def collect_all(
    settings: Settings, services: tuple[str, ...] = SERVICES, since: datetime | None = None
) -> dict[str, int]:
    """Write every month's metrics and the log's hours; return how many months and how many live metrics were written."""
    store = open_metrics(settings.metrics)
    try:
        results = [one for service in services for one in read_results(settings.reports, service).values()]
        for result in results:
            collect_month(store, settings, result)
        live = sum(collect_live(store, settings, service, since) for service in services)
    finally:
        store.close()
    return {"months": len(results), "live": live}


def keep_month(settings: Settings, service: str, month: str) -> str | None:
    """Write a month's metrics, and the page anew, at its end; a store that is down fails no month, it is said, and `taxi metrics collect` catches up.

    Returns why it was not written, or None.
    """
    result, store = read_json(settings.month(service, month).reports / "month.json"), open_metrics(settings.metrics)
    try:
        collect_month(store, settings, result)
        write_live_page(store, settings)
    except StoreDown as error:
        _LOG.warning("%s %s: its metrics wait for `taxi metrics collect`: %s", service, month, error)
        return str(error)
    finally:
        store.close()
    return None
