"""Processes that do not outlive the one that started them, however that one ends."""

import multiprocessing
import os
import signal
import threading

QUIET = (signal.SIGINT, signal.SIGTERM)


def end_with_parent(by: signal.Signals = signal.SIGTERM) -> None:
    """Send ``by`` to this process (started by multiprocessing) as soon as its parent is gone."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os.kill(os.getpid(), by)

    threading.Thread(target=watch, name="lifeline", daemon=True).start()


def end_only_with_parent() -> None:
    """Ignore SIGINT and SIGTERM, which a terminal or a service manager sends to every process; end with the parent."""
    for one in QUIET:
        signal.signal(one, signal.SIG_IGN)
    end_with_parent(signal.SIGKILL)
