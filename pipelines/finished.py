"""Months that are finished already: what their publication lacks is made again, without a flow run, Prefect, MLflow or kernels."""

import logging
from contextlib import ExitStack
from typing import Any

from pipelines.runtime import deliver_waiting, prepare_process
from taxi.config import Settings
from taxi.files import locked
from taxi.monitoring.alarms import watch
from taxi.reporting.live_page import keep_month
from taxi.reporting.pages import build_gallery
from taxi.runs.month_result import MonthResult, finished_month

_LOG = logging.getLogger(__name__)


def publish_files(settings: Settings, service: str, month: str, version: bool) -> str:
    """Keep the month's metrics, rebuild the gallery, take the DVC snapshot; safe to repeat. Returns the gallery's address."""
    from taxi.runs.dvc_snapshot import snapshot

    keep_month(settings, service, month)
    gallery = build_gallery(settings.reports)
    if version and (skipped := snapshot(settings.root, settings.data, settings.reports, service, month)):
        _LOG.warning("not versioned by DVC: %s", skipped)
    return gallery.as_uri()


def _publish_again(settings: Settings, result: MonthResult, version: bool) -> dict[str, Any]:
    _LOG.info("%s %s is finished already; nothing to do", result.service, result.month)
    publish_files(settings, result.service, result.month, version)
    came = watch(settings, result.service, result.month)
    if came["failed"] is None:
        deliver_waiting(settings)
    return result.as_json() | {"finished_before": True, "alarm_check": came}


def publish_finished(settings: Settings, service: str, months: list[str], version: bool) -> list[dict[str, Any]] | None:
    """Publish the months again, and return their results, if all are finished from what there is now; else None: a flow is due."""
    with ExitStack() as locks:
        results = []
        for month in months:
            locks.enter_context(locked(settings.data / ".locks" / f"{service}-{month}.lock"))
            if (result := finished_month(settings, service, month)) is None:
                return None
            results.append(result)
        prepare_process(settings)
        return [_publish_again(settings, result, version) for result in results]
