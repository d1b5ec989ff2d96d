"""Where messages go, through Apprise: each channel in a thread of its own with a time limit, its address never shown."""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from threading import Thread

import apprise

from taxi.alarm_book import Message

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
