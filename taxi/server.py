"""One worker: a uvicorn server behind a socket that its siblings share, and an end that drops no request."""

import asyncio
import socket
import struct
import time
from contextlib import suppress

import uvicorn

from taxi.config import Settings
from taxi.connections import PatientConnection, end_silent
from taxi.errors import UsageError
from taxi.gate import Gate
from taxi.serving import make_gate

BACKLOG = 2048
TCP_INFO_UNACKED = 24  # struct tcp_info of linux/tcp.h: of a listening socket, connections that nobody has accepted yet


class DrainingServer(uvicorn.Server):
    """On SIGTERM it goes on answering for a while and tells every connection to close; then it ends as uvicorn does.

    A connection that is merely cut may have a request under way that its client cannot safely repeat.
    """

    def __init__(self, config: uvicorn.Config, gate: Gate) -> None:
        super().__init__(config)
        self._gate = gate

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
        until = time.monotonic() + rules.params.drain_seconds
        while time.monotonic() < until and not self.force_exit:
            await asyncio.sleep(0.05)
        await self._accept_the_last(until + 1)
        await super().shutdown(sockets)

    async def _accept_the_last(self, until: float) -> None:
        """Wait for a moment at which no connection waits to be accepted: closing the socket would reset those that do."""
        while time.monotonic() < until and any(
            waiting(one) for server in self.servers for one in server.sockets if one.family != socket.AF_UNIX
        ):
            await asyncio.sleep(0)


def waiting(listening: socket.socket) -> int:
    """Return how many connections nobody has accepted yet; 0 where the system (other than Linux) does not say."""
    if not hasattr(socket, "TCP_INFO"):
        return 0
    info = listening.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO_UNACKED + 4)
    return int(struct.unpack_from("I", info, TCP_INFO_UNACKED)[0])


def _config(gate: Gate) -> uvicorn.Config:
    return uvicorn.Config(
        gate,
        http=PatientConnection,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_graceful_shutdown=20,
    )


def listen(host: str, port: int) -> socket.socket:
    """Return a socket bound to ``host`` and ``port`` (0: any free one); raise UsageError if it cannot be had."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        made = socket.socket(family, kind, protocol)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
    except (OSError, OverflowError) as error:
        raise UsageError(f"expected a free address to listen on; {host}:{port} is not: {error}") from error
    made.set_inheritable(True)
    return made


def run_worker(settings: Settings, service: str, listening: socket.socket) -> None:
    """Serve until SIGTERM or SIGINT: the body of a worker's process."""
    gate = make_gate(settings, service)
    with suppress(KeyboardInterrupt):
        DrainingServer(_config(gate), gate).run(sockets=[listening])
