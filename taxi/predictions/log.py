"""Prediction log: ``put`` costs a request nothing, and a database that is down costs no row.

A process that predicts takes what was put to files of the spool, at least every ``every`` seconds: that is all that kill -9 can
lose. One process a service carries the files of all into the store, oldest first, again and again until it takes them.
"""

import logging
import math
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread
from typing import Any

from taxi.database import StoreDown
from taxi.predictions.spool import Entry, Spool, add_segment, count_rows, encode_rows, segments_of
from taxi.predictions.store import Store

_LOG = logging.getLogger(__name__)
EVERY = 0.2
LONGEST_PAUSE = 2.0
LOOK_SECONDS = 30.0  # between two looks for rows of services that died meanwhile
LAST_SECONDS = 10.0  # for rows that wait when nobody adds any more; what is left then waits for the next start
SIZE_SECONDS = 5.0  # between two looks at how much waits on disk


class PredictionLog:
    """Takes predictions and outcomes to segments in ``folder``; use ``close`` at the end, after which every row is there.

    ``every``: seconds between files, also when ``batch`` rows have not come. ``most_rows`` wait in memory and ``most_bytes`` in
    the folder; what comes beyond is counted as ``lost``.
    """

    def __init__(
        self,
        folder: Path,
        every: float = EVERY,
        batch: int = 500,
        most_rows: int = 100_000,
        most_bytes: int = 512 * 2**20,
    ) -> None:
        self._folder, self._every, self._batch = folder, every, batch
        self._most_rows, self._most_bytes = most_rows, most_bytes
        self._waiting: deque[Entry] = deque()
        self._full, self._stop = Event(), Event()
        self._bytes, self._sized = 0, -math.inf
        self.lost = 0
        self._thread = Thread(target=self._keep, name="log", daemon=True)
        self._thread.start()

    @property
    def in_memory(self) -> int:
        """Rows that are not on disk yet: those that kill -9 would lose now."""
        return len(self._waiting)

    def put(self, row: dict[str, Any]) -> None:
        """Take a prediction (columns of the store's table); returns at once. The row must not be changed afterwards."""
        self._put(("predictions", row))

    def put_outcome(self, row: dict[str, Any]) -> None:
        """Take an outcome (keys as ``Store.write_outcomes``); returns at once."""
        self._put(("outcomes", row))

    def _put(self, entry: Entry) -> None:
        if self._stop.is_set() or len(self._waiting) >= self._most_rows:
            self._lose(1, "the log is closed" if self._stop.is_set() else "too many rows wait in memory")
            return
        self._waiting.append(entry)
        if len(self._waiting) >= self._batch and not self._full.is_set():
            self._full.set()

    def _lose(self, rows: int, why: str) -> None:
        if not self.lost:
            _LOG.error("%s: predictions are being lost", why)
        self.lost += rows

    def _keep(self) -> None:
        while not self._stop.is_set():
            self._full.wait(self._every)
            self._full.clear()
            self._empty_memory()

    def _empty_memory(self) -> None:
        while count := min(len(self._waiting), self._batch):
            entries = [self._waiting[place] for place in range(count)]
            if not self._to_disk(entries):
                return
            for _ in entries:  # only now, so that ``in_memory`` never says too little
                self._waiting.popleft()

    def _to_disk(self, entries: list[Entry]) -> bool:
        lines, bad = encode_rows(entries)
        try:
            if self._size() > self._most_bytes:
                self._lose(len(entries), f"more than {self._most_bytes:,} bytes wait in {self._folder}")
                return True
            self._folder.mkdir(exist_ok=True)  # who took it over from a supervisor that was killed has removed it
            self._bytes += add_segment(self._folder, lines)
        except OSError as error:
            _LOG.warning("the spool does not take predictions; they wait in memory: %s", error)
            return False
        if bad:
            self._lose(bad, "rows that cannot be written as JSON")
        return True

    def _size(self) -> int:
        """Return the bytes in the folder some seconds ago, and what was added here since: others add, and one carries away."""
        if time.monotonic() - self._sized > SIZE_SECONDS:
            self._sized = time.monotonic()
            self._bytes = sum(segment.stat().st_size for segment in segments_of(self._folder) if segment.exists())
        return self._bytes

    def close(self) -> None:
        """Take every row to disk."""
        self._stop.set()
        self._full.set()
        self._thread.join()
        self._empty_memory()
        if self._waiting:
            self._lose(len(self._waiting), "the spool did not take what waited in memory")


class Carrier:
    """Carries the segments of ``folder`` into ``store``, and those that lie in ``spool`` of services that no longer live."""

    def __init__(self, store: Store, spool: Spool, folder: Path | None = None) -> None:
        self._store, self._spool, self._folder = store, spool, folder
        self._looked = -math.inf
        self.written, self.lost, self.down = 0, 0, False

    @property
    def queued(self) -> int:
        """Rows that wait on disk."""
        return sum(count_rows(segment) for segment in self._segments(last=False))

    def run(self, ended: Callable[[float], bool], every: float = EVERY) -> None:
        """Carry again and again until ``ended(seconds)``, which waits so long, says that nobody adds any more."""
        last, pause = False, every
        while not last:
            last = ended(pause)
            self.carry(last)
            pause = min(2 * pause, LONGEST_PAUSE) if self.down else every

    def carry(self, last: bool = False) -> None:
        """Carry what waits now, as far as the store takes it; the ``last`` time also what a killed process left unfinished."""
        until = time.monotonic() + LAST_SECONDS if last else math.inf
        try:
            if time.monotonic() - self._looked > LOOK_SECONDS:
                self._take_over()
            for segment in self._segments(last):
                if time.monotonic() < until:
                    self._carry_one(segment)
            self._tell(False, "")
        except (StoreDown, OSError) as error:
            self._tell(True, str(error))

    def _take_over(self) -> None:
        self._looked = time.monotonic()
        if folders := self._spool.take_over():
            _LOG.info("%d folders of rows that another process left are taken over", len(folders))

    def _segments(self, last: bool) -> list[Path]:
        old = [segment for folder in self._spool.folders for segment in segments_of(folder, unfinished=True)]
        if self._folder is None or self._folder in self._spool.folders:
            return old
        return [*old, *segments_of(self._folder, last)]

    def _carry_one(self, segment: Path) -> None:
        carried = self._store.write_segment(segment)
        for why in carried.reasons:
            _LOG.error("a row is put aside: %s", why)
        if aside := carried.aside:
            _LOG.error("%d rows that the store will not take are kept in %s", len(aside), self._spool.refuse(aside))
        segment.unlink(missing_ok=True)
        self.written += carried.written
        self.lost += len(carried.aside)

    def _tell(self, down: bool, why: str) -> None:
        if down and not self.down:
            _LOG.warning("predictions wait on disk: %s", why)
        elif self.down and not down:
            _LOG.info("the prediction store answers again")
        self.down = down
