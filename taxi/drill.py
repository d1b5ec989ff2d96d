"""The fire drill: a marked test message through every channel, past the alarm book, so that it may be repeated at will."""

import socket
import uuid
from dataclasses import asdict
from datetime import datetime
from typing import Any

from taxi.alarm_book import Message
from taxi.channels import name_channels, send
from taxi.config import Settings, load_alarm_channels
from taxi.files import append_json
from taxi.params import Params


def make_drill(params: Params, at: datetime) -> Message:
    """Return the drill's message, which says of itself that nothing happened."""
    return Message(
        id=uuid.uuid4().hex,
        at=at.isoformat(timespec="seconds"),
        kind="drill",
        service="taxi",
        rule="drill",
        severity="info",
        month=None,
        part="",
        said=f"This is a fire drill from {socket.gethostname()}: nothing has happened, nothing is to be done.",
        numbers={},
        report=None,
        owner=params.alarms.owners.operations,
        act="Nothing. Where this did not arrive, mend the channel.",
        runbook=f"{params.alarms.runbook}#channel-dead",
    )


def fire_drill(settings: Settings, params: Params, at: datetime) -> list[dict[str, Any]]:
    """Send the drill to the local file and to every channel; return channel, delivered, seconds and fault of each."""
    message = make_drill(params, at)
    append_json(settings.alarm_log, [asdict(message)])
    channels = name_channels(load_alarm_channels(params.alarms.channels_env))
    came = send(channels, {one.name: [message] for one in channels}, params.alarms.channel_seconds)
    return [asdict(one) for one in came]
