"""The challenger's predictions in the shadow: computed in batches by a thread of its own, never in a caller's time."""

import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime

from taxi.answers import Log, Source, Task, prediction_row
from taxi.metrics import FALLBACKS, SHADOWS, SHADOWS_DROPPED
from taxi.slots import Loaded

_LOG = logging.getLogger(__name__)
EVERY = 0.1
BATCH = 256
MOST_WAITING = 20_000


class Shadow:
    """Takes trips at once and predicts them later; beyond 20,000 that wait, trips are left out and counted."""

    def __init__(self, service: str, log: Log) -> None:
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
        source = Source(self._service, "challenger", challenger.version, shadow=True)
        for task, one in zip(tasks, minutes, strict=True):
            self._log.put(prediction_row(task, one, source, made_at, latency))
        SHADOWS.inc(len(tasks))
