"""Connections that cannot be held open by silence, and whose malformed requests are answered in JSON too."""

from collections.abc import Iterable
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from taxi.replies import LATE, MALFORMED, Reply


class PatientConnection(HttpToolsProtocol):
    """Knows since when it has been waiting for a request to be complete, and can give up on it."""

    waiting_since: float | None = None

    def connection_made(self, transport: Any) -> None:
        """Wait for the first request from now on."""
        super().connection_made(transport)
        self.waiting_since = self.loop.time()

    def on_message_begin(self) -> None:
        """Wait for the rest of a request from now on."""
        super().on_message_begin()
        self.waiting_since = self.loop.time()

    def on_message_complete(self) -> None:
        """Wait no longer."""
        self.waiting_since = None
        super().on_message_complete()

    def give_up(self) -> None:
        """Tell the client that its request came too late, and close; a request that is being answered is left alone."""
        self._end(LATE)

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP with JSON, and close."""
        self._end(MALFORMED)

    def _end(self, reply: Reply) -> None:
        if self.transport.is_closing():
            return
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            head = [b"%s: %s\r\n" % pair for pair in reply.headers(closing=True)]
            self.transport.write(b"".join([STATUS_LINE[reply.status], *head, b"\r\n", reply.body]))
        self.transport.close()


def end_silent(connections: Iterable[Any], seconds: float, now: float) -> None:
    """Give up on every connection that has been waiting for longer than ``seconds`` at the loop's time ``now``."""
    for connection in list(connections):
        if connection.waiting_since is not None and now - connection.waiting_since > seconds:
            connection.give_up()
