"""Who may ask, and how often: API keys compared in constant time, and a token bucket for each caller."""

import hashlib
import hmac
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable

from taxi.errors import UsageError

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
