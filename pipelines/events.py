"""Alarms as Prefect events, so that automations of the server can act on them."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from prefect.events import emit_event

from taxi.config import Settings

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
