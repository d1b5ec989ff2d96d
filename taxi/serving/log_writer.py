"""Writer of the prediction log: the one process of a service that carries its workers' predictions from the spool into the store.

It is a process of its own because writing a row costs more CPU than answering it, and would do so in the requests' time.
"""

import os
import signal
from multiprocessing.connection import Connection
from pathlib import Path

from taxi.config import Settings
from taxi.predictions.log import Carrier
from taxi.predictions.spool import Spool
from taxi.predictions.store import open_store
from taxi.processes import QUIET
from taxi.serving.metrics import LOST, QUEUED

BEHIND = 5  # niceness: requests come first, rows wait on disk meanwhile; ahead of the follower's


def write_log(settings: Settings, folder: Path, adding: Connection) -> None:
    """Write until the other end of ``adding`` is closed in every process that had it: the body of the writer's process.

    Where the process that it was forked from is gone, another writer takes its place.
    """
    os.nice(BEHIND)
    parent = os.getppid()
    for number in QUIET:  # a terminal or a service manager sends them to every process, while workers still answer
        signal.signal(number, signal.SIG_IGN)
    spool = Spool(settings.spool)
    carrier = Carrier(open_store(settings.predictions), spool, folder)

    def ended(seconds: float) -> bool:
        QUEUED.set(carrier.queued)
        LOST.set(carrier.lost)
        return adding.poll(seconds) or os.getppid() != parent

    carrier.run(ended)
    spool.close()
