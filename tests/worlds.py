"""Places of their own for whole runs of the command line, each in a process of its own."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


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
        process = self.start(*words)
        out, err = process.communicate()
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def answer(self, *words: str) -> tuple[int, dict[str, Any]]:
        done = self.taxi(*words, "--json")
        assert done.stdout, done.stderr
        return done.returncode, json.loads(done.stdout.splitlines()[-1])

    def month(self, month: str, *words: str) -> tuple[int, dict[str, Any]]:
        return self.answer("run", "--service", "green", "--month", month, "--no-version", *words)
