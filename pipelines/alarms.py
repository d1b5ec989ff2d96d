"""Flows and events of alarms: the check as the last step of a flow, the scheduled live check, and alarms as Prefect events."""

import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.events import emit_event

from pipelines.flow_runs import sign
from taxi.config import Settings, load_settings, parse_service
from taxi.monitoring.alarms import check_month, check_service, check_store
from taxi.params import load_params

# --- Alarms as Prefect events, so that automations of the server can act on them.

PREFIX = "taxi.alarm"
_LOG = logging.getLogger(__name__)


def resource_of(told: Mapping[str, Any]) -> dict[str, str]:
    """Return what an alarm is about, with the labels that automations match: rule, severity, month."""
    labels = {f"taxi.{name}": str(told[name]) for name in ("rule", "severity", "month", "part") if told[name]}
    return {"prefect.resource.id": f"taxi.service.{told['service']}", "prefect.resource.name": told["service"]} | labels


def emit_alarms(settings: Settings, told: Sequence[Mapping[str, Any]]) -> list[str]:
    """Send each message as ``taxi.alarm.raised``, ``.worse`` or ``.recovered``, its whole content as payload; returns their names.

    Where no server is set nothing is sent: the file and the channels have it. An event keeps the message's id, so that one
    that is sent twice counts once.
    """
    if settings.prefect is None:
        return []
    sent = []
    for one in told:
        name = f"{PREFIX}.{one['kind']}"
        emit_event(name, resource=resource_of(one), payload=dict(one), id=UUID(one["id"]))
        _LOG.info("event %s: %s %s", name, one["service"], one["rule"])
        sent.append(name)
    return sent


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


# --- The live check as a flow of its own, so that a server runs it on a schedule and its alarms become events.


@flow(name="watch", flow_run_name="watch-{service}", on_running=[sign])
def watch_live(service: str) -> dict[str, Any]:
    """Check live traffic by the prediction log; what is new is told once, and is an event."""
    settings = load_settings()
    params = load_params(settings.root / "params.yaml")
    came = check_store(settings, params, parse_service(service), datetime.now(UTC))
    emit_alarms(settings, came["told"])
    return came
