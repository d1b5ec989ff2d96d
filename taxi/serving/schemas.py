"""Request and answer schemas: strict shapes without coercion, and complaints that never repeat what was sent."""

import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import from_json

from taxi.data.zones import LAST_ZONE
from taxi.errors import UsageError

NEW_YORK = ZoneInfo("America/New_York")
MOST_TRIPS = 1000
MOST_COMPLAINTS = 10
_DAY = (
    "(?:20(?:09|[1-9][0-9])-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)"
    "|02-(?:0[1-9]|1[0-9]|2[0-8]))|20(?:[2468][048]|[13579][26])-02-29)"
)
_TIME = r"(?:[01][0-9]|2[0-3]):[0-5][0-9](?::[0-5][0-9](?:\.[0-9]{1,6})?)?(?:Z|[+-](?:0[0-9]|1[0-4]):[0-5][0-9])?"
MOMENT = f"^{_DAY}[T ]{_TIME}$"
_MOMENT = re.compile(MOMENT[:-1] + r"\Z")


class Unacceptable(UsageError):
    """The body is not what was expected; ``code`` is for programs, ``fields`` says where, neither repeats the body."""

    def __init__(self, status: int, code: str, message: str, fields: Sequence["Fault"] = ()) -> None:
        super().__init__(message)
        self.status, self.code, self.fields = status, code, fields


def _both_clocks(moment: datetime) -> tuple[datetime, datetime | None]:
    """Return a moment on New York's wall-clock, and in UTC where it has a zone; both without zone."""
    if moment.tzinfo is None:
        return moment, None
    return moment.astimezone(NEW_YORK).replace(tzinfo=None), moment.astimezone(UTC).replace(tzinfo=None)


def exact_moment(text: str) -> datetime | None:
    """Return the moment in UTC (without zone) of an ISO 8601 time that has an offset; None for one that has none."""
    return _both_clocks(datetime.fromisoformat(text))[1]


def wall_clock(text: str) -> datetime:
    """Return the New York wall-clock time (without zone) of an ISO 8601 time; one without an offset is New York's."""
    if not _MOMENT.match(text):
        raise ValueError(
            "expected a time as 2023-03-01T08:15:00, years 2009 to 2099, New York's unless it has an offset"
        )
    return _both_clocks(datetime.fromisoformat(text))[0]


def _checked(text: str) -> str:
    wall_clock(text)
    return text


Moment = Annotated[str, Field(json_schema_extra={"pattern": MOMENT}), AfterValidator(_checked)]
Zone = Annotated[
    int, Field(ge=1, le=LAST_ZONE, description="The TLC's taxi zone, 1 to 265; 264 is unknown, 265 outside.")
]
Identifier = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9._:/-]+$")]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Trip(_Strict):
    """A trip that is about to start."""

    PULocationID: Zone
    DOLocationID: Zone
    pickup_datetime: Moment | None = Field(None, description="When it starts, New York's clock; now if left out.")
    passenger_count: int | None = Field(None, ge=0, le=9)
    trip_type: int | None = Field(None, ge=1, le=2, description="Green cabs: 1 hailed, 2 dispatched.")
    vendor: int | None = Field(None, ge=1, le=20, description="The TLC's VendorID.")
    planned_distance_miles: float | None = Field(None, gt=0, le=300, allow_inf_nan=False)
    trip_id: Identifier | None = Field(None, description="The caller's own name for the trip; keeps it in one arm.")

    @property
    def pickup(self) -> datetime | None:
        """The pickup on New York's wall-clock, None for now."""
        return None if self.pickup_datetime is None else wall_clock(self.pickup_datetime)

    @property
    def pickups(self) -> tuple[datetime, datetime | None]:
        """The pickup, or now, on New York's wall-clock, and in UTC where it is known exactly: the clock shows an hour twice a year."""
        text = self.pickup_datetime
        return _both_clocks(datetime.now(UTC).replace(microsecond=0) if text is None else datetime.fromisoformat(text))


class Trips(_Strict):
    """Up to 1,000 trips."""

    trips: list[Trip] = Field(min_length=1, max_length=MOST_TRIPS)


def _exactly_one(**kinds: str) -> dict[str, Any]:
    return {"oneOf": [{"required": [name], "properties": {name: {"type": kind}}} for name, kind in kinds.items()]}


_ABOUT = _exactly_one(trip_id="string", prediction_id="string")
_HOW_LONG = _exactly_one(duration_minutes="number", dropoff_datetime="string")


class Outcome(_Strict):
    """How a trip ended: exactly one of trip_id and prediction_id, and exactly one of duration and drop-off time."""

    model_config = ConfigDict(json_schema_extra={"allOf": [_ABOUT, _HOW_LONG]})
    trip_id: Identifier | None = None
    prediction_id: Identifier | None = None
    duration_minutes: float | None = Field(None, gt=0, le=24 * 60, allow_inf_nan=False)
    dropoff_datetime: Moment | None = None

    @model_validator(mode="after")
    def _one_of_each(self) -> "Outcome":
        for one, other in (("trip_id", "prediction_id"), ("duration_minutes", "dropoff_datetime")):
            if (getattr(self, one) is None) == (getattr(self, other) is None):
                raise ValueError(f"expected exactly one of {one} and {other}")
        return self


class Outcomes(_Strict):
    """Up to 1,000 outcomes."""

    outcomes: list[Outcome] = Field(min_length=1, max_length=MOST_TRIPS)


# --- What callers get. An answer is made of plain values or of objects that have them as attributes.

Arm = Literal["champion", "challenger"]
Caveat = Literal["pickup-far-from-training", "distance-beyond-training", "distance-not-used", "p90-at-cut-off"]


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid", from_attributes=True, allow_inf_nan=False)


class Prediction(_Answer):
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
    trained_to: str | None = Field(description="The last month that the version has learnt from.")
    caveats: list[Caveat] = Field(
        description="Where the answer is no knowledge: a pickup more than a year from the months of training, a distance that "
        "no trip of an hour covers or that this version does not use, an interval whose true end may lie beyond the 60 "
        "minutes that trips of the training were cut off at."
    )


class Predictions(_Answer):
    """Predictions in the order of the trips."""

    predictions: list[Prediction]


class Accepted(_Answer):
    """How many outcomes were taken."""

    accepted: int


class Asked(_Answer):
    """That the aliases will be looked at now."""

    asked: bool


class Status(_Answer):
    """Whether the service is alive, ready, or ready without its registry."""

    status: Literal["alive", "ready", "degraded"]


class InUse(_Answer):
    """A version that serves."""

    version: int
    sha256: str
    trained_from: str
    trained_to: str
    since: str


class Trial(_Answer):
    """How the challenger is tried."""

    mode: Literal["none", "shadow", "share"]
    share: float


class Refused(_Answer):
    """A version that an alias names and that does not serve."""

    arm: Arm
    version: int
    reason: str
    at: str


class Model(_Answer):
    """What serves now."""

    service: str
    champion: InUse | None
    challenger: InUse | None
    experiment: Trial | None
    registry: str
    refused: list[Refused]


class Fault(_Answer):
    """Where a body is at fault, and why; never what it said."""

    where: list[str | int]
    problem: str


class Failure(_Answer):
    """A code for programs, a sentence for people, and the fields at fault."""

    code: str
    message: str
    fields: list[Fault]


class Problem(_Answer):
    """Every answer of 4xx and 5xx."""

    error: Failure


# --- How a body becomes one of these shapes, or is refused.

_KNOWN = {name for model in (Trip, Trips, Outcome, Outcomes) for name in model.model_fields}


def _place(part: str | int) -> str | int:
    return part if isinstance(part, int) or part in _KNOWN else "(a field that is not known here)"


def complaints(error: ValidationError) -> list[Fault]:
    """Return where and why, of at most ten faults; names of unknown fields are the caller's words, so they are left out."""
    faults = error.errors(include_url=False, include_input=False, include_context=False)
    return [
        Fault(where=[_place(part) for part in fault["loc"]], problem=fault["msg"].removeprefix("Value error, "))
        for fault in faults[:MOST_COMPLAINTS]
    ]


def _refuse_repeated(pairs: list[tuple[str, Any]]) -> None:
    if len(pairs) != len({name for name, _ in pairs}):
        raise Unacceptable(
            400, "repeated-field", "expected each field of an object once; one stands there twice or more"
        )


# of a field that is given twice, one parser takes the first and another the last
_FIELDS_ONCE = json.JSONDecoder(object_pairs_hook=_refuse_repeated, parse_int=len)


def _has_no_other_quotes(body: bytes, value: Any) -> bool:
    """Return whether a flat object's fields and texts account for every quote: then no field is hidden behind its namesake."""
    if not isinstance(value, dict) or b"\\" in body:
        return False
    texts = sum(type(one) is str for one in value.values())
    return body.count(b'"') == 2 * (len(value) + texts)


def parse_body(body: bytes) -> Any:
    """Return the JSON value that ``body`` holds; raise Unacceptable for anything else: NaN, lone surrogates, a field given twice."""
    try:
        value = from_json(body, allow_inf_nan=False, cache_strings="keys")
    except ValueError:
        raise Unacceptable(400, "not-json", "expected a body of valid JSON in UTF-8, without NaN or Infinity") from None
    if not _has_no_other_quotes(body, value):
        _FIELDS_ONCE.decode(body.decode())
    return value


def _accept(value: Any, one: type[_Strict], many: type[_Strict], field: str) -> Any:
    """Validate as ``many`` where the object has its field, as ``one`` otherwise."""
    shape = many if isinstance(value, dict) and field in value else one
    try:
        return shape.model_validate(value)
    except ValidationError as error:
        message = f"expected a body that is a {one.__name__} or has up to {MOST_TRIPS:,} {field}; see fields and /openapi.json"
        raise Unacceptable(422, "invalid", message, complaints(error)) from None


def parse_trips(body: bytes) -> Trip | Trips:
    """Return the trip, or the trips, of a request's body; raise Unacceptable."""
    accepted: Trip | Trips = _accept(parse_body(body), Trip, Trips, "trips")
    return accepted


def parse_outcomes(body: bytes) -> list[Outcome]:
    """Return the outcomes of a request's body; raise Unacceptable."""
    accepted: Outcome | Outcomes = _accept(parse_body(body), Outcome, Outcomes, "outcomes")
    return accepted.outcomes if isinstance(accepted, Outcomes) else [accepted]
