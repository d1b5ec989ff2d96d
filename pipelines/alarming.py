"""The alarms' check as the last step of a flow: it fails no flow, and that it failed is said and becomes an alarm later."""

import logging
from datetime import UTC, datetime
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from pipelines.events import emit_alarms
from taxi.alarms import check_month, check_service
from taxi.config import Settings
from taxi.params import load_params

_LOG = logging.getLogger(__name__)


@task(name="alarms", task_run_name="alarms-{service}", cache_policy=NO_CACHE, timeout_seconds=300)
def check_alarms(settings: Settings, service: str, month: str | None) -> dict[str, Any]:
    """Hold a month's result, or without one what holds now, against the rules; tell what is new, once however often it is run."""
    params, now = load_params(settings.root / "params.yaml"), datetime.now(UTC)
    if month is None:
        came = check_service(settings, params, service, now)
    else:
        came = check_month(settings, params, service, month, now)
    emit_alarms(settings, came["told"])
    return came


def watch(settings: Settings, service: str, month: str | None) -> dict[str, Any]:
    """Check the alarms; return what was told, what came of the channels, and why the check failed (None: it did not)."""
    state = check_alarms(settings, service, month, return_state=True)
    if state.is_completed():
        came = state.result()
        return {"told": came["told"], "channels": came["channels"], "failed": None}
    _LOG.error("%s %s: the alarms were not checked: %s", service, month or "now", state.message)
    return {"told": [], "channels": [], "failed": state.message}
