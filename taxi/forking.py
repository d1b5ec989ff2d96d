"""One process that has the packages imported, from which others are forked: imports are paid once, not once a process."""

import atexit
import multiprocessing
import os
from multiprocessing import forkserver

import psutil

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
