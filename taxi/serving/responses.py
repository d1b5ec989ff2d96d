"""The service's description in OpenAPI: shapes of answers and of failures, which routes need a key, and what each is for."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from fastapi import FastAPI
from fastapi.responses import HTMLResponse, PlainTextResponse
from pydantic import BaseModel, ConfigDict

from taxi.serving.schemas import Outcome, Outcomes, Trip, Trips, Unacceptable, json_schema

Arm = Literal["champion", "challenger"]
Json = dict[str, Any]


class _Shape(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Prediction(_Shape):
    """How long a trip will take, in minutes: mean, median, and an interval that holds eight trips in ten."""

    prediction_id: str
    trip_id: str | None
    mean_minutes: float
    median_minutes: float
    p10_minutes: float
    p90_minutes: float
    arm: Arm
    version: int
    service: str


class Predictions(_Shape):
    """Predictions in the order of the trips."""

    predictions: list[Prediction]


class Accepted(_Shape):
    """How many outcomes were taken."""

    accepted: int


class Asked(_Shape):
    """That the aliases will be looked at now."""

    asked: bool


class Status(_Shape):
    """Whether the service is alive, ready, or ready without its registry."""

    status: Literal["alive", "ready", "degraded"]


class InUse(_Shape):
    """A version that serves."""

    version: int
    sha256: str
    trained_from: str
    trained_to: str
    since: str


class Trial(_Shape):
    """How the challenger is tried."""

    mode: Literal["none", "shadow", "share"]
    share: float


class Refused(_Shape):
    """A version that an alias names and that does not serve."""

    arm: Arm
    version: int
    reason: str
    at: str


class Model(_Shape):
    """What serves now."""

    service: str
    champion: InUse | None
    challenger: InUse | None
    experiment: Trial | None
    registry: str
    refused: list[Refused]


class Fault(_Shape):
    """Where a body is at fault, and why; never what it said."""

    where: list[str | int]
    problem: str


class Failure(_Shape):
    """A code for programs, a sentence for people, and the fields at fault."""

    code: str
    message: str
    fields: list[Fault]


class Problem(_Shape):
    """Every answer of 4xx and 5xx."""

    error: Failure


FAILURES = {
    400: "The body is not JSON, or the request not HTTP.",
    401: "No valid API key.",
    408: "The body did not arrive in time.",
    413: "The body is larger than 1 MB.",
    415: "The body is not announced as JSON.",
    421: "A service without keys was asked by another name than localhost.",
    422: "The body is JSON of another shape, or out of range.",
    429: "Too many requests; Retry-After says when to come again.",
    500: "The service failed; its log says why.",
    503: "No model is loaded yet, or the service is ending or too busy.",
}
_BODY = (400, 401, 408, 413, 415, 421, 422, 429, 500, 503)
_PLAIN = (401, 421, 429, 500)
_OPEN = (421, 429, 500)


def _failures(codes: tuple[int, ...]) -> dict[int, Json]:
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {code: {"description": FAILURES[code], "content": content} for code in codes}


def _body(*shapes: str) -> Json:
    schema = {"anyOf": [{"$ref": f"#/components/schemas/{shape}"} for shape in shapes]}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def _route(summary: str, shape: Any, codes: tuple[int, ...], status: int = 200, **more: Any) -> Json:
    good = {status: {"model": shape, "description": "Done."}} if shape else {}
    locked: Json = {"security": [{"key": []}, {"bearer": []}] if codes != _OPEN and codes != (*_OPEN, 503) else []}
    extra = locked | more.pop("openapi_extra", {})
    responses = good | _failures(codes)
    return {"summary": summary, "status_code": status, "responses": responses, "openapi_extra": extra} | more


ROUTES: dict[str, Json] = {
    "predict": _route(
        "Predict one trip, or up to 1,000", Prediction | Predictions, _BODY, openapi_extra=_body("Trip", "Trips")
    ),
    "outcomes": _route(
        "Say how trips ended; may be repeated", Accepted, _BODY, 202, openapi_extra=_body("Outcome", "Outcomes")
    ),
    "model": _route("What serves now", Model, _PLAIN),
    "refresh": _route("Look at the aliases now, and try again what was refused", Asked, _PLAIN, 202),
    "metrics": _route("Numbers for Prometheus", None, _PLAIN, response_class=PlainTextResponse),
    "healthz": _route("Is the process alive?", Status, _OPEN),
    "readyz": _route("Is there a model that answers?", Status, (*_OPEN, 503)),
    "page": _route("A page for people", None, (*_OPEN, 503), response_class=HTMLResponse),
    "openapi": _route("This description", dict[str, Any], _OPEN),
}


def describe(name: str) -> Json:
    """Return what FastAPI is told of a route."""
    return ROUTES[name] | {"operation_id": name, "response_model": None}


def complete(app: FastAPI, generate: Callable[[], Json]) -> Callable[[], Json]:
    """Return ``generate`` with what FastAPI cannot see: the bodies' shapes, which the gate checks, and the keys."""

    def whole() -> Json:
        if app.openapi_schema:
            return app.openapi_schema
        made = generate()
        parts = made.setdefault("components", {})
        parts["schemas"] |= json_schema(Trip | Trips | Outcome | Outcomes | Problem)["$defs"]
        parts["securitySchemes"] = {
            "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            "bearer": {"type": "http", "scheme": "bearer"},
        }
        app.openapi_schema = made
        return made

    return whole


# --- What goes back: JSON bodies of one shape for every failure, and headers that a browser can rely on.

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
