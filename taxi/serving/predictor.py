"""Predictor of a request's trips: the answer that its caller gets, and the row that is kept of it."""

import logging
import os
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from taxi.errors import TaxiError
from taxi.params import ExperimentParams
from taxi.predictions.arms import assign
from taxi.predictions.log import PredictionLog
from taxi.serving.loader import Loaded, Minutes, Slots
from taxi.serving.metrics import FALLBACKS, SHADOWS, SHADOWS_DROPPED, count_predictions
from taxi.serving.schemas import Arm, Outcome, Prediction, Trip, exact_moment, wall_clock

Row = dict[str, Any]
SHADOW = "-shadow"
IDS = 256


@dataclass(frozen=True)
class Task:
    """One trip to answer: its id, its pickup on New York's wall-clock, in UTC too if known, and whether the challenger is to answer."""

    trip: Trip
    prediction_id: str
    pickup: datetime
    pickup_utc: datetime | None
    tried: bool


@dataclass(frozen=True)
class ServingVersion:
    """Who answered: an arm's version of a service's model; ``fallback`` where it stands in for a challenger that failed."""

    service: str
    arm: Arm
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


def answer(task: Task, minutes: Minutes, source: ServingVersion, loaded: Loaded) -> Prediction:
    """Return what the caller gets."""
    mean, median, low, high = minutes
    return Prediction(
        prediction_id=task.prediction_id,
        trip_id=task.trip.trip_id,
        mean_minutes=mean,
        median_minutes=median,
        p10_minutes=low,
        p90_minutes=high,
        arm=source.arm,
        version=source.version,
        service=source.service,
        trained_to=loaded.entry.trained_to if loaded.entry else None,
        caveats=loaded.caveats(task.trip, task.pickup, minutes),
    )


def prediction_row(task: Task, minutes: Minutes, source: ServingVersion, made_at: datetime, latency_ms: float) -> Row:
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
        "pickup_utc": task.pickup_utc,
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


def outcome_rows_of(
    service: str, outcome: Outcome, received: datetime | None = None, shadowed: bool = False
) -> list[Row]:
    """Return the row of an outcome; where predictions are ``shadowed``, one named by prediction counts for its shadow too."""
    text = outcome.dropoff_datetime
    row = {
        "service": service,
        "trip_id": outcome.trip_id,
        "prediction_id": outcome.prediction_id,
        "duration": outcome.duration_minutes,
        "dropoff": None if text is None else wall_clock(text),
        "dropoff_utc": None if text is None else exact_moment(text),
        "source": "http",
        "received_at": received or datetime.now(UTC),
    }
    if not (shadowed and outcome.prediction_id):
        return [row]
    return [row, row | {"prediction_id": outcome.prediction_id + SHADOW}]


# --- Which arm answers a trip; a challenger that fails is stood in for by the champion, in the same request.

_LOG = logging.getLogger(__name__)


class NoModel(TaxiError):
    """No version has been loaded yet, so nothing can be answered."""


class Predictor:
    """Answers trips from ``slots``; ``shadow`` takes what the challenger is to compute beside."""

    def __init__(self, service: str, log: PredictionLog, shadow: Callable[[Loaded, Sequence[Task]], None]) -> None:
        self.service = service
        self.slots = Slots()
        self.experiment: ExperimentParams | None = None
        self._log, self._ids = log, RandomIds()
        self._shadow = shadow

    def one(self, trip: Trip) -> Prediction:
        """Return the answer to one trip; raise NoModel if there is none."""
        slots = self.slots
        return self._by_arm(
            slots, [self._task(trip, slots)], lambda loaded, tasks: [loaded.one(trip, tasks[0].pickup)]
        )[0]

    def many(self, trips: Sequence[Trip]) -> list[Prediction]:
        """Return the answers to several trips, in their order; raise NoModel if there is none."""
        slots = self.slots
        tasks = [self._task(trip, slots) for trip in trips]
        made: dict[str, Prediction] = {}
        for tried in {task.tried for task in tasks}:
            mine = [task for task in tasks if task.tried is tried]
            made |= {answered.prediction_id: answered for answered in self._by_arm(slots, mine, _together)}
        return [made[task.prediction_id] for task in tasks]

    def keep_outcomes(self, outcomes: Sequence[Outcome]) -> None:
        """Hand outcomes to the log."""
        shadowed = self.experiment is not None and self.experiment.mode == "shadow"
        for one in outcomes:
            for row in outcome_rows_of(self.service, one, shadowed=shadowed):
                self._log.put_outcome(row)

    def _task(self, trip: Trip, slots: Slots) -> Task:
        prediction_id, trial = self._ids.take(), self.experiment
        tried = trial is not None and trial.mode == "share" and slots.challenger is not None
        if tried and trial is not None:
            tried = assign(trip.trip_id or prediction_id, trial.salt, trial.share)
        return Task(trip, prediction_id, *trip.pickups, tried)

    def _by_arm(
        self, slots: Slots, tasks: list[Task], compute: Callable[[Loaded, list[Task]], list[Minutes]]
    ) -> list[Prediction]:
        """Answer tasks that are all of one arm."""
        champion, challenger = slots.champion, slots.challenger
        if champion is None:
            raise NoModel("no version of the model has been loaded yet")
        began = time.perf_counter()
        fallback = False
        if tasks[0].tried and challenger is not None:
            try:
                minutes = compute(challenger, tasks)
                source = ServingVersion(self.service, "challenger", challenger.version)
                return self._finish(slots, tasks, minutes, challenger, source, began)
            except Exception as error:  # whatever a model on trial does wrong, the caller gets the champion's answer
                _LOG.error("the challenger failed on %d trips, the champion answers: %r", len(tasks), error)
                FALLBACKS.inc(len(tasks))
                fallback = True
        minutes = compute(champion, tasks)
        source = ServingVersion(self.service, "champion", champion.version, fallback)
        return self._finish(slots, tasks, minutes, champion, source, began)

    def _finish(
        self,
        slots: Slots,
        tasks: list[Task],
        minutes: list[Minutes],
        loaded: Loaded,
        source: ServingVersion,
        began: float,
    ) -> list[Prediction]:
        latency, made_at = 1000 * (time.perf_counter() - began), datetime.now(UTC)
        pairs = list(zip(tasks, minutes, strict=True))
        for task, one in pairs:
            self._log.put(prediction_row(task, one, source, made_at, latency))
        count_predictions(source.arm, len(tasks))
        if self.experiment is not None and self.experiment.mode == "shadow" and slots.challenger is not None:
            self._shadow(slots.challenger, tasks)
        return [answer(task, one, source, loaded) for task, one in pairs]


def _together(loaded: Loaded, tasks: list[Task]) -> list[Minutes]:
    return loaded.many([task.trip for task in tasks], [task.pickup for task in tasks])


# --- The challenger's predictions in the shadow: computed in batches by a thread of its own, never in a caller's time.

EVERY = 0.1
BATCH = 256
MOST_WAITING = 20_000


class Shadow:
    """Takes trips at once and predicts them later; beyond 20,000 that wait, trips are left out and counted."""

    def __init__(self, service: str, log: PredictionLog) -> None:
        self._service, self._log = service, log
        self._waiting: deque[tuple[Loaded, Task]] = deque()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="shadow", daemon=True)
        self._thread.start()

    def add(self, challenger: Loaded, tasks: Sequence[Task]) -> None:
        """Take trips for ``challenger``; returns at once."""
        if len(self._waiting) + len(tasks) > MOST_WAITING:
            SHADOWS_DROPPED.inc(len(tasks))
            return
        self._waiting.extend((challenger, task) for task in tasks)

    def close(self) -> None:
        """Predict what waits still, and end."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        stopping = False
        while not stopping:
            stopping = self._stop.wait(EVERY)
            while self._waiting:
                self._predict([self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))])

    def _predict(self, batch: list[tuple[Loaded, Task]]) -> None:
        for challenger in {id(one): one for one, _ in batch}.values():
            tasks = [task for one, task in batch if one is challenger]
            try:
                self._predict_by(challenger, tasks)
            except Exception as error:  # a model on trial may do anything wrong; the shadow must outlive it
                _LOG.error("the challenger failed on %d trips in the shadow: %r", len(tasks), error)
                FALLBACKS.inc(len(tasks))

    def _predict_by(self, challenger: Loaded, tasks: list[Task]) -> None:
        began = time.perf_counter()
        minutes = challenger.many([task.trip for task in tasks], [task.pickup for task in tasks])
        latency, made_at = 1000 * (time.perf_counter() - began) / len(tasks), datetime.now(UTC)
        source = ServingVersion(self._service, "challenger", challenger.version, shadow=True)
        for task, one in zip(tasks, minutes, strict=True):
            self._log.put(prediction_row(task, one, source, made_at, latency))
        SHADOWS.inc(len(tasks))
