"""API keys and their roles: who may call which route, under which name, until when; kept as SHA-256 and compared in constant time."""

import hashlib
import hmac
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from taxi.errors import UsageError

ROLES = ("predict", "outcomes", "operate", "read")
FIELDS = ("name", "roles", "expires", "key", "sha256")
SHORTEST_KEY = 16
SOON = timedelta(days=14)
LOCAL = frozenset({"localhost", "127.0.0.1", "::1", "[::1]"})
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}")
_FORM = f"name=NAME;roles={'+'.join(ROLES)};expires=YYYY-MM-DD;key=KEY, or sha256=DIGEST in the place of key"


@dataclass(frozen=True)
class ApiKey:
    """One key: its name, which is what logs and metrics say, its SHA-256, what it may do, and when it expires (never, where None)."""

    name: str
    digest: bytes = field(repr=False)
    roles: frozenset[str] = frozenset(ROLES)
    expires: datetime | None = None

    def has_expired(self, now: datetime) -> bool:
        """Return whether it is valid no longer."""
        return self.expires is not None and self.expires <= now


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def _digest_of_secret(key: str) -> bytes:
    if len(key) < SHORTEST_KEY or not key.isascii():
        raise ValueError(f"expected API keys of {SHORTEST_KEY} or more ASCII characters; it is not")
    return _digest(key.encode())


def _expiry(text: str) -> datetime:
    """Return when a key expires; a day is valid to its end, in UTC."""
    try:
        given = datetime.fromisoformat(text)
    except ValueError:
        given = None
    if given is None or (given.tzinfo is None and len(text) > len("2027-01-31")):
        raise ValueError("expected 'expires' as a day, or as a time with its offset from UTC")
    return given if given.tzinfo else given.replace(tzinfo=UTC) + timedelta(days=1)


def _named(entry: str) -> ApiKey:
    """Return what an entry with fields describes; the ValueError of a wrong one quotes nothing of it, which may be the key."""
    pairs = [part.partition("=")[::2] for part in entry.split(";")]
    given = dict(pairs)
    if len(given) < len(pairs) or not given.keys() <= set(FIELDS) or not all(given.values()):
        raise ValueError("a field is empty, unknown or given twice")
    if not _NAME.fullmatch(given["name"]):
        raise ValueError("expected a name of at most 40 letters, digits, '.', '_' and '-'")
    if ("key" in given) == ("sha256" in given):
        raise ValueError("expected either key or sha256")
    roles = frozenset(given["roles"].split("+")) if "roles" in given else frozenset(ROLES)
    if not roles <= set(ROLES):
        raise ValueError(f"expected roles among {', '.join(ROLES)}")
    if "sha256" in given and not re.fullmatch(r"[0-9a-fA-F]{64}", given["sha256"]):
        raise ValueError("expected sha256 as 64 hexadecimal digits")
    digest = bytes.fromhex(given["sha256"]) if "sha256" in given else _digest_of_secret(given["key"])
    return ApiKey(given["name"], digest, roles, _expiry(given["expires"]) if "expires" in given else None)


def parse_key(entry: str) -> ApiKey:
    """Return an entry of TAXI_API_KEYS: a key alone, which may do everything, or ``name=…;roles=…;expires=…;key=…``."""
    if entry.startswith("name="):
        return _named(entry)
    digest = _digest_of_secret(entry)
    return ApiKey(digest.hex()[:12], digest)


class ApiKeys:
    """The keys that are accepted. Several at a time: rotation is adding one, then removing one."""

    def __init__(self, entries: Iterable[str]) -> None:
        self._keys: list[ApiKey] = []
        for number, entry in enumerate(entries, 1):
            try:
                self._add(parse_key(entry))
            except ValueError as error:
                form = f" (the form is {_FORM})" if entry.startswith("name=") else ""
                raise UsageError(f"TAXI_API_KEYS, entry {number}: {error}{form}") from None

    def _add(self, key: ApiKey) -> None:
        same = [other for other in self._keys if key.name == other.name or key.digest == other.digest]
        if any((other.name, other.digest) != (key.name, key.digest) for other in same):
            raise ValueError("its name or its key is that of an entry before; give each key a name of its own")
        self._keys += [] if same else [key]

    def __len__(self) -> int:
        """Return how many keys there are, those that have expired included: they never open the service to all."""
        return len(self._keys)

    def find(self, offered: bytes) -> ApiKey | None:
        """Return the key that ``offered`` is, None if it is none; takes as long for every answer."""
        digest, match = _digest(offered), None
        for key in self._keys:
            if hmac.compare_digest(key.digest, digest):
                match = key
        return match

    def expiring(self, now: datetime) -> list[ApiKey]:
        """Return the keys that have expired, or will within two weeks."""
        return [key for key in self._keys if key.has_expired(now + SOON)]


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


def require_keys(host: str, keys: ApiKeys, proxies: Sequence[str] = ()) -> None:
    """Raise UsageError if the service would be open to a network, or to a proxy's callers, without keys."""
    if not len(keys) and not is_local(host):
        raise UsageError(
            f"expected TAXI_API_KEYS (or TAXI_API_KEYS_FILE) to serve on {host}; only localhost needs none"
        )
    if not len(keys) and proxies:
        raise UsageError("expected TAXI_API_KEYS (or TAXI_API_KEYS_FILE) behind the proxies of TAXI_PROXIES")
