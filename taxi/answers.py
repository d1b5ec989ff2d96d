"""A trip that is being answered, the answer that its caller gets, and the row that is kept of it."""

import os
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from taxi.requests import Outcome, Trip, wall_clock
from taxi.slots import Minutes

Row = dict[str, Any]
SHADOW = "-shadow"
IDS = 256


class Log(Protocol):
    """Where predictions and outcomes are kept; both calls return at once."""

    def put(self, row: Row) -> None:
        """Take a prediction."""

    def put_outcome(self, row: Row) -> None:
        """Take an outcome."""


@dataclass(frozen=True)
class Task:
    """One trip to answer: its id, its pickup on New York's wall-clock, and whether the challenger is to answer it."""

    trip: Trip
    prediction_id: str
    pickup: datetime
    tried: bool


@dataclass(frozen=True)
class Source:
    """Who answered: an arm's version of a service's model; ``fallback`` where it stands in for a challenger that failed."""

    service: str
    arm: str
    version: int
    fallback: bool = False
    shadow: bool = False


class RandomIds:
    """UUIDs of version 4, drawn from the system many at a time: a draw for each costs as much as the rest of an answer."""

    def __init__(self) -> None:
        self._ready: list[str] = []

    def take(self) -> str:
        """Return the next one, in hexadecimal; may be called by several threads."""
        try:
            return self._ready.pop()
        except IndexError:
            drawn = os.urandom(16 * IDS)
            fresh = [uuid.UUID(bytes=drawn[at : at + 16], version=4).hex for at in range(0, len(drawn), 16)]
            taken = fresh.pop()
            self._ready = fresh
            return taken


def answer(task: Task, minutes: Minutes, source: Source) -> Row:
    """Return what the caller gets."""
    mean, median, low, high = minutes
    return {
        "prediction_id": task.prediction_id,
        "trip_id": task.trip.trip_id,
        "mean_minutes": mean,
        "median_minutes": median,
        "p10_minutes": low,
        "p90_minutes": high,
        "arm": source.arm,
        "version": source.version,
        "service": source.service,
    }


def prediction_row(task: Task, minutes: Minutes, source: Source, made_at: datetime, latency_ms: float) -> Row:
    """Return what is kept: what was asked, what was predicted (minutes), by whom, when (UTC) and in how long.

    A prediction in the shadow has an id of its own, the answered one's with ``-shadow``.
    """
    trip = task.trip
    mean, median, low, high = minutes
    return {
        "prediction_id": task.prediction_id + SHADOW * source.shadow,
        "made_at": made_at,
        "service": source.service,
        "trip_id": trip.trip_id,
        "pickup": task.pickup,
        "PULocationID": trip.PULocationID,
        "DOLocationID": trip.DOLocationID,
        "passenger_count": trip.passenger_count,
        "trip_type": trip.trip_type,
        "vendor": trip.vendor,
        "planned_distance_miles": trip.planned_distance_miles,
        "arm": source.arm,
        "shadow": source.shadow,
        "fallback": source.fallback,
        "version": source.version,
        "mean": mean,
        "median": median,
        "p10": low,
        "p90": high,
        "latency_ms": latency_ms,
    }


def outcome_rows_of(outcome: Outcome, received: datetime | None = None, shadowed: bool = False) -> list[Row]:
    """Return the row of an outcome; where predictions are ``shadowed``, one named by prediction counts for its shadow too."""
    row = {
        "trip_id": outcome.trip_id,
        "prediction_id": outcome.prediction_id,
        "duration": outcome.duration_minutes,
        "dropoff": None if outcome.dropoff_datetime is None else wall_clock(outcome.dropoff_datetime),
        "source": "http",
        "received_at": received or datetime.now(UTC),
    }
    if not (shadowed and outcome.prediction_id):
        return [row]
    return [row, row | {"prediction_id": outcome.prediction_id + SHADOW}]
