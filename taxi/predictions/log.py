"""The prediction log's writer: ``put`` costs a request nothing, and a database that is down costs no row.

Two threads. One takes what was put to a file of the spool, at least every ``every`` seconds: that is all that kill -9 can
lose. The other carries the spool's files into the store, oldest first, again and again until it takes them.
"""

import logging
import multiprocessing
import os
import time
from collections import deque
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from threading import Event, Lock, Thread
from types import TracebackType
from typing import Any, Protocol

from taxi.database import StoreDown
from taxi.predictions.spool import Entry, Spool, encode_rows
from taxi.predictions.store import Carried, Store, open_store
from taxi.processes import end_only_with_parent

_LOG = logging.getLogger(__name__)
LONGEST_PAUSE = 2.0
LOOK_SECONDS = 30.0  # between two looks for rows of processes that died meanwhile


class Sink(Protocol):
    """Where the rows end: a ``Store``, or one in a process of its own."""

    def write_segment(self, segment: Path) -> Carried:
        """Keep the rows of a segment of the spool; raise StoreDown where the store does not answer."""


class PredictionLog:
    """Keeps predictions and outcomes in ``store`` by way of ``spool``; use as a context, or ``close`` it.

    ``every``: seconds between files, also when ``batch`` rows have not come. ``most_rows`` wait in memory and ``most_bytes`` on
    disk; what comes beyond is counted as lost.
    """

    def __init__(
        self,
        store: Sink,
        spool: Path,
        every: float = 0.2,
        batch: int = 500,
        most_rows: int = 100_000,
        most_bytes: int = 512 * 2**20,
    ) -> None:
        self._store, self._spool = store, Spool(spool)
        self._every, self._batch, self._most_rows, self._most_bytes = every, batch, most_rows, most_bytes
        self._waiting: deque[Entry] = deque()
        self._full, self._kept, self._stop, self._all_kept, self._counting = Event(), Event(), Event(), Event(), Lock()
        self._deadline = float("inf")
        self._added, self._carried, self._bytes = 0, 0, 0  # rows into and out of the spool, bytes into it and not out
        self.written, self.lost, self.down = 0, 0, False
        self._take_over()
        self._threads = [Thread(target=run, name=run.__name__, daemon=True) for run in (self._keep, self._carry)]
        for thread in self._threads:
            thread.start()

    @property
    def queued(self) -> int:
        """Rows that were put and are not in the store yet, in memory or on disk (for a moment a batch counts twice)."""
        return len(self._waiting) + self._added - self._carried

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
        with self._counting:
            if not self.lost:
                _LOG.error("%s: predictions are being lost", why)
            self.lost += rows

    def _keep(self) -> None:
        while not self._stop.is_set():
            self._full.wait(self._every)
            self._full.clear()
            self._empty_memory()
        self._empty_memory()
        self._all_kept.set()
        self._kept.set()

    def _empty_memory(self) -> None:
        while count := min(len(self._waiting), self._batch):
            entries = [self._waiting[place] for place in range(count)]
            if not self._to_disk(entries):
                return
            for _ in entries:  # only now, so that ``in_memory`` never says too little
                self._waiting.popleft()

    def _to_disk(self, entries: list[Entry]) -> bool:
        if self._bytes > self._most_bytes:
            self._lose(len(entries), f"more than {self._most_bytes:,} bytes wait in {self._spool.folder}")
            return True
        lines, bad = encode_rows(entries)
        try:
            size = self._spool.add(lines)
        except OSError as error:
            _LOG.warning("the spool does not take predictions; they wait in memory: %s", error)
            return False
        self._count_kept(len(lines), size)
        if bad:
            self._lose(bad, "rows that cannot be written as JSON")
        return True

    def _count_kept(self, rows: int, size: int) -> None:
        with self._counting:
            self._added += rows
            self._bytes += size
        self._kept.set()

    def _take_over(self) -> None:
        self._looked = time.monotonic()
        segments = self._spool.take_over()
        if segments:
            _LOG.info("%d files of rows that another process left are taken over", len(segments))
        for segment in segments:
            lines = segment.read_bytes()
            self._count_kept(lines.count(b"\n"), len(lines))

    def _carry(self) -> None:
        pause = self._every
        while True:
            last = self._all_kept.is_set()
            self._kept.clear()
            try:
                if time.monotonic() - self._looked > LOOK_SECONDS:
                    self._take_over()
                for segment in self._spool.segments():
                    self._carry_one(segment)
                self._tell(False, "")
                pause = self._every
            except (StoreDown, OSError) as error:
                self._tell(True, str(error))
                pause = min(2 * pause, LONGEST_PAUSE)
            if last:
                return
            self._all_kept.wait(pause) if self.down else self._kept.wait(LOOK_SECONDS)

    def _tell(self, down: bool, why: str) -> None:
        if down and not self.down:
            _LOG.warning("predictions wait on disk: %s", why)
        elif self.down and not down:
            _LOG.info("the prediction store answers again")
        self.down = down

    def _carry_one(self, segment: Path) -> None:
        if time.monotonic() > self._deadline:
            return
        size, carried = segment.stat().st_size, self._store.write_segment(segment)
        for why in carried.reasons:
            _LOG.error("a row is put aside: %s", why)
        if aside := carried.aside:
            self._lose(len(aside), f"rows that the store will not take, kept in {self._spool.refuse(aside)}")
        segment.unlink()
        with self._counting:
            self.written += carried.written
            self._carried += carried.written + len(aside)
            self._bytes -= size

    def close(self, timeout: float = 10.0) -> None:
        """Keep every row and write what the store takes within ``timeout`` seconds; the rest waits for the next start."""
        self._deadline = time.monotonic() + timeout
        self._stop.set()
        self._full.set()
        for thread in self._threads:
            thread.join(timeout + 15)  # a database that went silent holds its thread that long
        self._empty_memory()
        if self._waiting:
            self._lose(len(self._waiting), "the spool did not take what waited in memory")
        self._spool.close()

    def __enter__(self) -> "PredictionLog":
        """Return the log itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()


# --- The prediction store in a process of its own: writing a row costs more than answering it, and would do so in the requests' time.

BEHIND = 5  # niceness: requests come first, rows wait on disk meanwhile; ahead of the follower's
_STORES: dict[str, Store] = {}


def _open(address: str) -> None:
    """Open the store in the process that is to hold it."""
    os.nice(BEHIND)
    _STORES[address] = open_store(address)


def _write(address: str, segment: Path) -> Carried:
    """Write in that process."""
    return _STORES[address].write_segment(segment)


def _new_pool(address: str) -> ProcessPoolExecutor:
    """Return a process that is being started at once: at the end, when rows must be written, there is no time for it."""
    pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), end_only_with_parent)
    pool.submit(_open, address)
    return pool


class StoreProcess:
    """Writes as ``Store`` does, and raises what it raises; a process that ended counts as a store that is down."""

    def __init__(self, address: str) -> None:
        open_store(address).close()  # a malformed address is an error here and now
        self._address = address
        self._pool: ProcessPoolExecutor | None = _new_pool(address)

    def write_segment(self, segment: Path) -> Carried:
        """Keep the rows of a segment; see ``Store.write_segment``."""
        if self._pool is None:
            self._pool = _new_pool(self._address)
        try:
            return self._pool.submit(_write, self._address, segment).result()
        except BrokenProcessPool as error:
            self._pool = None
            raise StoreDown("the process that writes predictions ended; it is started again") from error

    def close(self) -> None:
        """End the process."""
        if self._pool:
            self._pool.shutdown()
