"""Flows and events of alarms: the check as the last step of a flow, the scheduled live check, and alarms as Prefect events."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import httpx
from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import SyncPrefectClient
from prefect.events import Event, Resource

from pipelines.flow_runs import patient, prefect_client, sign
from pipelines.runtime import why_server_is_away
from taxi.config import Settings, load_settings, parse_service
from taxi.errors import TaxiError
from taxi.monitoring.alarm_book import deliver, waits_for_server
from taxi.monitoring.alarms import check_store, not_checked
from taxi.monitoring.alarms import watch as check_and_tell
from taxi.params import load_params

# --- Alarms as Prefect events, so that automations of the server can act on them.

PREFIX = "taxi.alarm"
PAGE = 50  # the most that the server answers at once
_LOG = logging.getLogger(__name__)


def resource_of(told: Mapping[str, Any]) -> dict[str, str]:
    """Return what an alarm is about, with the labels that automations match: rule, severity, month."""
    labels = {f"taxi.{name}": str(told[name]) for name in ("rule", "severity", "month", "part") if told[name]}
    return {"prefect.resource.id": f"taxi.service.{told['service']}", "prefect.resource.name": told["service"]} | labels


def emit_alarms(settings: Settings, told: Sequence[Mapping[str, Any]]) -> list[str]:
    """Send each message as ``taxi.alarm.raised``, ``.worse`` or ``.recovered``, its whole content as payload; returns their names.

    Where no server is set nothing is sent: the file and the channels have it. An event keeps the message's id, and what the
    server has already is not sent again. Raises what Prefect's client raises where the server does not take them.
    """
    if settings.prefect is None or not told:
        return []
    events = [_event(one) for one in told]
    with prefect_client() as client:
        for first in range(0, len(events), PAGE):
            _send_new(client, events[first : first + PAGE])
    return [event.event for event in events]


def _event(told: Mapping[str, Any]) -> Event:
    """Return a message as an event of now: automations pass over one that comes late. Its payload says when it was raised."""
    resource = Resource(resource_of(told))
    return Event(event=f"{PREFIX}.{told['kind']}", resource=resource, payload=dict(told), id=UUID(told["id"]))


def _send_new(client: SyncPrefectClient, events: Sequence[Event]) -> None:
    wanted = {"filter": {"id": {"id": [str(event.id) for event in events]}}, "limit": PAGE}
    there = {event["id"] for event in client.request("POST", "/events/filter", json=wanted).json()["events"]}
    new = [event for event in events if str(event.id) not in there]
    client.request("POST", "/events", json=[event.model_dump(mode="json") for event in new])
    for event in new:
        _LOG.info("event %s: %s %s", event.event, event.payload["service"], event.payload["rule"])


def deliver_events(settings: Settings) -> None:
    """Send the messages that wait for Prefect's server, those of earlier checks too; where it is away they wait on."""
    if not waits_for_server(settings):
        return
    try:
        if reason := why_server_is_away(settings):
            raise TaxiError(reason)
        deliver(settings, lambda messages: emit_alarms(settings, [asdict(one) for one in messages]))
    # as RuntimeError Prefect's client tells that it cannot connect
    except (TaxiError, httpx.HTTPError, RuntimeError) as error:
        _LOG.warning("alarms wait for Prefect's server, the next check sends them: %s", error)


@task(name="alarms", task_run_name="alarms-{service}", cache_policy=NO_CACHE, timeout_seconds=300)
def check_alarms(settings: Settings, service: str, month: str | None) -> dict[str, Any]:
    """Hold a month's result, or without one what holds now, against the rules; tell what is new, once however often it is run."""
    came = check_and_tell(settings, service, month)
    deliver_events(settings)
    return came


def watch(settings: Settings, service: str, month: str | None) -> dict[str, Any]:
    """Check the alarms as a task of the flow; one that fails, fails no flow."""
    state = check_alarms(settings, service, month, return_state=True)
    return state.result() if state.is_completed() else not_checked(service, month, str(state.message))


# --- The live check as a flow of its own, so that a server runs it on a schedule and its alarms become events.


@flow(name="watch", flow_run_name="watch-{service}", on_running=[sign])
@patient
def watch_live(service: str) -> dict[str, Any]:
    """Check live traffic by the prediction log; what is new is told once, and is an event."""
    settings = load_settings()
    params = load_params(settings.root / "params.yaml")
    came = check_store(settings, params, parse_service(service), datetime.now(UTC))
    deliver_events(settings)
    return came
