"""A prediction log with its carrier in one process; a service has them in two."""

from pathlib import Path
from threading import Event, Thread
from typing import Any

from taxi.predictions.log import Carrier, PredictionLog
from taxi.predictions.spool import Spool
from taxi.predictions.store import Store


class CarriedLog:
    """Takes rows to a folder of ``spool`` and carries them into ``store``; use as a context, or ``close`` it."""

    def __init__(self, store: Store, spool: Path, every: float = 0.2, **limits: int) -> None:
        self._holding, self._carrying = Spool(spool), Spool(spool)
        folder = self._holding.make_folder()
        self.log, self.carrier = PredictionLog(folder, every, **limits), Carrier(store, self._carrying, folder)
        self.put, self.put_outcome = self.log.put, self.log.put_outcome
        self._ended = Event()
        self._thread = Thread(target=self.carrier.run, args=(self._ended.wait, min(every, 0.2)), daemon=True)
        self._thread.start()

    @property
    def in_memory(self) -> int:
        return self.log.in_memory

    @property
    def queued(self) -> int:
        return self.log.in_memory + self.carrier.queued

    @property
    def written(self) -> int:
        return self.carrier.written

    @property
    def lost(self) -> int:
        return self.log.lost + self.carrier.lost

    @property
    def down(self) -> bool:
        return self.carrier.down

    def close(self) -> None:
        self.log.close()
        self._ended.set()
        self._thread.join()
        self._carrying.close()
        self._holding.close()

    def __enter__(self) -> "CarriedLog":
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()
