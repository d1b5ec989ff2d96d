"""The prediction store in a process of its own: writing a row costs more than answering it, and would do so in the requests' time."""

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from taxi.lifelines import end_only_with_parent
from taxi.predictions import Carried, Store, StoreDown, open_store

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
