"""Which process started what: a mark that children inherit and flow runs carry, so that what outlived its process can be told."""

import atexit
import logging
import multiprocessing
import os
import signal
import socket
import tempfile
import threading
import time
from multiprocessing import forkserver
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


# --- One process that has the packages imported, from which others are forked: imports are paid once, not once a process.

ONE_THREAD = {
    "OPENBLAS_NUM_THREADS": "1",
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
}  # threads and forks do not mix
FORKING = multiprocessing.get_context("forkserver")


def import_before_forking(*modules: str) -> None:
    """Start the process that ``FORKING`` forks from, if there is none, and return at once; it imports ``modules`` meanwhile.

    A forked process imports the program's main module again: name what that imports, and it costs nothing.
    """
    FORKING.set_forkserver_preload(list(modules))
    own = {name: os.environ[name] for name in ONE_THREAD if name in os.environ}
    os.environ.update(ONE_THREAD)
    try:
        forkserver.ensure_running()
    finally:
        for name in ONE_THREAD:
            os.environ.pop(name)
        os.environ.update(own)
    atexit.unregister(_cool_down)
    atexit.register(_cool_down)


def warm_processes() -> list[psutil.Process]:
    """Return the process that this one forks from, if it runs."""
    mine = psutil.Process().children()
    return [child for child in mine if "multiprocessing.forkserver" in " ".join(child.cmdline())]


def _cool_down() -> None:
    """End the process that is forked from at once; by itself it takes seconds, and looks like an orphan meanwhile."""
    for child in warm_processes():
        child.kill()


# --- Processes that do not outlive the one that started them, however that one ends.

QUIET = (signal.SIGINT, signal.SIGTERM)
GRACE_SECONDS = 60.0


def end_with_parent(by: signal.Signals = signal.SIGTERM) -> None:
    """Send ``by`` to this process (started by multiprocessing) as soon as its parent is gone; a minute later, kill it."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os.kill(os.getpid(), by)
            time.sleep(GRACE_SECONDS)
            os.kill(os.getpid(), signal.SIGKILL)  # its main thread hangs

    threading.Thread(target=watch, name="lifeline", daemon=True).start()
