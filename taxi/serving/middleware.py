"""The way in: keys, limits, times and numbers for every request; the two busy routes are answered here, the rest passed on.

FastAPI's own handling of a request costs more than a prediction, so ``POST /predict`` and ``POST /outcomes`` do not go through
it; it describes them in OpenAPI and serves everything else.
"""

import hashlib
import hmac
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from taxi.errors import UsageError
from taxi.params import ServeParams
from taxi.serving.metrics import count_request
from taxi.serving.responses import (
    FAILED,
    NOT_JSON_TYPE,
    NOT_LOCAL,
    SAFE,
    UNAUTHORIZED,
    Reply,
    refused,
    too_large,
    too_many,
)
from taxi.serving.schemas import Unacceptable

# --- Who may ask, and how often: API keys compared in constant time, and a token bucket for each caller.

SHORTEST_KEY = 16
MOST_CALLERS = 10_000
LOCAL = frozenset({"localhost", "127.0.0.1", "::1", "[::1]"})


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


class Keys:
    """The keys that are accepted, kept as SHA-256 only. Several at a time: rotation is adding one, then removing one."""

    def __init__(self, keys: Iterable[str]) -> None:
        given = list(keys)
        if any(len(key) < SHORTEST_KEY or not key.isascii() for key in given):
            raise UsageError(
                f"expected API keys of {SHORTEST_KEY} or more ASCII characters; one is not (TAXI_API_KEYS)"
            )
        self._digests = [_digest(key.encode()) for key in given]

    def __len__(self) -> int:
        """Return how many keys there are."""
        return len(self._digests)

    def find(self, offered: bytes) -> str | None:
        """Return a short name of the key that ``offered`` is, None if it is none; takes as long for every answer."""
        digest, found = _digest(offered), None
        for known in self._digests:
            if hmac.compare_digest(known, digest):
                found = known.hex()[:12]
        return found


def offered_key(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return the key in ``X-API-Key`` or ``Authorization: Bearer``; empty if there is none."""
    for name, value in headers:
        if name == b"x-api-key":
            return value.strip()
        if name == b"authorization" and value[:7].lower() == b"bearer ":
            return value[7:].strip()
    return b""


def is_local(host: str) -> bool:
    """Return whether a service bound to ``host`` can only be reached from its own machine."""
    return host in LOCAL


def require_keys(host: str, keys: Keys) -> None:
    """Raise UsageError if the service would be open to a network without keys."""
    if not len(keys) and not is_local(host):
        raise UsageError(
            f"expected TAXI_API_KEYS (or TAXI_API_KEYS_FILE) to serve on {host}; only localhost needs none"
        )


def names_local_host(header: bytes) -> bool:
    """Return whether a Host header names this machine; a page elsewhere whose name was rebound to it does not."""
    host = header.decode("latin-1").lower()
    name = host if host.endswith("]") else host.rpartition(":")[0] or host
    return name in LOCAL


class RateLimit:
    """A token bucket a caller: ``burst`` at once, ``rate`` a second on average."""

    def __init__(self, rate: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.rate, self.burst = rate, burst
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait(self, caller: str) -> float:
        """Take a token of the caller's; return 0, or the seconds until there will be one."""
        now = self._clock()
        tokens, then = self._buckets.pop(caller, (float(self.burst), now))
        tokens = min(float(self.burst), tokens + (now - then) * self.rate)
        allowed = tokens >= 1
        self._buckets[caller] = (tokens - allowed, now)
        if len(self._buckets) > MOST_CALLERS:
            self._buckets.popitem(last=False)
        return 0.0 if allowed else (1 - tokens) / self.rate


_LOG = logging.getLogger(__name__)
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]
Hot = Callable[[bytes], Awaitable[Reply]]
OPEN = frozenset({"/", "/healthz", "/readyz", "/openapi.json"})
READ_ON = 20
ROUTES = OPEN | {"/predict", "/outcomes", "/model", "/model/refresh", "/metrics"}


class _Refused(Exception):
    def __init__(self, reply: Reply) -> None:
        self.reply = reply


class _Gone(Exception):
    """The client went away before its body was whole."""


@dataclass
class Rules:
    """What the gate goes by; replaced while the service runs when ``params.yaml`` or the keys change."""

    params: ServeParams
    keys: Keys
    closing: bool = False
    rate: RateLimit = field(init=False)

    def __post_init__(self) -> None:
        """Make the buckets."""
        self.rate = RateLimit(self.params.rate_per_second, self.params.burst)

    def renew(self, params: ServeParams, keys: Keys) -> None:
        """Take new limits and keys; the buckets go on."""
        self.params, self.keys = params, keys
        self.rate.rate, self.rate.burst = params.rate_per_second, params.burst


def _header(headers: list[tuple[bytes, bytes]], wanted: bytes) -> bytes:
    return next((value for name, value in headers if name == wanted), b"")


def admit(scope: MutableMapping[str, Any], rules: Rules) -> None:
    """Raise the refusal of a request that may not come in: no key, another host, too often."""
    headers, path = scope["headers"], scope["path"]
    caller = (scope.get("client") or ("unknown",))[0]
    if not len(rules.keys):
        if not names_local_host(_header(headers, b"host")):
            raise _Refused(NOT_LOCAL)
    elif path not in OPEN:
        named = rules.keys.find(offered_key(headers))
        if named is None:
            _take_token(rules.rate, caller)
            raise _Refused(UNAUTHORIZED)
        caller = named
    if path not in ("/healthz", "/readyz"):
        _take_token(rules.rate, caller)


def _take_token(rate: RateLimit, caller: str) -> None:
    seconds = rate.wait(caller)
    if seconds:
        raise _Refused(too_many(seconds))


async def read_body(headers: list[tuple[bytes, bytes]], receive: Receive, params: ServeParams) -> bytes:
    """Return the whole body; refuse one of another type than JSON, one that is too large, and one that is late."""
    if _header(headers, b"content-type").split(b";")[0].strip().lower() != b"application/json":
        raise _Refused(NOT_JSON_TYPE)
    limit = params.body_bytes
    body, size, more = b"", 0, True
    while (
        more and size < READ_ON * limit
    ):  # of one that is too large nothing is kept, but its sender must see the answer
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _Gone
        size += len(message.get("body", b""))
        body = body + message.get("body", b"") if size <= limit else b""
        more = message.get("more_body", False)
    if size > limit:
        raise _Refused(too_large(limit))
    return body


class Gate:
    """The ASGI application that a server runs: ``hot`` routes by (method, path), everything else by ``app``."""

    def __init__(self, app: App, hot: Mapping[tuple[str, str], Hot], rules: Rules) -> None:
        self._app, self._hot, self.rules = app, hot, rules

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Serve one connection's request, or the server's start and end."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await self._serve(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})

    async def _serve(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        began, route = time.perf_counter(), scope["path"] if scope["path"] in ROUTES else "other"
        try:
            status = await self._answer(scope, receive, send)
        except _Refused as refusal:
            status = await self._reply(refusal.reply, send)
        except _Gone:
            status = 499
        except Exception:  # the last resort: whatever it is, the caller learns that it failed and nothing else
            _LOG.exception("a request to %s failed", route)
            status = await self._reply(FAILED, send)
        count_request(route, status, time.perf_counter() - began)

    async def _answer(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> int:
        admit(scope, self.rules)
        hot = self._hot.get((scope["method"], scope["path"]))
        if hot is None:
            return await self._pass_on(scope, send)
        try:
            reply = await hot(await read_body(scope["headers"], receive, self.rules.params))
        except Unacceptable as error:
            reply = refused(error)
        return await self._reply(reply, send)

    async def _reply(self, reply: Reply, send: Send) -> int:
        headers = reply.headers(self.rules.closing)
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await send({"type": "http.response.body", "body": reply.body})
        return reply.status

    async def _pass_on(self, scope: MutableMapping[str, Any], send: Send) -> int:
        """Have the application answer; its routes read no body, so it is given none."""
        status, own = 0, [*SAFE, *([(b"connection", b"close")] if self.rules.closing else [])]

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *own]
            await send(message)

        async def nothing() -> Message:
            return {"type": "http.request", "body": b"", "more_body": False}

        await self._app(scope, nothing, noted)
        return status
