"""Alarm channels, through Apprise: each in a thread of its own with a time limit, its address never shown."""

import logging
import socket
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from threading import Thread
from typing import Any

import apprise

from taxi.config import Settings, load_alarm_channels
from taxi.files import append_json
from taxi.monitoring.alarm_rules import Message
from taxi.params import Params

KINDS = {"error": apprise.NotifyType.FAILURE, "warning": apprise.NotifyType.WARNING, "info": apprise.NotifyType.INFO}
THREAD = "channel-"
logging.getLogger("apprise").setLevel(logging.CRITICAL + 1)  # its lines quote addresses, and these hold tokens
logging.getLogger("urllib3.connectionpool").addFilter(lambda record: not str(record.threadName).startswith(THREAD))


@dataclass(frozen=True)
class Channel:
    """One address; ``name`` may be shown: its number and kind, nothing else of it."""

    name: str
    address: str

    def __repr__(self) -> str:
        """Return the name alone."""
        return f"Channel({self.name})"


@dataclass(frozen=True)
class Delivery:
    """What came of sending to one channel: the ids of the messages it took, seconds, and why not all."""

    channel: str
    delivered: tuple[str, ...]
    seconds: float
    fault: str | None


def name_channels(addresses: Sequence[str]) -> list[Channel]:
    """Return the channels with names such as ``1-json`` (the address' scheme), which hold no secret."""
    schemes = [address.partition("://")[0] if "://" in address else "unreadable" for address in addresses]
    pairs = enumerate(zip(schemes, addresses, strict=True), 1)
    return [Channel(f"{number}-{scheme[:20]}", address) for number, (scheme, address) in pairs]


class _Sending:
    """One channel's messages on their way, in order; what has arrived can be read at any moment."""

    def __init__(self, channel: Channel, messages: Sequence[Message]) -> None:
        self._channel, self._messages, self._sender = channel, messages, apprise.Apprise()
        self._known = self._sender.add(channel.address)  # here, for the first one loads every plug-in
        self._began, self.delivered, self.fault = time.monotonic(), [], None  # type: tuple[float, list[str], str | None]
        self.seconds: float | None = None
        self.thread = Thread(target=self._run, name=THREAD + channel.name, daemon=True)

    def _run(self) -> None:
        try:
            self.fault = self._send()
        except Exception as error:  # a vendor's plug-in may fail in any way; its words may quote the address
            self.fault = f"failed with {type(error).__name__}"
        self.seconds = time.monotonic() - self._began

    def _send(self) -> str | None:
        if not self._known:
            return "the address is none that Apprise knows"
        for one in self._messages:
            if not self._sender.notify(title=one.title, body=one.body, notify_type=KINDS[one.severity]):
                return "did not take the message"
            self.delivered.append(one.id)
        return None

    def result(self, limit: float) -> Delivery:
        """Return what has come of it by now."""
        late = self.seconds is None
        fault = f"did not answer within {limit:g} s" if late else self.fault
        seconds = time.monotonic() - self._began if self.seconds is None else self.seconds
        return Delivery(self._channel.name, tuple(self.delivered), round(seconds, 3), fault)


def send(channels: Sequence[Channel], messages: Mapping[str, Sequence[Message]], limit: float) -> list[Delivery]:
    """Send each channel (by name) its messages, all channels at once; returns after ``limit`` seconds at the latest.

    A channel that hangs is left behind in a thread that ends with the process; should it still get through, it hears twice.
    """
    under_way = [_Sending(one, messages[one.name]) for one in channels if messages.get(one.name)]
    until = time.monotonic() + limit
    for one in under_way:
        one.thread.start()
    for one in under_way:
        one.thread.join(max(0.0, until - time.monotonic()))
    return [one.result(limit) for one in under_way]


# --- The fire drill: a marked test message through every channel, past the alarm book, so that it may be repeated at will.


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
