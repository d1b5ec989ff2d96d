"""What goes back: JSON bodies of one shape for every failure, and headers that a browser can rely on."""

import json
from dataclasses import dataclass
from typing import Any

from taxi.requests import Unacceptable

JSON = "application/json"
Headers = list[tuple[bytes, bytes]]
SAFE: Headers = [(b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store")]


@dataclass(frozen=True)
class Reply:
    """A whole answer; ``more`` are headers of its own."""

    status: int
    body: bytes
    kind: str = JSON
    more: tuple[tuple[str, str], ...] = ()

    def headers(self, closing: bool = False) -> Headers:
        """Return all headers; ``closing`` tells the client that the connection ends here."""
        own = [(b"content-type", self.kind.encode()), (b"content-length", str(len(self.body)).encode())]
        more = [(name.encode(), value.encode()) for name, value in self.more]
        return [*own, *SAFE, *more, *([(b"connection", b"close")] if closing else [])]


def encode(content: Any) -> bytes:
    """Return ``content`` as compact JSON; NaN raises ValueError."""
    return json.dumps(content, separators=(",", ":"), allow_nan=False).encode()


def ok(content: Any, status: int = 200) -> Reply:
    """Return an answer that says ``content``."""
    return Reply(status, encode(content))


def problem(status: int, code: str, message: str, more: dict[str, str] | None = None, fields: Any = ()) -> Reply:
    """Return a failure: a code for programs, a sentence for people, and which fields are at fault."""
    error = {"code": code, "message": message, "fields": list(fields)}
    return Reply(status, encode({"error": error}), more=tuple((more or {}).items()))


def refused(error: Unacceptable) -> Reply:
    """Return what a caller is told whose body was not acceptable: 400 if it is not JSON, 422 otherwise."""
    return problem(400 if error.code == "not-json" else 422, error.code, str(error), fields=error.fields)


MALFORMED = problem(400, "not-http", "expected a valid HTTP/1.1 request")
UNAUTHORIZED = problem(
    401, "key", "expected a valid API key in X-API-Key or Authorization: Bearer", {"www-authenticate": "Bearer"}
)
NOT_LOCAL = problem(421, "host", "expected a request to localhost: this service has no API keys")
NOT_JSON_TYPE = problem(415, "content-type", "expected Content-Type: application/json")
NO_MODEL = problem(503, "no-model", "no version of the model has been loaded yet; ask again", {"retry-after": "5"})
TOO_SLOW = problem(503, "busy", "the answer took too long; ask for fewer trips, or again later", {"retry-after": "1"})
LATE = problem(408, "late", "the request did not arrive in time")
FAILED = problem(500, "failed", "the service failed to answer; the failure is in its log")


def too_large(limit: int) -> Reply:
    """Return what a caller is told whose body has more than ``limit`` bytes; the connection ends with it."""
    return problem(413, "too-large", f"expected a body of at most {limit:,} bytes", {"connection": "close"})


def too_many(seconds: float) -> Reply:
    """Return what a caller is told who asks too often."""
    return problem(429, "rate", "too many requests; slow down", {"retry-after": str(max(1, round(seconds)))})
