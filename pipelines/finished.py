"""Months that are finished already: what their publication lacks is made again, without a flow run, Prefect, MLflow or kernels."""

import logging
from datetime import UTC, datetime
from typing import Any

from pipelines.runtime import prepare_process
from taxi.config import Settings
from taxi.errors import TaxiError
from taxi.files import locked
from taxi.monitoring.alarms import check_month
from taxi.params import load_params
from taxi.reporting.live_page import keep_month
from taxi.reporting.pages import build_gallery
from taxi.runs.month_result import finished_month

_LOG = logging.getLogger(__name__)


def publish_files(settings: Settings, service: str, month: str, version: bool) -> str:
    """Keep the month's metrics, rebuild the gallery, take the DVC snapshot; safe to repeat. Returns the gallery's address."""
    from taxi.runs.dvc_snapshot import snapshot

    keep_month(settings, service, month)
    gallery = build_gallery(settings.reports)
    if version and (skipped := snapshot(settings.root, settings.data, settings.reports, service, month)):
        _LOG.warning("not versioned by DVC: %s", skipped)
    return gallery.as_uri()


def _watch(settings: Settings, service: str, month: str) -> dict[str, Any]:
    """Check the alarms as a flow's last step does; a check that fails is said, and fails no month."""
    try:
        params = load_params(settings.root / "params.yaml")
        came = check_month(settings, params, service, month, datetime.now(UTC))
    except (TaxiError, OSError, ValueError, KeyError) as error:
        _LOG.error("%s %s: the alarms were not checked: %s", service, month, error)
        return {"told": [], "channels": [], "failed": str(error)}
    if came["told"] and settings.prefect:
        from pipelines.alarms import emit_alarms

        emit_alarms(settings, came["told"])
    return {"told": came["told"], "channels": came["channels"], "failed": None}


def _publish_again(settings: Settings, service: str, month: str, version: bool) -> dict[str, Any] | None:
    with locked(settings.data / ".locks" / f"{service}-{month}.lock"):
        if (result := finished_month(settings, service, month)) is None:
            return None
        _LOG.info("%s %s is finished already; nothing to do", service, month)
        publish_files(settings, service, month, version)
    return result.as_json() | {"finished_before": True, "alarm_check": _watch(settings, service, month)}


def publish_finished(settings: Settings, service: str, months: list[str], version: bool) -> list[dict[str, Any]] | None:
    """Publish the months again, and return their results, if all are finished from what there is now; else None: a flow is due."""
    if not all(finished_month(settings, service, month) for month in months):
        return None
    prepare_process(settings)
    results = [_publish_again(settings, service, month, version) for month in months]
    return None if None in results else [result for result in results if result]
