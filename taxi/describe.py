"""The service's description in OpenAPI: shapes of answers and of failures, which routes need a key, and what each is for."""

from collections.abc import Callable
from typing import Any, Literal

from fastapi import FastAPI
from fastapi.responses import HTMLResponse, PlainTextResponse
from pydantic import BaseModel, ConfigDict

from taxi.requests import Outcome, Outcomes, Trip, Trips, json_schema

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
