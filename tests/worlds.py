"""Places of their own for whole runs of the command line, each in a process of its own."""

import atexit
import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from taxi.forking import FORKING
from taxi.kernels import warm_up

ROOT = Path(__file__).resolve().parents[1]
IMPORTED = (
    "pipelines.cli",
    "taxi.recording",
    "taxi.month",
    "taxi.registry",
)  # not Prefect, which reads its settings then


def _run(words: tuple[str, ...], environment: dict[str, str], folder: Path, out: Path, err: Path) -> None:
    """Be ``taxi`` with its imports behind it: in ``folder``, in this environment alone, writing to these files."""
    for number, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv = ["taxi", *words]
    try:
        import_module("pipelines.cli").main()
    finally:
        atexit._run_exitfuncs()  # a forked process ends without
        sys.stdout.flush()


@dataclass(frozen=True)
class World:
    """A sample source, and places for what runs make of it; ``more`` replaces or adds to the environment, ``root`` is the checkout."""

    place: Path
    more: dict[str, str] = field(default_factory=dict)
    root: Path = ROOT

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

    def taxi(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, in a process forked from one that has the imports behind it: they take longer than most runs."""
        warm_up(*IMPORTED)
        with TemporaryDirectory() as folder:
            out, err = (Path(folder) / name for name in ("out", "err"))
            given = words, self.environment, self.root, out, err
            process = FORKING.Process(target=_run, args=given)
            process.start()
            process.join()
            return subprocess.CompletedProcess(words, process.exitcode or 0, out.read_text(), err.read_text())

    def answer(self, *words: str) -> tuple[int, dict[str, Any]]:
        done = self.taxi(*words, "--json")
        assert done.stdout, done.stderr
        return done.returncode, json.loads(done.stdout.splitlines()[-1])

    def month(self, month: str, *words: str) -> tuple[int, dict[str, Any]]:
        return self.answer("run", "--service", "green", "--month", month, "--no-version", *words)
