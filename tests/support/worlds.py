"""Places of their own for whole runs of the command line, each in a process of its own."""

import atexit
import json
import os
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from multiprocessing import forkserver, util
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from taxi.processes import FORKING
from taxi.runs.kernels import ForkedKernel, warm_up
from tests.support.databases import give_prefect_home, give_registry

ROOT = Path(__file__).resolve().parents[2]
IMPORTED = (
    "pipelines.cli",
    "taxi.operations.leftovers",
    "taxi.runs.mlflow_run",
    "taxi.runs.month_result",
    "taxi.registry.versions",
    "taxi.runs.dvc_snapshot",
    "taxi.monitoring.channels",
)  # neither Prefect nor what counts a service's requests: both read their settings then


def fork_what_more_is_forked_from(at_once: bool) -> None:
    """Let the command fork, from itself, the process that it forks kernels or workers from; by itself it would start one that imports all anew.

    A service's workers need the environment that it sets first; kernels are safe only if forked ``at_once``, before there are threads.
    """
    start = util.spawnv_passfds

    def fork(path: bytes, command: list[str], passed: list[int]) -> int:
        if "forkserver" not in command[-1]:
            return start(path, command, passed)
        util.spawnv_passfds = start  # a second one, where this one was killed, is a new interpreter
        if pid := os.fork():
            return pid
        forkserver._forkserver._lock = threading.Lock()  # the old one is held
        for number in {int(one.name) for one in Path("/proc/self/fd").iterdir()} - {0, 1, 2, *passed}:
            with suppress(OSError):
                os.close(number)
        try:
            exec(command[-1])
        finally:
            os._exit(0)

    util.spawnv_passfds = fork
    if at_once:
        warm_up(*IMPORTED)


def _run(words: tuple[str, ...], environment: dict[str, str], folder: Path, out: Path, err: Path) -> None:
    """Be ``taxi`` with its imports behind it: in ``folder``, in this environment alone, writing to these files."""
    os.setsid()  # a test may end it with all that it started
    for number, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644), number)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv = ["taxi", *words]
    fork_what_more_is_forked_from(at_once=words[0] != "serve")
    try:
        import_module("pipelines.cli").main()
    finally:
        atexit._run_exitfuncs()  # a forked process ends without
        sys.stdout.flush()


class Forked(ForkedKernel):
    """A forked command, as far as tests use ``subprocess.Popen``."""

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end and return the exit status."""
        self._process.join(timeout)
        if (code := self._process.exitcode) is None:
            raise subprocess.TimeoutExpired(self._process.name, timeout or 0)
        atexit.unregister(self.kill)
        return code


def fork_taxi(words: tuple[str, ...], environment: dict[str, str], folder: Path, out: Path, err: Path) -> Forked:
    """Start ``taxi`` forked from a process that has the imports behind it; what it writes is added to ``out`` and ``err``."""
    warm_up(*IMPORTED)
    return Forked(FORKING.Process(target=_run, args=(words, environment, folder, out, err)))


@dataclass(frozen=True)
class World:
    """A sample source, and places for what runs make of it; ``more`` replaces or adds to the environment, ``root`` is the checkout.

    Unless ``fresh``, it has empty databases already.
    """

    place: Path
    more: dict[str, str] = field(default_factory=dict)
    root: Path = ROOT
    fresh: bool = False

    def __post_init__(self) -> None:
        """Give it its databases."""
        if not self.fresh:
            give_registry(self.place)
            if not {"PREFECT_API_URL", "PREFECT_HOME"} & set(self.more):
                give_prefect_home(self.place / "prefect")

    @property
    def environment(self) -> dict[str, str]:
        places = {name: self.place / name.lower() for name in ("source", "data", "reports")}
        own = {f"TAXI_{name.upper()}": str(path) for name, path in places.items()}
        database = {"MLFLOW_TRACKING_URI": f"sqlite:///{self.place / 'mlflow.db'}"}
        return {**os.environ, **own, **database, "PREFECT_HOME": str(self.place / "prefect"), **self.more}

    def start(self, *words: str, **options: Any) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "pipelines.cli", *words]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(command, env=self.environment, cwd=self.root, **pipes, **options)

    def begin(self, folder: Path, *words: str) -> Forked:
        """Start a forked command; it writes ``out`` and ``err`` in ``folder``."""
        return fork_taxi(words, self.environment, self.root, folder / "out", folder / "err")

    def taxi(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, forked: imports take longer than most runs."""
        with TemporaryDirectory() as folder:
            code = self.begin(Path(folder), *words).wait()
            out, err = ((Path(folder) / name).read_text() for name in ("out", "err"))
            return subprocess.CompletedProcess(words, code, out, err)

    def answer(self, *words: str) -> tuple[int, dict[str, Any]]:
        done = self.taxi(*words, "--json")
        assert done.stdout, done.stderr
        return done.returncode, json.loads(done.stdout.splitlines()[-1])

    def month(self, month: str, *words: str) -> tuple[int, dict[str, Any]]:
        return self.answer("run", "--service", "green", "--month", month, "--no-version", *words)
