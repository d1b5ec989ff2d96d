"""Middleware: keys, limits, safe headers and numbers for every request, before the application sees it."""

import logging
import re
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from taxi.params import ServeParams
from taxi.serving.api_keys import ApiKey, ApiKeys, offered_key
from taxi.serving.metrics import count_key, count_request
from taxi.serving.responses import CLOSE, NOT_LOCAL, OPERATIONS, SAFE, UNAUTHORIZED, expired, forbidden, too_many
from taxi.serving.schemas import Unacceptable

# --- From where one may ask without a key, and how often: a token bucket for each caller.

MOST_CALLERS = 10_000
FORWARDED = frozenset({b"forwarded", b"x-forwarded-for", b"x-forwarded-host", b"x-real-ip"})
_LOCAL_HOST = re.compile(rb"(?:localhost|127\.0\.0\.1|\[::1\])(?::[0-9]{0,5})?", re.IGNORECASE)


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
ROLE = {route.path: route.role for route in OPERATIONS.values() if route.role}
PATHS = frozenset(route.path for route in OPERATIONS.values())
OPEN = PATHS - ROLE.keys()
READ_ON = 20
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")


@dataclass
class Rules:
    """What the gate goes by; replaced while the service runs when ``params.yaml`` or the keys change.

    ``calls`` counts requests by the key's name, route and status, until somebody logs them.
    """

    params: ServeParams
    keys: ApiKeys
    closing: bool = False
    rate: RateLimit = field(init=False)
    calls: Counter[tuple[str, str, int]] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        """Make the buckets."""
        self.rate = RateLimit(self.params.rate_per_second, self.params.burst)

    def renew(self, params: ServeParams, keys: ApiKeys) -> None:
        """Take new limits and keys; the buckets go on."""
        self.params, self.keys = params, keys
        self.rate.rate, self.rate.burst = params.rate_per_second, params.burst


def refusal(scope: Scope, rules: Rules) -> Response | None:
    """Return the answer to a request that may not come in: no key, no such role, another host, too often; None to one that may.

    Who asks with a key is kept in the scope, as ``user``.
    """
    headers, path, wrong = scope["headers"], scope["path"], None
    caller = (scope.get("client") or ("unknown",))[0]
    if not len(rules.keys):
        hosts = [value for name, value in headers if name == b"host"]
        if len(hosts) != 1 or not names_local_host(hosts[0]) or any(name in FORWARDED for name, _ in headers):
            return NOT_LOCAL
    elif path not in OPEN:
        key = rules.keys.find(offered_key(headers))
        wrong = _refused_key(key, ROLE.get(path))
        if key:
            scope["user"] = key
            caller = f"key {key.name}"
    seconds = 0.0 if path in PROBES else rules.rate.wait(caller)
    return too_many(seconds) if seconds else wrong


def _refused_key(key: ApiKey | None, role: str | None) -> Response | None:
    if key is None:
        return UNAUTHORIZED
    if key.has_expired(datetime.now(UTC)):
        return expired(key.name)
    return forbidden(key.name, role) if role and role not in key.roles else None


def _request_id(scope: Scope) -> bytes | None:
    """Return the id that a proxy or a caller gave the request, so that its answer and our log have it too."""
    given = (value for name, value in scope["headers"] if name == b"x-request-id")
    return next((value for value in given if _REQUEST_ID.fullmatch(value)), None)


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
        request_id = _request_id(scope)
        named = [(b"x-request-id", request_id)] if request_id else []

        async def send_safely(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *SAFE, *named, *(CLOSE if self.rules.closing else ())]
            await send(message)

        try:
            await (refusal(scope, self.rules) or self._app)(scope, receive, send_safely)
        except Exception:  # whatever it is, the application has answered that it failed and nothing else
            _LOG.exception("a request to %s failed%s", route, f" (id {request_id.decode()})" if request_id else "")
        count_request(route, status, time.perf_counter() - began)
        if key := scope.get("user"):
            self.rules.calls[key.name, route, status] += 1
            count_key(key.name, status)
