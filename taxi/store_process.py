"""The prediction store in a process of its own: writing a row costs more than answering it, and would do so in the requests' time."""

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from taxi.lifelines import end_only_with_parent
from taxi.predictions import Store, StoreDown, open_store

Rows = Sequence[dict[str, Any]]
_STORES: dict[str, Store] = {}


def _open(address: str) -> None:
    """Open the store in the process that is to hold it."""
    _STORES[address] = open_store(address)


def _write(address: str, table: str, rows: Rows) -> None:
    """Write in that process."""
    write: Callable[[Rows], None] = getattr(_STORES[address], f"write_{table}")
    write(rows)


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

    def write_predictions(self, rows: Rows) -> None:
        """Keep predictions; see ``Store.write_predictions``."""
        self._do("predictions", rows)

    def write_outcomes(self, rows: Rows) -> None:
        """Keep outcomes; see ``Store.write_outcomes``."""
        self._do("outcomes", rows)

    def _do(self, table: str, rows: Rows) -> None:
        if not rows:
            return
        if self._pool is None:
            self._pool = _new_pool(self._address)
        try:
            self._pool.submit(_write, self._address, table, rows).result()
        except BrokenProcessPool as error:
            self._pool = None
            raise StoreDown("the process that writes predictions ended; it is started again") from error

    def close(self) -> None:
        """End the process."""
        if self._pool:
            self._pool.shutdown()
