"""HTTP responses: one shape of JSON for every failure, headers that a browser can rely on, and the routes as OpenAPI describes them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.responses import Response

from taxi.serving.schemas import (
    Accepted,
    Asked,
    Failure,
    Fault,
    Model,
    Outcome,
    Outcomes,
    Prediction,
    Predictions,
    Problem,
    Status,
    Trip,
    Trips,
    Unacceptable,
)

JSON = "application/json"
Headers = list[tuple[bytes, bytes]]
SAFE: Headers = [(b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store")]
CLOSE: Headers = [(b"connection", b"close")]


def ok(content: BaseModel, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return an answer that says ``content`` in JSON."""
    return Response(content.model_dump_json(), status, headers, JSON)


def problem(
    status: int, code: str, message: str, headers: Mapping[str, str] | None = None, fields: Sequence[Fault] = ()
) -> Response:
    """Return a failure: a code for programs, a sentence for people, and which fields are at fault."""
    return ok(Problem(error=Failure(code=code, message=message, fields=list(fields))), status, headers)


def refused(error: Unacceptable) -> Response:
    """Return what a caller is told whose body was not acceptable; with a body that is too large the connection ends."""
    headers = {"connection": "close"} if error.status == 413 else None
    return problem(error.status, error.code, str(error), headers, error.fields)


MALFORMED = problem(400, "not-http", "expected a valid HTTP/1.1 request")
CUT_OFF = problem(400, "cut-off", "the connection was closed before the request was whole")
LARGE_HEAD = problem(431, "large-head", "expected an address and headers of at most 64 KiB together")
UNAUTHORIZED = problem(
    401, "key", "expected a valid API key in X-API-Key or Authorization: Bearer", {"www-authenticate": "Bearer"}
)
NOT_LOCAL = problem(421, "host", "expected a request to localhost, not by a proxy: this service has no API keys")
TOO_SLOW = problem(503, "busy", "the answer took too long; ask for fewer trips, or again later", {"retry-after": "1"})
ENDING = problem(503, "closing", "the server is ending")
LATE = problem(408, "late", "the request did not arrive in time")
GONE = Response(status_code=499)  # for the numbers: the client went away before its body was whole
FAILED = problem(500, "failed", "the service failed to answer; the failure is in its log")


def no_model(why: str) -> Response:
    """Return what a caller is told while no version can answer."""
    return problem(503, "no-model", why, {"retry-after": "5"})


def expired(name: str) -> Response:
    """Return what a caller is told whose API key was valid once."""
    return problem(
        401, "expired-key", f"the API key {name} has expired; ask for a new one", {"www-authenticate": "Bearer"}
    )


def forbidden(name: str, role: str) -> Response:
    """Return what a caller is told whose API key does not have the role that the route asks for."""
    return problem(403, "role", f"expected an API key with the role {role!r}; {name} does not have it")


def too_many(seconds: float) -> Response:
    """Return what a caller is told who asks too often."""
    return problem(429, "rate", "too many requests; slow down", {"retry-after": str(max(1, round(seconds)))})


# --- The routes: each is answered by the method of ``app.Service`` that its key names, and described in OpenAPI.


@dataclass(frozen=True)
class Operation:
    """A route: what it is for, which shapes (or which media type) it answers, which it takes, and which role of a key it asks for."""

    method: str
    path: str
    summary: str
    answers: tuple[type[BaseModel], ...] | str
    takes: tuple[type[BaseModel], ...] = ()
    status: int = 200
    role: str | None = None
    may_lack_model: bool = False


OPERATIONS = {
    "predict": Operation(
        "post",
        "/predict",
        "Predict one trip, or up to 1,000",
        (Prediction, Predictions),
        takes=(Trip, Trips),
        role="predict",
    ),
    "outcomes": Operation(
        "post",
        "/outcomes",
        "Say how trips ended; may be repeated",
        (Accepted,),
        takes=(Outcome, Outcomes),
        status=202,
        role="outcomes",
    ),
    "model": Operation("get", "/model", "What serves now", (Model,), role="read"),
    "refresh": Operation(
        "post",
        "/model/refresh",
        "Look at the aliases now, and try again what was refused",
        (Asked,),
        status=202,
        role="operate",
    ),
    "metrics": Operation("get", "/metrics", "Numbers for Prometheus", "text/plain", role="read"),
    "healthz": Operation("get", "/healthz", "Is the process alive?", (Status,)),
    "readyz": Operation("get", "/readyz", "Is there a model that answers?", (Status,), may_lack_model=True),
    "page": Operation("get", "/", "A page for people", "text/html", may_lack_model=True),
    "openapi": Operation("get", "/openapi.json", "This description", JSON),
}
FAILURES = {
    400: "The body is not JSON, or the request not HTTP.",
    401: "No valid API key.",
    403: "The API key does not have the role that the route asks for.",
    408: "The body did not arrive in time.",
    413: "The body is larger than 1 MB.",
    415: "The body is not announced as JSON.",
    421: "A service without keys was asked by another name than localhost.",
    422: "The body is JSON of another shape, or out of range.",
    431: "Address and headers are larger than 64 KiB.",
    429: "Too many requests; Retry-After says when to come again.",
    500: "The service failed; its log says why.",
    503: "No model is loaded yet, or the service is ending or too busy.",
}
OF_A_BODY, OF_A_KEY, OF_A_MODEL = {400, 408, 413, 415, 422, 503}, {401, 403}, {503}
SECURITY = {
    "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    "bearer": {"type": "http", "scheme": "bearer"},
}
REFERENCE = "#/components/schemas/{model}"


def _content(shapes: tuple[type[BaseModel], ...] | str) -> dict[str, Any]:
    if isinstance(shapes, str):
        return {"content": {shapes: {"schema": {"type": "object" if shapes == JSON else "string"}}}}
    return {
        "content": {JSON: {"schema": {"anyOf": [{"$ref": REFERENCE.format(model=one.__name__)} for one in shapes]}}}
    }


def _failures(route: Operation) -> dict[str, Any]:
    unlikely = (set() if route.takes else OF_A_BODY) | (set() if route.role else OF_A_KEY)
    codes = FAILURES.keys() - unlikely | (OF_A_MODEL if route.may_lack_model else set())
    return {str(code): {"description": FAILURES[code]} | _content((Problem,)) for code in sorted(codes)}


def _described(name: str, route: Operation) -> dict[str, Any]:
    answers = {str(route.status): {"description": "Done."} | _content(route.answers)} | _failures(route)
    security: list[dict[str, Any]] = [{scheme: []} for scheme in SECURITY] if route.role else []
    body = {"requestBody": {"required": True} | _content(route.takes)} if route.takes else {}
    return {"operationId": name, "summary": route.summary, "security": security, "responses": answers} | body


@cache
def openapi() -> dict[str, Any]:
    """Return the OpenAPI description of all routes, its schemas made from the shapes that check and answer the requests."""
    shapes: set[type[BaseModel]] = {Problem}
    for route in OPERATIONS.values():
        shapes.update(route.takes, () if isinstance(route.answers, str) else route.answers)
    schemas = models_json_schema([(shape, "validation") for shape in shapes], ref_template=REFERENCE)[1]["$defs"]
    return {
        "openapi": "3.1.0",
        "info": {"title": "taxi", "version": "1"},
        "paths": {route.path: {route.method: _described(name, route)} for name, route in OPERATIONS.items()},
        "components": {"schemas": schemas, "securitySchemes": SECURITY},
    }
