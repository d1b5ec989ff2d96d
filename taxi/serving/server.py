"""One worker: a uvicorn server behind a socket that its siblings share, and an end that drops no request."""

import asyncio
import ctypes
import socket
import struct
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

import uvicorn
from starlette.responses import Response
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from taxi.config import Settings
from taxi.errors import UsageError
from taxi.serving.app import make_gate
from taxi.serving.middleware import Gate
from taxi.serving.responses import CLOSE, LATE, MALFORMED, SAFE

# --- Connections that cannot be held open by silence, and whose malformed requests are answered in JSON too.


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

    def _end(self, reply: Response) -> None:
        if self.transport.is_closing():
            return
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            head = [b"%s: %s\r\n" % pair for pair in (*reply.raw_headers, *SAFE, *CLOSE)]
            self.transport.write(b"".join([STATUS_LINE[reply.status_code], *head, b"\r\n", reply.body]))
        self.transport.close()


def end_silent(connections: Iterable[Any], seconds: float, now: float) -> None:
    """Give up on every connection that has been waiting for longer than ``seconds`` at the loop's time ``now``."""
    for connection in list(connections):
        if connection.waiting_since is not None and now - connection.waiting_since > seconds:
            connection.give_up()


# --- The socket that workers share: had once, and given up so that no connection is made that nobody will serve.

BACKLOG = 2048
TCP_INFO_UNACKED = 24  # where struct tcp_info of linux/tcp.h says how many connections nobody has accepted yet
SO_ATTACH_FILTER = 26  # of linux/socket.h
SYN, SYN_OR_ACK, FLAGS = 0x02, 0x12, 13  # of a TCP header: what begins a connection, and the byte that says so
DROP_SYN = (  # struct sock_filter of linux/filter.h: what begins a connection is kept with 0 of its bytes, the rest whole
    (0x30, 0, 0, FLAGS),  # load a byte
    (0x54, 0, 0, SYN_OR_ACK),  # and
    (0x15, 0, 1, SYN),  # if equal the next, else the one after it
    (0x06, 0, 0, 0),
    (0x06, 0, 0, 0xFFFFFFFF),
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
    return made


def waiting(listening: socket.socket) -> int:
    """Return how many connections nobody has accepted yet; 0 where the system (other than Linux) does not say."""
    if not hasattr(socket, "TCP_INFO"):
        return 0
    info = listening.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO_UNACKED + 4)
    return int(struct.unpack_from("I", info, TCP_INFO_UNACKED)[0])


def make_no_more(listening: socket.socket) -> None:
    """Let no connection be made from now on, in every process that shares the socket; those that wait can be accepted.

    On Linux a filter drops what would begin one, and its client tries again until the socket is closed and it is refused;
    one that is half made goes on, its client may hold it for whole already. Elsewhere, connections made in the last moment
    are reset.
    """
    if hasattr(socket, "TCP_INFO"):
        program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in DROP_SYN))
        attached = struct.pack("HP", len(DROP_SYN), ctypes.addressof(program))
        with suppress(OSError):  # a kernel without filters: as elsewhere
            listening.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, attached)


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
