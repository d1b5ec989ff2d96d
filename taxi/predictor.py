"""Which arm answers a trip; a challenger that fails is stood in for by the champion, in the same request."""

import logging
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Literal, Protocol

from taxi.answers import Log, RandomIds, Row, Source, Task, answer, outcome_rows_of, prediction_row
from taxi.assignment import assign
from taxi.errors import TaxiError
from taxi.metrics import FALLBACKS, count_predictions
from taxi.requests import Outcome, Trip, now_in_new_york
from taxi.slots import Loaded, Minutes, Slots

_LOG = logging.getLogger(__name__)


class Experiment(Protocol):
    """How the challenger is tried: section ``experiment`` of ``params.yaml``."""

    @property
    def mode(self) -> Literal["none", "shadow", "share"]:
        """Whether the challenger answers nobody, computes in the shadow, or answers a share of the trips."""

    @property
    def share(self) -> float:
        """The challenger's share of the trips, of 1."""

    @property
    def salt(self) -> str:
        """What deals trips to the arms."""


class NoModel(TaxiError):
    """No version has been loaded yet, so nothing can be answered."""


class Predictor:
    """Answers trips from ``slots``; ``shadow`` takes what the challenger is to compute beside."""

    def __init__(self, service: str, log: Log, shadow: Callable[[Loaded, Sequence[Task]], None]) -> None:
        self.service = service
        self.slots = Slots()
        self.experiment: Experiment | None = None
        self._log, self._ids = log, RandomIds()
        self._shadow = shadow

    def one(self, trip: Trip) -> Row:
        """Return the answer to one trip; raise NoModel if there is none."""
        slots = self.slots
        return self._by_arm(
            slots, [self._task(trip, slots)], lambda loaded, tasks: [loaded.one(trip, tasks[0].pickup)]
        )[0]

    def many(self, trips: Sequence[Trip]) -> list[Row]:
        """Return the answers to several trips, in their order; raise NoModel if there is none."""
        slots = self.slots
        tasks = [self._task(trip, slots) for trip in trips]
        made: dict[str, Row] = {}
        for tried in {task.tried for task in tasks}:
            mine = [task for task in tasks if task.tried is tried]
            made |= {one["prediction_id"]: one for one in self._by_arm(slots, mine, _together)}
        return [made[task.prediction_id] for task in tasks]

    def keep_outcomes(self, outcomes: Sequence[Outcome]) -> None:
        """Hand outcomes to the log."""
        shadowed = self.experiment is not None and self.experiment.mode == "shadow"
        for one in outcomes:
            for row in outcome_rows_of(one, shadowed=shadowed):
                self._log.put_outcome(row)

    def _task(self, trip: Trip, slots: Slots) -> Task:
        prediction_id, trial = self._ids.take(), self.experiment
        tried = trial is not None and trial.mode == "share" and slots.challenger is not None
        if tried and trial is not None:
            tried = assign(trip.trip_id or prediction_id, trial.salt, trial.share)
        return Task(trip, prediction_id, trip.pickup or now_in_new_york(), tried)

    def _by_arm(
        self, slots: Slots, tasks: list[Task], compute: Callable[[Loaded, list[Task]], list[Minutes]]
    ) -> list[Row]:
        """Answer tasks that are all of one arm."""
        champion, challenger = slots.champion, slots.challenger
        if champion is None:
            raise NoModel("no version of the model has been loaded yet")
        began = time.perf_counter()
        fallback = False
        if tasks[0].tried and challenger is not None:
            try:
                minutes = compute(challenger, tasks)
                return self._finish(
                    slots, tasks, minutes, Source(self.service, "challenger", challenger.version), began
                )
            except Exception as error:  # whatever a model on trial does wrong, the caller gets the champion's answer
                _LOG.error("the challenger failed on %d trips, the champion answers: %r", len(tasks), error)
                FALLBACKS.inc(len(tasks))
                fallback = True
        minutes = compute(champion, tasks)
        source = Source(self.service, "champion", champion.version, fallback)
        return self._finish(slots, tasks, minutes, source, began)

    def _finish(
        self, slots: Slots, tasks: list[Task], minutes: list[Minutes], source: Source, began: float
    ) -> list[Row]:
        latency, made_at = 1000 * (time.perf_counter() - began), datetime.now(UTC)
        pairs = list(zip(tasks, minutes, strict=True))
        for task, one in pairs:
            self._log.put(prediction_row(task, one, source, made_at, latency))
        count_predictions(source.arm, len(tasks))
        if self.experiment is not None and self.experiment.mode == "shadow" and slots.challenger is not None:
            self._shadow(slots.challenger, tasks)
        return [answer(task, one, source) for task, one in pairs]


def _together(loaded: Loaded, tasks: list[Task]) -> list[Minutes]:
    return loaded.many([task.trip for task in tasks], [task.pickup for task in tasks])
