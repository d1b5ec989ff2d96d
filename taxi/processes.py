"""Which process started what: a mark that children inherit and flow runs carry, so that what outlived its process can be told."""

import logging
import os
import socket
import tempfile
from pathlib import Path

import psutil

PARENT_MARK = "TAXI_PARENT"
SOCKETS = "taxi-kernel-"  # begins the name of a folder of sockets in the system's temporary folder; its owner's number follows
_LOG = logging.getLogger(__name__)


def mark_of(process: psutil.Process | None = None) -> str:
    """Return a process's mark, by default this one's: its number and when it began, since numbers are used again."""
    process = process or psutil.Process()
    return f"{process.pid}:{process.create_time():.2f}"


def lives(mark: str) -> bool:
    """Say whether the process of that mark lives; one that ended and was not waited for does not."""
    try:
        process = psutil.Process(int(mark.split(":")[0]))
        return mark_of(process) == mark and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def machine_mark() -> str:
    """Return this process's mark with its machine's name, as flow runs carry it."""
    return f"{socket.gethostname()}/{mark_of()}"


def lives_here(mark: str) -> bool | None:
    """Say whether the process of a ``machine_mark`` lives; None where that is another machine's to know."""
    machine, _, process = mark.rpartition("/")
    return lives(process) if machine == socket.gethostname() else None


def orphans() -> list[psutil.Process]:
    """Return kernels and embedded servers whose `taxi` process no longer lives."""
    found = []
    for process in psutil.process_iter():
        try:
            mark = process.environ().get(PARENT_MARK)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        if mark and process.pid != os.getpid() and not lives(mark):
            found.append(process)
    return found


def end_orphans() -> list[int]:
    """End the orphans and wait until they are gone; return their process ids."""
    ended = []
    for process in orphans():
        try:
            process.kill()
            ended.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    psutil.wait_procs(ended, timeout=5)
    if ended:
        _LOG.warning("ended %d processes that a killed run had left: %s", len(ended), [one.pid for one in ended])
    return [one.pid for one in ended]


def left_sockets() -> list[Path]:
    """Return the folders of kernels' sockets whose process no longer lives."""
    found = Path(tempfile.gettempdir()).glob(f"{SOCKETS}[0-9]*-*")
    return [path for path in found if not psutil.pid_exists(int(path.name.removeprefix(SOCKETS).split("-")[0]))]
