"""The server's processes: workers that share a socket, and the follower beside them; each is started again if it ends."""

import logging
import signal
import sys
import threading
import time
from collections.abc import Callable
from importlib import import_module
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any

from taxi.config import Settings
from taxi.errors import TaxiError, UsageError
from taxi.processes import FORKING, end_with_parent
from taxi.serving.metrics import forget_process
from taxi.serving.middleware import Keys, require_keys
from taxi.serving.server import listen

_LOG = logging.getLogger(__name__)
WRONG = 2
LONGEST_PAUSE = 30.0
SOON_SECONDS = 10.0
MOST_FAILURES = 3


def _begin(prepare: Callable[[], None], body: str, *arguments: Any) -> None:
    """The first thing that a started process does; ``body`` is named, so that the supervisor need not import it."""
    prepare()
    end_with_parent()
    module, _, function = body.partition(":")
    try:
        getattr(import_module(module), function)(*arguments)
    except UsageError as error:
        _LOG.error("%s", error)
        sys.exit(WRONG)


class Supervised:
    """A process that is started again when it ends.

    With ``most_failures`` it is ``failed`` after ending so often within ten seconds of its start; without, pauses grow to half a minute.
    """

    def __init__(
        self, name: str, most_failures: int | None, prepare: Callable[[], None], body: str, *arguments: Any
    ) -> None:
        self.name, self.failed, self._most_failures = name, False, most_failures
        self.exitcode: int | None = None
        self._arguments = (prepare, body, *arguments)
        self._stop = threading.Event()
        self._process: BaseProcess | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        failures = 0
        while not self._stop.is_set() and (self._most_failures is None or failures < self._most_failures):
            began = time.monotonic()
            process = FORKING.Process(target=_begin, args=self._arguments)
            process.start()
            self._process = process
            if self._stop.is_set():
                process.terminate()
            process.join()
            forget_process(process.pid or 0)
            failures = failures + 1 if time.monotonic() - began < SOON_SECONDS else 0
            self.exitcode = process.exitcode
            if process.exitcode == WRONG and self._most_failures:
                break
            if not self._stop.wait(min(LONGEST_PAUSE, 2.0**failures)):
                _LOG.warning("the %s ended with %s", self.name, process.exitcode)
        self.failed = not self._stop.is_set()

    def stop(self) -> None:
        """Ask the process to end; it is not started again."""
        self._stop.set()
        if self._process and self._process.is_alive():
            self._process.terminate()

    def join(self, seconds: float) -> None:
        """Wait for the end; kill what has not ended after ``seconds``."""
        self._thread.join(seconds)
        if self._process and self._process.is_alive():
            _LOG.error("the %s did not end within %g s and is killed", self.name, seconds)
            self._process.kill()
            self._thread.join()


def _wait(workers: list[Supervised]) -> None:
    """Wait for SIGTERM or SIGINT, or until no worker can be started."""
    asked = threading.Event()

    def ask(number: int, frame: FrameType | None) -> None:
        asked.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, ask)
    while not asked.wait(0.5):
        if any(worker.failed and worker.exitcode == WRONG for worker in workers):
            raise UsageError("the workers cannot start like this; the log says why")
        if any(worker.failed for worker in workers):
            raise TaxiError("a worker ended again and again right after its start; the log says why")


def serve(
    settings: Settings, service: str, address: tuple[str, int], workers: int, keys: Keys, prepare: Callable[[], None]
) -> None:
    """Serve until SIGTERM or SIGINT at ``address`` (host, port); raise UsageError for an open address without keys.

    ``prepare`` is called first in every process.
    """
    listening = listen(*address)
    host, port = listening.getsockname()[:2]
    require_keys(host, keys)
    _LOG.info("%s is served on http://%s:%d by %d worker(s)", service, host, port, workers)
    follower = Supervised("follower", None, prepare, "taxi.serving.follower:follow", settings, service)
    several = [
        Supervised(
            f"worker {number + 1}",
            MOST_FAILURES,
            prepare,
            "taxi.serving.server:run_worker",
            settings,
            service,
            listening,
        )
        for number in range(workers)
    ]
    try:
        _wait(several)
    finally:
        listening.close()  # or connections would be made that no worker accepts any more
        for worker in several:
            worker.stop()
        for worker in several:
            worker.join(60)
        follower.stop()
        follower.join(10)
