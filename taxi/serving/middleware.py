"""Middleware: keys, limits, safe headers and numbers for every request, before the application sees it."""

import hashlib
import hmac
import logging
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from taxi.errors import UsageError
from taxi.params import ServeParams
from taxi.serving.metrics import count_request
from taxi.serving.responses import CLOSE, NOT_LOCAL, OPERATIONS, SAFE, UNAUTHORIZED, too_many
from taxi.serving.schemas import Unacceptable

# --- Who may ask, and how often: API keys compared in constant time, and a token bucket for each caller.

SHORTEST_KEY = 16
MOST_CALLERS = 10_000
LOCAL = frozenset({"localhost", "127.0.0.1", "::1", "[::1]"})
_LOCAL_HOST = re.compile(rb"(?:localhost|127\.0\.0\.1|\[::1\])(?::[0-9]{0,5})?", re.IGNORECASE)


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


class ApiKeys:
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


def require_keys(host: str, keys: ApiKeys) -> None:
    """Raise UsageError if the service would be open to a network without keys."""
    if not len(keys) and not is_local(host):
        raise UsageError(
            f"expected TAXI_API_KEYS (or TAXI_API_KEYS_FILE) to serve on {host}; only localhost needs none"
        )


def names_local_host(header: bytes) -> bool:
    """Return whether a Host header names this machine; a page elsewhere whose name was rebound to it does not."""
    return _LOCAL_HOST.fullmatch(header) is not None


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
PROBES = frozenset({"/healthz", "/readyz"})
OPEN = frozenset(route.path for route in OPERATIONS.values() if not route.needs_key)
PATHS = frozenset(route.path for route in OPERATIONS.values())
READ_ON = 20


@dataclass
class Rules:
    """What the gate goes by; replaced while the service runs when ``params.yaml`` or the keys change."""

    params: ServeParams
    keys: ApiKeys
    closing: bool = False
    rate: RateLimit = field(init=False)

    def __post_init__(self) -> None:
        """Make the buckets."""
        self.rate = RateLimit(self.params.rate_per_second, self.params.burst)

    def renew(self, params: ServeParams, keys: ApiKeys) -> None:
        """Take new limits and keys; the buckets go on."""
        self.params, self.keys = params, keys
        self.rate.rate, self.rate.burst = params.rate_per_second, params.burst


def refusal(scope: Scope, rules: Rules) -> Response | None:
    """Return the answer to a request that may not come in: no key, another host, too often; None to one that may."""
    headers, path, wrong = scope["headers"], scope["path"], None
    caller = (scope.get("client") or ("unknown",))[0]
    if not len(rules.keys):
        hosts = [value for name, value in headers if name == b"host"]
        if len(hosts) != 1 or not names_local_host(hosts[0]):
            return NOT_LOCAL
    elif path not in OPEN:
        key = rules.keys.find(offered_key(headers))
        caller, wrong = (key, None) if key else (caller, UNAUTHORIZED)
    seconds = 0.0 if path in PROBES else rules.rate.wait(caller)
    return too_many(seconds) if seconds else wrong


async def read_body(request: Request, limit: int) -> bytes:
    """Return the whole body; raise Unacceptable for one of another type than JSON, and for one of more than ``limit`` bytes."""
    if request.headers.get("content-type", "").split(";")[0].strip().lower() != "application/json":
        raise Unacceptable(415, "content-type", "expected Content-Type: application/json")
    body, size = bytearray(), 0
    async for chunk in request.stream():
        size += len(chunk)
        if size <= limit:
            body += chunk
        elif size > READ_ON * limit:  # until then it is read and dropped, since its sender must see the answer
            break
    if size > limit:
        raise Unacceptable(413, "too-large", f"expected a body of at most {limit:,} bytes")
    return bytes(body)


class Gate:
    """ASGI middleware that lets ``app`` answer what the rules let in, makes every answer safe to show, and counts it."""

    def __init__(self, app: ASGIApp, rules: Rules) -> None:
        self._app, self.rules = app, rules

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or the server's start and end."""
        if scope["type"] == "http":
            await self._answer(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        began, route, status = time.perf_counter(), scope["path"] if scope["path"] in PATHS else "other", 500

        async def send_safely(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *SAFE, *(CLOSE if self.rules.closing else ())]
            await send(message)

        try:
            await (refusal(scope, self.rules) or self._app)(scope, receive, send_safely)
        except Exception:  # whatever it is, the application has answered that it failed and nothing else
            _LOG.exception("a request to %s failed", route)
        count_request(route, status, time.perf_counter() - began)
