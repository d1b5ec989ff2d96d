"""Supervisor of a server's processes: workers that share a socket, the follower, the log's writer; what ends or hangs is replaced."""

import ctypes
import faulthandler
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import import_module
from multiprocessing.process import BaseProcess
from typing import Any

from taxi.config import Settings
from taxi.errors import TaxiError, UsageError
from taxi.predictions.spool import Spool
from taxi.predictions.store import open_store
from taxi.processes import FORKING, end_with_parent
from taxi.serving.api_keys import ApiKeys, require_keys
from taxi.serving.metrics import forget_process
from taxi.serving.server import listen

_LOG = logging.getLogger(__name__)
WRONG = 2
LOOK_SECONDS = 0.2
LONGEST_PAUSE = 30.0
SOON_SECONDS = 10.0
MOST_FAILURES = 3
SILENT_SECONDS = 8.0  # a process that has beaten before and no longer does hangs
START_SECONDS = 60.0  # until its first beat
SHOW_STACKS = signal.SIGUSR2


def _begin(prepare: Callable[[], None], body: str, *arguments: Any) -> None:
    """The first thing that a started process does; ``body`` is named, so that the supervisor need not import it."""
    prepare()
    faulthandler.register(SHOW_STACKS)
    end_with_parent()
    module, _, function = body.partition(":")
    try:
        getattr(import_module(module), function)(*arguments)
    except UsageError as error:
        _LOG.error("%s", error)
        sys.exit(WRONG)


class Supervised:
    """A process that is started again when it ends, and killed when it hangs: when its heartbeat ``pulse`` no longer rises.

    It is told in ``last_exit`` how the one before it ended: 0 for the first, a signal's number below 0.

    With ``most_failures``, ``look`` raises after so many ends within ten seconds of a start; without, pauses grow to half a minute.
    """

    def __init__(
        self,
        name: str,
        prepare: Callable[[], None],
        body: str,
        *arguments: Any,
        pulse: ctypes.c_ulong | None = None,
        last_exit: ctypes.c_long | None = None,
        most_failures: int | None = None,
    ) -> None:
        self.name, self._pulse, self._most_failures, self._last_exit = name, pulse, most_failures, last_exit
        self._arguments = (prepare, body, *arguments, *(one for one in (pulse, last_exit) if one is not None))
        self._process: BaseProcess | None = None
        self._began, self._due, self._failures = 0.0, 0.0, 0
        self._beats, self._silent = 0, 0.0

    def look(self) -> None:
        """Start the process when that is due, note its end, kill it where it hangs."""
        if self._process is None:
            if time.monotonic() >= self._due:
                self._start()
        elif self._process.exitcode is not None:
            self._note_end(self._process.exitcode)
        elif self._pulse is not None and self._hangs(self._pulse.value):
            self._kill(f"hangs: no heartbeat for {self._silent:.0f} s")

    def _start(self) -> None:
        if self._pulse is not None:
            self._pulse.value = 0
        self._began, self._beats, self._silent = time.monotonic(), 0, 0.0
        process = FORKING.Process(target=_begin, args=self._arguments)
        try:
            process.start()
        except (OSError, EOFError) as error:  # what it is forked from was killed this moment
            _LOG.warning("the %s cannot be started yet: %r", self.name, error)
        else:
            self._process = process

    def _note_end(self, code: int) -> None:
        self._forget()
        if self._last_exit is not None:
            self._last_exit.value = code
        self._failures = self._failures + 1 if time.monotonic() - self._began < SOON_SECONDS else 0
        self._due = time.monotonic() + min(LONGEST_PAUSE, 2.0**self._failures)
        if self._most_failures and code == WRONG:
            raise UsageError(f"the {self.name} cannot start like this; the log says why")
        if self._failures == self._most_failures:
            raise TaxiError(f"the {self.name} ended again and again right after its start; the log says why")
        _LOG.warning("the %s ended with %s", self.name, code)

    def _forget(self) -> None:
        if self._process:
            forget_process(self._process.pid or 0)
        self._process = None

    def _hangs(self, beats: int) -> bool:
        """Count looks, not the clock: a machine or a terminal that stopped all processes did not make one hang."""
        self._silent = self._silent + LOOK_SECONDS if beats == self._beats else 0.0
        self._beats = beats
        return self._silent > (SILENT_SECONDS if beats else START_SECONDS)

    def _kill(self, why: str) -> None:
        assert self._process
        _LOG.error("the %s %s; it is killed, and stood here:", self.name, why)
        with suppress(ProcessLookupError):
            os.kill(self._process.pid or 0, SHOW_STACKS)  # one that was stopped does not hear it
        self._process.join(LOOK_SECONDS)
        self._process.kill()
        self._process.join()

    def stop(self) -> None:
        """Ask the process to end."""
        if self._process:
            self._process.terminate()

    def join(self, seconds: float) -> None:
        """Wait for the end; kill what has not ended after ``seconds``."""
        if self._process:
            self._process.join(seconds)
            if self._process.exitcode is None:
                self._kill(f"did not end within {seconds:g} s")
        self._forget()


def _supervise(processes: Sequence[Supervised]) -> None:
    """Look after the processes until SIGTERM or SIGINT, or until no worker can be started."""
    asked = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: asked.set())
    while not asked.wait(LOOK_SECONDS):
        for process in processes:
            process.look()


def serve(
    settings: Settings,
    service: str,
    address: tuple[str, int, int | None],
    workers: int,
    keys: ApiKeys,
    prepare: Callable[[], None],
) -> None:
    """Serve until SIGTERM or SIGINT at ``address`` (host, port, and the descriptor of a socket to be used instead).

    Raises UsageError for an open address without keys. ``prepare`` is called first in every process.
    """
    listening = listen(*address)
    host, port = listening.getsockname()[:2]
    require_keys(host, keys, settings.proxies)
    open_store(settings.predictions).close()  # a malformed address is an error here and now
    _LOG.info("%s is served on http://%s:%d by %d worker(s)", service, host, port, workers)
    spool, (ended, adding) = Spool(settings.spool), FORKING.Pipe(duplex=False)
    folder = spool.make_folder()
    last_exit = FORKING.RawValue(ctypes.c_long)
    follower = Supervised("follower", prepare, "taxi.serving.follower:follow", settings, service, last_exit=last_exit)
    writer = Supervised("writer", prepare, "taxi.serving.log_writer:write_log", settings, folder, ended)
    body, given = "taxi.serving.server:run_worker", (settings, service, listening, folder, adding)
    several = [
        Supervised(
            f"worker {number + 1}",
            prepare,
            body,
            *given,
            pulse=FORKING.RawValue(ctypes.c_ulong),
            most_failures=MOST_FAILURES,
        )
        for number in range(workers)
    ]
    try:
        _supervise([follower, writer, *several])
    finally:
        listening.close()  # or connections would be made that no worker accepts any more
        for worker in several:
            worker.stop()
        for worker in several:
            worker.join(60)
        adding.close()  # the last end of it: the writer writes what there is, and ends
        writer.join(30)
        follower.stop()
        follower.join(10)
        spool.close()
