"""Processes: which one started what (a mark that children inherit), orphans, and forking from one that has the imports behind it."""

import atexit
import logging
import multiprocessing
import os
import re
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from multiprocessing import forkserver
from pathlib import Path

import psutil

from taxi.files import owner_lives, owner_mark, pid_namespace

PARENT_MARK, DATA = (
    "TAXI_PARENT",
    "TAXI_DATA",
)  # what a child's environment says: who started it, and for which installation
SOCKETS = "taxi-kernel-"  # begins the name of a folder of sockets in the system's temporary folder; its owner follows
_MARK = re.compile(r"\d+:[\d.]+")
_LOG = logging.getLogger(__name__)


def mark_of(process: psutil.Process | None = None) -> str:
    """Return a process's mark, by default this one's: its number and when it began, since numbers are used again.

    When: in seconds since the machine's start, which a step of the clock does not change.
    """
    process = process or psutil.Process()
    return f"{process.pid}:{process.create_time() - psutil.boot_time():.2f}"


def lives(mark: str) -> bool:
    """Say whether the process of that mark lives; one that ended and was not waited for does not."""
    try:
        process = psutil.Process(int(mark.split(":")[0]))
        older = f"{process.pid}:{process.create_time():.2f}"  # of a run that an update of taxi came upon
        return mark in (mark_of(process), older) and process.status() != psutil.STATUS_ZOMBIE
    except (ValueError, psutil.NoSuchProcess):
        return False


def machine_mark() -> str:
    """Return this process's mark with its machine's name and its PID namespace, as flow runs carry it."""
    return f"{socket.gethostname()}/{mark_of()}@{pid_namespace()}"


def lives_here(mark: str) -> bool | None:
    """Say whether the process of a ``machine_mark`` lives; None where that is another machine's or container's to know."""
    machine, _, process = mark.rpartition("/")
    process, _, namespace = process.partition("@")
    return lives(process) if machine == socket.gethostname() and namespace in ("", pid_namespace()) else None


def orphans(data: Path) -> list[psutil.Process]:
    """Return the kernels and embedded servers of this installation whose `taxi` process no longer lives.

    ``data`` is the installation's TAXI_DATA. Processes of other installations, containers and users are none of ours.
    """
    return [process for process in psutil.process_iter() if process.pid != os.getpid() and _is_orphan(process, data)]


def _is_orphan(process: psutil.Process, data: Path) -> bool:
    try:
        environment = process.environ()
        parent = environment.get(PARENT_MARK, "")
        if not _MARK.fullmatch(parent) or pid_namespace(process.pid) != pid_namespace():
            return False
        return _is_same(process, environment.get(DATA, ""), data) and not lives(parent)
    except (psutil.Error, OSError):  # it ended meanwhile, or is another user's
        return False


def _is_same(process: psutil.Process, given: str, data: Path) -> bool:
    """Say whether the folder that the process was given is ``data``, whatever both are called where they are mounted."""
    root = Path(f"/proc/{process.pid}/root")
    return (root / given.lstrip("/")).samefile(data) if root.exists() and data.exists() else given == str(data)


def end_orphans(data: Path) -> list[int]:
    """End the orphans and wait until they are gone; return their process ids."""
    ended = []
    for process in orphans(data):
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            process.kill()
            ended.append(process)
    psutil.wait_procs(ended, timeout=5)
    if ended:
        _LOG.warning("ended %d processes that a killed run had left: %s", len(ended), [one.pid for one in ended])
    return [one.pid for one in ended]


def own_sockets() -> str:
    """Return how the name of a folder of this process's sockets begins."""
    return f"{SOCKETS}{owner_mark()}-"


def left_sockets() -> list[Path]:
    """Return this user's folders of kernels' sockets whose process no longer lives."""
    folders = Path(tempfile.gettempdir()).glob(f"{SOCKETS}[0-9]*-*")
    mine = [path for path in folders if os.access(path, os.W_OK)]
    return [path for path in mine if not owner_lives(path, path.name.removeprefix(SOCKETS))]


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
    return [child for child in psutil.Process().children() if _is_forkserver(child)]


def _is_forkserver(child: psutil.Process) -> bool:
    try:
        return "multiprocessing.forkserver" in " ".join(child.cmdline())
    except psutil.NoSuchProcess:  # it ended, and was or was not waited for
        return False


def _cool_down() -> None:
    """End the process that is forked from at once; by itself it takes seconds, and looks like an orphan meanwhile."""
    for child in warm_processes():
        with suppress(psutil.NoSuchProcess):
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


def run_with(command: Sequence[str], variables: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a program to its end with more variables in its environment; returns its status and what it said."""
    return subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, check=False)
