"""Connections that cannot be held open by silence, and whose malformed requests are answered in JSON too."""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from taxi.replies import MALFORMED

FIRST_SECONDS = 10.0


class PatientConnection(HttpToolsProtocol):
    """Closes a connection that sends no complete headers within ten seconds of being made or of its last answer."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Start the clock."""
        super().connection_made(transport)
        self._start_clock()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        self._stop_clock()
        super().connection_lost(exc)

    def on_headers_complete(self) -> None:
        """Stop the clock: how long the body may take is the gate's affair."""
        self._stop_clock()
        super().on_headers_complete()

    def on_message_begin(self) -> None:
        """Start the clock for a further request on the same connection."""
        self._start_clock()
        super().on_message_begin()

    def _start_clock(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(FIRST_SECONDS, self.transport.close)

    def _stop_clock(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP with JSON, and close."""
        head = (b"content-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(MALFORMED),)
        self.transport.write(b"".join([STATUS_LINE[400], *head, MALFORMED]))
        self.transport.close()
