"""Worker: a uvicorn server behind a socket that its siblings share, and an end that answers all that it accepted."""

import asyncio
import ctypes
import select
import socket
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import uvicorn
from starlette.responses import Response
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from taxi.config import Settings
from taxi.errors import UsageError
from taxi.serving.app import make_gate
from taxi.serving.middleware import Gate
from taxi.serving.responses import CLOSE, CUT_OFF, LARGE_HEAD, LATE, MALFORMED, SAFE

# --- Connections that can be held open neither by silence nor by endless headers, and whose malformed requests are answered in JSON too.

MOST_HEAD = 64 * 1024  # bytes of address and headers
LINGER_SECONDS = 1.0
SLICE = 4096  # bytes that are parsed before the size of a head is looked at again


class PatientConnection(HttpToolsProtocol):
    """Knows since when it has been waiting for a request to be complete and how large its head is, and can give up on it.

    ``last`` is what it will say when the requests before it are answered; nothing more is read then.
    """

    waiting_since: float | None = None
    last: Response | None = None
    in_head = False
    head_bytes = 0

    def connection_made(self, transport: Any) -> None:
        """Wait for the first request from now on."""
        super().connection_made(transport)
        self.waiting_since = self.loop.time()

    def data_received(self, data: bytes) -> None:
        """Parse what came, by slices: how long a head is shows before all of it is parsed."""
        for begin in range(0, len(data), SLICE):
            if self._has_ended():
                return
            piece = data[begin : begin + SLICE]
            super().data_received(piece)
            if self.in_head:
                self.head_bytes += len(piece)
                self._limit_head()
        if self.waiting_since is None and not self._is_answering():
            self.waiting_since = self.loop.time()  # empty lines before a request

    def eof_received(self) -> bool:  # type: ignore[override]
        """Answer a request that was cut off, and those before it, to a client that sends no more and may still read."""
        if self._is_unfinished():
            self._end(CUT_OFF)
        elif self._is_answering():
            self.cycle.keep_alive = False
        return self._is_answering() and not self.cycle.disconnected

    def on_message_begin(self) -> None:
        """Wait for the rest of a request from now on."""
        super().on_message_begin()
        self.waiting_since, self.in_head, self.head_bytes = self.loop.time(), True, 0

    def on_headers_complete(self) -> None:
        """Begin the request, unless its head is too large; an address with a host in it says which host is asked (RFC 9112, 3.2.2)."""
        self.in_head = False
        self.head_bytes = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        self._limit_head()
        if self._has_ended():
            return
        if self.url[:1] not in (b"/", b"*"):
            asked = self.url.partition(b"://")[2].partition(b"/")[0]
            self.headers[:] = [(b"host", asked), *(pair for pair in self.headers if pair[0] != b"host")]
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take a part of the body, where its request was taken."""
        if not self._has_ended():
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Wait no longer."""
        if not self._has_ended():
            self.waiting_since = None
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """Go on with the next request, or end with the last word."""
        others = len(self.pipeline)
        super().on_response_complete()
        if self.last and not others:
            self._say(self.last)

    def give_up(self) -> None:
        """Tell the client that its request came too late, and close; a request that is being answered is left alone."""
        self._end(LATE)

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP with JSON, and close."""
        self._end(MALFORMED)

    def _limit_head(self) -> None:
        if self.head_bytes > MOST_HEAD:
            self._end(LARGE_HEAD)

    def _has_ended(self) -> bool:
        return self.last is not None or self.transport.is_closing()

    def _is_answering(self) -> bool:
        """Return whether the newest request that was taken is not answered yet; those before it are answered first."""
        return self.cycle is not None and not self.cycle.response_complete

    def _is_unfinished(self) -> bool:
        """Return whether a request has begun and is not whole."""
        return self.in_head or self._lacks_body()

    def _lacks_body(self) -> bool:
        return not self.in_head and self._is_answering() and self.cycle.more_body

    def _end(self, reply: Response) -> None:
        """End with ``reply`` to the request that is not whole, once those before it are answered."""
        if self._has_ended():
            return
        self.waiting_since = None
        if self._lacks_body():
            self._drop_unfinished(reply)
        elif self._is_answering():
            self.last = reply
        else:
            self._say(reply)

    def _drop_unfinished(self, reply: Response) -> None:
        """Answer in the place of the application, which waits for a body that will not come, or has not been asked yet."""
        if self.pipeline:
            self.pipeline.popleft()
            self.last = reply
            return
        if self.cycle.response_started:
            self.transport.close()
        else:
            self._say(reply)
        self.cycle.disconnected = True
        self.cycle.message_event.set()

    def _say(self, reply: Response) -> None:
        """Send the last word; what still comes is dropped for a while: a socket closed on it would take the answer back."""
        if not self.transport.is_closing():
            self.last = reply
            head = [b"%s: %s\r\n" % pair for pair in (*reply.raw_headers, *SAFE, *CLOSE)]
            self.transport.write(b"".join([STATUS_LINE[reply.status_code], *head, b"\r\n", reply.body]))
            self.transport.write_eof()
            self.loop.call_later(LINGER_SECONDS, self.transport.close)


def end_silent(connections: Iterable[Any], seconds: float, now: float) -> None:
    """Give up on every connection that has been waiting for longer than ``seconds`` at the loop's time ``now``."""
    for connection in list(connections):
        if connection.waiting_since is not None and now - connection.waiting_since > seconds:
            connection.give_up()


# --- The socket that workers share, and the end of a worker.

BACKLOG = 2048
LAST_SECONDS = 5.0
BEAT_SECONDS = 0.5


def listen(host: str, port: int, descriptor: int | None = None) -> socket.socket:
    """Return a socket bound to ``host`` and ``port`` (0: any free one), or the one that a service manager holds and passed.

    Raises UsageError if it cannot be had.
    """
    try:
        if descriptor is not None:
            return socket.socket(fileno=descriptor)
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        made = socket.socket(family, kind, protocol)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
        made.listen(BACKLOG)  # now: until one listens, the system lets others bind the same address
    except (OSError, OverflowError) as error:
        place = f"{host}:{port}" if descriptor is None else f"descriptor {descriptor}"
        raise UsageError(f"expected a free address to listen on; {place} is not: {error}") from error
    return made


class DrainingServer(uvicorn.Server):
    """Graceful shutdown: on SIGTERM it goes on answering for ``drain_seconds`` with ``Connection: close``, then ends as uvicorn does.

    A connection that is merely cut may have a request under way that its client cannot safely repeat. Siblings, or a service
    manager that holds the socket, take the connections that this worker no longer accepts; without either, one that is made in
    the moment in which the last worker closes the socket is reset by the system, unread.
    """

    def __init__(self, config: uvicorn.Config, gate: Gate, pulse: ctypes.c_ulong) -> None:
        super().__init__(config)
        self._gate, self._pulse = gate, pulse

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start with a beating heart: a first load of a model may take its time."""
        self._heart = asyncio.create_task(self._beat())
        await super().startup(sockets)

    async def _beat(self) -> None:
        """Heartbeat: show the supervisor that the loop runs, and give up on connections whose request does not come to its end."""
        while True:
            self._pulse.value += 1
            now = asyncio.get_running_loop().time()
            end_silent(self.server_state.connections, self._gate.rules.params.body_seconds, now)
            await asyncio.sleep(BEAT_SECONDS)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drain, then shut down."""
        rules, listening = self._gate.rules, sockets or []
        rules.closing = True
        await self._wait(lambda: False, rules.params.drain_seconds)
        await self._wait(
            lambda: not select.select(listening, [], [], 0)[0], LAST_SECONDS
        )  # nobody waits to be accepted
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
        return any(getattr(connection, "cycle", None) is None for connection in self.server_state.connections)


def _config(gate: Gate, proxies: list[str]) -> uvicorn.Config:
    return uvicorn.Config(
        gate,
        http=PatientConnection,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=bool(proxies),
        forwarded_allow_ips=proxies,
        backlog=BACKLOG,
        timeout_graceful_shutdown=20,
    )


def run_worker(
    settings: Settings, service: str, listening: socket.socket, spool: Path, adding: Connection, pulse: ctypes.c_ulong
) -> None:
    """Serve until SIGTERM or SIGINT: the body of a worker's process, whose heartbeat ``pulse`` its supervisor watches.

    Predictions go to the folder ``spool``; the end of ``adding`` with this process tells their writer that it adds no more.
    """
    gate = make_gate(settings, service, spool)
    with suppress(KeyboardInterrupt):
        DrainingServer(_config(gate, settings.proxies), gate, pulse).run(sockets=[listening])
    adding.close()
