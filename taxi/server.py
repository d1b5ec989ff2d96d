"""One worker: a uvicorn server behind a socket that its siblings share, and an end that drops no request."""

import asyncio
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection

import uvicorn

from taxi.config import Settings
from taxi.connections import PatientConnection, end_silent
from taxi.gate import Gate
from taxi.serving import make_gate
from taxi.sockets import BACKLOG, make_no_more, waiting

LAST_SECONDS = 5.0
HALF_MADE_SECONDS = 0.25  # a connection whose client has its answer may be a round trip from being counted


class DrainingServer(uvicorn.Server):
    """On SIGTERM it goes on answering for a while and tells every connection to close; then it ends as uvicorn does.

    A connection that is merely cut may have a request under way that its client cannot safely repeat. Where only this worker
    ends, its siblings, or the one started in its place, take the connections that it no longer accepts.
    """

    def __init__(self, config: uvicorn.Config, gate: Gate, service: Connection) -> None:
        super().__init__(config)
        self._gate = gate
        self._service = service

    async def on_tick(self, counter: int) -> bool:
        """Once a second, give up on connections whose request does not come to its end."""
        if counter % 10 == 0:
            now = asyncio.get_running_loop().time()
            end_silent(self.server_state.connections, self._gate.rules.params.body_seconds, now)
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drain, then shut down."""
        rules = self._gate.rules
        rules.closing = True
        await self._wait(lambda: False, rules.params.drain_seconds)
        if self._service.poll():  # its other end is closed: the whole service ends, however
            for listening in sockets or []:
                make_no_more(listening)
            await self._wait(lambda: False, HALF_MADE_SECONDS)
            await self._wait(lambda: not any(map(waiting, sockets or [])), LAST_SECONDS)
        for server in self.servers:
            server.close()
        await self._wait(lambda: not self._unheard(), LAST_SECONDS)
        await super().shutdown(sockets)

    async def _wait(self, done: Callable[[], bool], seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self.force_exit:
            await asyncio.sleep(0.005)  # first: what was just accepted becomes a connection meanwhile
            if done():
                break

    def _unheard(self) -> bool:
        """Return whether a connection is so new that its request has not been read yet: uvicorn would cut it."""
        return any(getattr(one, "cycle", None) is None for one in self.server_state.connections)


def _config(gate: Gate) -> uvicorn.Config:
    return uvicorn.Config(
        gate,
        http=PatientConnection,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_graceful_shutdown=20,
    )


def run_worker(settings: Settings, service: str, listening: socket.socket, alive: Connection) -> None:
    """Serve until SIGTERM or SIGINT: the body of a worker's process; ``alive`` is closed at its other end when the service ends."""
    gate = make_gate(settings, service)
    with suppress(KeyboardInterrupt):
        DrainingServer(_config(gate), gate, alive).run(sockets=[listening])
