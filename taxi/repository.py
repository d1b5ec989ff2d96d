"""The repository as facts: its files, workflows, deployments, commands, and the names of its tests, read without running any."""

import ast
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml


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
        """Names of tests by file, ``test_serving`` and so on."""
        return {path.stem: _names_of_tests(path) for path in sorted((self.root / "tests").glob("test_*.py"))}

    def tests_about(self, *words: str) -> list[str]:
        """Return the names of tests that have one of the words in them."""
        return [name for names in self.tests.values() for name in names if any(word in name for word in words)]

    @cached_property
    def workflows(self) -> dict[str, dict[str, Any]]:
        """Parsed workflows by file name."""
        files = sorted((self.root / ".github" / "workflows").glob("*.yml"))
        return {path.name: yaml.safe_load(path.read_text(encoding="utf-8")) or {} for path in files}

    def events(self, workflow: str) -> set[str]:
        """Return what starts a workflow; YAML reads the key ``on`` as true."""
        parsed: dict[Any, Any] = self.workflows[workflow]
        return set(parsed.get(True) or parsed.get("on") or {})

    def steps(self, workflow: str) -> list[str]:
        """Return what the steps of a workflow run; of a script of the repository what that runs."""
        jobs = self.workflows[workflow].get("jobs", {}).values()
        lines = [str(step.get("run", "")) for job in jobs for step in job.get("steps", [])]
        scripts = [self.text(word) for line in lines for word in line.split() if (self.root / word).is_file()]
        return [line for text in [*lines, *scripts] for line in text.splitlines() if line.strip()]

    @cached_property
    def prefect(self) -> dict[str, Any]:
        """What prefect.yaml declares."""
        return dict(yaml.safe_load(self.text("prefect.yaml") or "{}") or {})

    @property
    def deployments(self) -> list[dict[str, Any]]:
        """Deployments that prefect.yaml declares."""
        return list(self.prefect.get("deployments", []))
