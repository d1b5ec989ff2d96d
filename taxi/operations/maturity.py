"""Maturity model of machine learning operations: each cell's needs (``maturity.yaml``) held against the repository."""

import ast
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from taxi.files import read_yaml

# --- The repository as facts: its files, workflows, deployments, commands, and the names of its tests, read without running any.


def _names_of_tests(path: Path) -> list[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")]


@dataclass(frozen=True)
class Repository:
    """A checkout and the names of the commands that it registers."""

    root: Path
    commands: frozenset[str]

    def missing(self, *paths: str) -> list[str]:
        """Return those of the paths (or patterns) that name nothing here."""
        return [path for path in paths if not any(self.root.glob(path))]

    def text(self, path: str) -> str:
        """Return a file's text; empty where it is not there."""
        file = self.root / path
        return file.read_text(encoding="utf-8") if file.is_file() else ""

    @cached_property
    def tests(self) -> dict[str, list[str]]:
        """Names of tests by file, ``serving/test_app`` and so on."""
        return {
            f"{path.parent.name}/{path.stem}": _names_of_tests(path)
            for path in sorted((self.root / "tests").glob("*/test_*.py"))
        }

    @cached_property
    def workflows(self) -> dict[str, dict[str, Any]]:
        """Parsed workflows by file name."""
        files = sorted((self.root / ".github" / "workflows").glob("*.yml"))
        return {path.name: read_yaml(path) or {} for path in files}

    def events(self, workflow: str) -> set[str]:
        """Return what starts a workflow; YAML reads the key ``on`` as true."""
        parsed: dict[Any, Any] = self.workflows[workflow]
        return set(parsed.get(True) or parsed.get("on") or {})

    def _is_script(self, word: str) -> bool:
        file = self.root / word
        if Path(word).is_absolute() or not file.is_file():
            return False
        with file.open("rb") as stream:
            return b"\0" not in stream.read(1024)  # an interpreter is no script

    def steps(self, workflow: str) -> list[str]:
        """Return what the steps of a workflow run; of a script of the repository what that runs."""
        jobs = self.workflows[workflow].get("jobs", {}).values()
        lines = [str(step.get("run", "")) for job in jobs for step in job.get("steps", [])]
        scripts = [self.text(word) for line in lines for word in line.split() if self._is_script(word)]
        return [line for text in [*lines, *scripts] for line in text.splitlines() if line.strip()]


# --- What proves a cell, and what is missing.

AREAS = ("people", "model creation", "model release", "application integration")
LEVELS = {
    1: "DevOps, no MLOps",
    2: "Automated training",
    3: "Automated model deployment",
    4: "Full MLOps, automated operations",
}


@dataclass(frozen=True)
class Need:
    """One thing that a cell asks for; ``proof`` shows it, or ``missing`` says what is not there.

    ``run`` says what came of executing the proof; empty where none can be executed.
    """

    asks: str
    proof: str = ""
    missing: str = ""
    run: str = ""

    @property
    def met(self) -> bool:
        """Whether there is proof, and nothing is missing."""
        return bool(self.proof) and not self.missing


@dataclass(frozen=True)
class Cell:
    """One cell of the model, judged."""

    level: int
    area: str
    needs: list[Need]

    @property
    def met(self) -> bool:
        """Whether everything is proved that the cell asks for."""
        return bool(self.needs) and all(need.met for need in self.needs)


def level_reached(cells: Sequence[Cell]) -> int:
    """Return the highest level all of whose cells, and all of those below, are met; 0 if the first is not."""
    reached = 0
    for level in LEVELS:
        if not all(cell.met for cell in cells if cell.level == level):
            return reached
        reached = level
    return reached


def maturity_answer(cells: Sequence[Cell]) -> dict[str, Any]:
    """Return what ``taxi maturity --json`` prints."""
    listed = [
        {"level": cell.level, "area": cell.area, "met": cell.met, "needs": [asdict(need) for need in cell.needs]}
        for cell in cells
    ]
    return {"level": level_reached(cells), "cells": listed}


# --- The kinds of check: each returns its proof and what is missing, one of which is empty.

Looked = tuple[str, str]
SECONDS = 1800  # for one proof that is executed


def read_model() -> dict[str, Any]:
    """Read the table of cells and needs."""
    return dict(yaml.safe_load(Path(__file__).with_name("maturity.yaml").read_text(encoding="utf-8")))


def _files(repository: Repository, paths: Sequence[str]) -> Looked:
    missing = repository.missing(*paths)
    return ("", f"no {', no '.join(missing)}") if missing else (", ".join(paths), "")


def _tests(repository: Repository, files: Sequence[str]) -> Looked:
    counts = {file: len(repository.tests.get(file, [])) for file in files}
    if missing := [file for file, count in counts.items() if not count]:
        return "", f"no tests in {', '.join(missing)}"
    return ", ".join(f"{count} tests in {file}" for file, count in counts.items()), ""


def _commands(repository: Repository, names: Sequence[str]) -> Looked:
    if missing := [name for name in names if name not in repository.commands]:
        return "", f"no command {', no command '.join(missing)}"
    return ", ".join(f"`taxi {name}`" for name in names), ""


def _steps(repository: Repository, asked: Mapping[str, Sequence[str]]) -> Looked:
    starting = [name for name in repository.workflows if set(asked["events"]) <= repository.events(name)]
    lines = [(name, line) for name in starting for line in repository.steps(name)]
    if running := [f"{name}: {line.strip()}" for name, line in lines if any(word in line for word in asked["run"])]:
        return running[0], ""
    when = f" on {' and '.join(asked['events'])}" if asked["events"] else ""
    there = ", ".join(repository.workflows) or "none"
    return "", f"no workflow in .github/workflows runs {' or '.join(asked['run'])}{when} (there are: {there})"


def _declares(repository: Repository, asked: Mapping[str, str]) -> Looked:
    quantity, key = next((word, asked[word]) for word in ("any", "every") if word in asked)
    document = yaml.safe_load(repository.text(asked["file"])) or {}
    entries = document.get("deployments", [document])
    having = [str(entry.get("name", "")) for entry in entries if entry.get(key)]
    if not having or (quantity == "every" and len(having) < len(entries)):
        return "", f"{asked['file']}: {quantity} entry was to have {key}, {len(having)} of {len(entries)} have"
    return " ".join(["declared in", f"{asked['file']}:", key, ", ".join(having)]).strip(), ""


KINDS: dict[str, Callable[[Repository, Any], Looked]] = {
    "files": _files,
    "tests": _tests,
    "commands": _commands,
    "steps": _steps,
    "declares": _declares,
}


def run_proof(root: Path, command: str) -> Looked:
    """Execute a proof, ``python …`` or ``taxi …``, in the checkout by this interpreter; return the time it took, or why it failed."""
    programs = {"python": [sys.executable], "taxi": [sys.executable, "-m", "pipelines.cli"]}
    program, *words = shlex.split(command)
    begun = time.monotonic()
    try:
        done = subprocess.run(
            [*programs[program], *words], cwd=root, capture_output=True, text=True, check=False, timeout=SECONDS
        )
    except subprocess.TimeoutExpired:
        return "", f"`{command}` took more than {SECONDS} s"
    if done.returncode:
        last = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()][-1:]
        return "", f"`{command}` failed with exit {done.returncode}: {' '.join(last)}"
    return f"`{command}` passed in {time.monotonic() - begun:.1f} s", ""


def judge_need(repository: Repository, asked: Mapping[str, Any], run: bool = False) -> Need:
    """Look for everything that a need lists; with ``run`` execute its proof too, if nothing is missing."""
    looked = [KINDS[kind](repository, what) for kind, what in asked.items() if kind not in ("asks", "runs")]
    proof, missing = ("; ".join(filter(None, said)) for said in zip(*looked, strict=True))
    command = asked.get("runs")
    if not command or missing or not run:
        return Need(asked["asks"], proof, missing, f"not run: `{command}`" if command else "")
    passed, failed = run_proof(repository.root, command)
    return Need(asked["asks"], proof, failed, passed or failed)


def judge(repository: Repository, model: Mapping[str, Any], run: Collection[int] = ()) -> list[Cell]:
    """Return every cell judged, as ``maturity.yaml`` lists them; the proofs of the levels in ``run`` are executed."""
    executed = {name for cell in model["cells"] if cell["level"] in run for name in cell["needs"]}
    needs = {name: judge_need(repository, asked, name in executed) for name, asked in model["needs"].items()}
    return [Cell(cell["level"], cell["area"], [needs[name] for name in cell["needs"]]) for cell in model["cells"]]
