"""What the maturity model's cells ask for, each as a look at the repository that returns its proof or what is missing."""

import ast
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

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


# --- Microsoft's maturity model of machine learning operations, held against this repository: what proves a cell, what is missing.
#
# Source: https://learn.microsoft.com/azure/architecture/ai-ml/guide/mlops-maturity-model, levels 1 to 4, four areas each.

AREAS = ("people", "model creation", "model release", "application integration")
LEVELS = {
    1: "DevOps, no MLOps",
    2: "Automated training",
    3: "Automated model deployment",
    4: "Full MLOps, automated operations",
}


@dataclass(frozen=True)
class Need:
    """One thing that a cell asks for; ``proof`` shows it, or ``missing`` says what is not there."""

    asks: str
    proof: str = ""
    missing: str = ""

    @property
    def met(self) -> bool:
        """Whether there is proof, and nothing is missing."""
        return bool(self.proof) and not self.missing


Check = Callable[[Repository], list[Need]]


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


def judge(repository: Repository, checks: dict[tuple[int, str], Check]) -> list[Cell]:
    """Return every cell judged, by level and area."""
    return [Cell(level, area, checks[level, area](repository)) for level in LEVELS for area in AREAS]


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


DEPLOYS = ("taxi promote", "terraform apply", "docker push", "aws ecs", "kubectl apply", "prefect deploy")
HOSTS = "terraform/*.tf"


def _files(asks: str, repository: Repository, proof: str, *paths: str) -> Need:
    missing = repository.missing(*paths)
    return Need(asks, "" if missing else proof, f"no {', no '.join(missing)}" if missing else "")


def _commands(asks: str, repository: Repository, *names: str) -> Need:
    missing = [name for name in names if name not in repository.commands]
    proof = ", ".join(f"`taxi {name}`" for name in names)
    return Need(asks, "" if missing else proof, f"no command {', no '.join(missing)}" if missing else "")


def _tests(asks: str, repository: Repository, *files: str) -> Need:
    counts = {file: len(repository.tests.get(file, [])) for file in files}
    missing = [file for file, count in counts.items() if not count]
    proof = ", ".join(f"{count} tests in {file}" for file, count in counts.items())
    return Need(asks, "" if missing else proof, f"no tests in {', '.join(missing)}" if missing else "")


def _shown(asks: str, found: object, proof: str, missing: str) -> Need:
    return Need(asks, proof) if found else Need(asks, missing=missing)


def shared_repository(it: Repository) -> Need:
    """One repository for all roles, with its rules written down."""
    asks = (
        "whoever explores, engineers data or writes software hands work over through one repository with written rules"
    )
    return _files(asks, it, "CONTRIBUTING.md, README.md, docs/", "CONTRIBUTING.md", "README.md", "docs/*.md")


def repeatable_jobs(it: Repository) -> Need:
    """Experiments that are jobs."""
    asks = "data scientists and data engineers turn experiments into repeatable jobs"
    notebooks = sorted((it.root / "notebooks").glob("0*.ipynb"))
    need = _tests(asks, it, "runs/test_notebooks")
    return Need(
        asks, f"{len(notebooks)} notebooks are the flow's jobs; {need.proof}" if notebooks else "", need.missing
    )


def shared_data(it: Repository) -> Need:
    """Data contracts between those who bring data and those who use them."""
    asks = "data engineers manage inputs and outputs together with data scientists and software engineers"
    return _files(
        asks,
        it,
        "schema, acceptance rules and data card",
        "taxi/data/schema.py",
        "docs/acceptance.md",
        "docs/data-card.md",
    )


def integration_by_engineers(it: Repository) -> Need:
    """The model's way into the application is automatic."""
    asks = "software engineers automate how a model gets into the application"
    return _tests(asks, it, "serving/test_follower", "serving/test_swaps")


def markers(it: Repository) -> Need:
    """Rules that say when a model has to be looked at, each with what to do."""
    asks = "data scientists and software engineers name the markers that data engineers watch"
    return _files(
        asks, it, "alarm rules, and a runbook with a section each", "taxi/monitoring/alarm_rules.py", "docs/runbook.md"
    )


def gathered_in_production(it: Repository) -> Need:
    """Metrics of the deployed model, gathered in one place and shown."""
    asks = "metrics of the deployed model are gathered in one place and shown"
    need = _commands(asks, it, "metrics", "outcomes")
    shown = _files(
        asks, it, "dashboards", "monitoring/grafana/*.json", "taxi/predictions/log.py", "taxi/serving/metrics.py"
    )
    found = "; ".join(one.proof for one in (need, shown) if one.proof)
    return Need(asks, found, "; ".join(one.missing for one in (need, shown) if one.missing))


def data_gathered(it: Repository) -> Need:
    """Data that come by themselves."""
    asks = "a pipeline gathers the data by itself"
    scheduled = [one["name"] for one in it.deployments if one.get("schedules")]
    return _shown(asks, scheduled, f"scheduled in prefect.yaml: {', '.join(scheduled)}", "no deployment has a schedule")


def compute_managed(it: Repository) -> Need:
    """The environment in which models are trained."""
    asks = "the training environment is managed and can be made again"
    loose = [one["name"] for one in it.deployments if not one.get("work_pool")]
    need = _files(
        asks, it, "requirements.lock with hashes, work pools", "requirements.lock", "environment.yml", "dvc.yaml"
    )
    return Need(asks, need.proof, need.missing or (f"without a work pool: {', '.join(loose)}" if loose else ""))


def experiments_tracked(it: Repository) -> Need:
    """Results of experiments."""
    return _tests(
        "results of experiments and trainings are tracked in one place",
        it,
        "registry/test_versions",
        "models/test_search",
    )


def versions_controlled(it: Repository) -> Need:
    """Code and models."""
    asks = "training code and the models it made are under version control"
    need, tests = _commands(asks, it, "lineage"), _tests(asks, it, "registry/test_lineage", "runs/test_dvc_snapshot")
    missing = "; ".join(one.missing for one in (need, tests) if one.missing)
    return Need(asks, f"{need.proof} recomputes every hash; {tests.proof}" if not missing else "", missing)


def retraining_triggered(it: Repository) -> Need:
    """Alarms that start a training."""
    asks = "production metrics start a retraining by themselves"
    by_month = not it.missing("taxi/training/policy.py")
    by_event = [one["name"] for one in it.deployments if one.get("triggers")]
    missing = [] if by_month else ["no retraining policy (taxi/training/policy.py)"]
    missing += [] if by_event else ["no deployment in prefect.yaml has a trigger on an alarm's event"]
    proof = (
        f"started by events: {', '.join(by_event)}"
        if by_event
        else ("taxi/training/policy.py decides month by month" if by_month else "")
    )
    return Need(asks, proof, "; ".join(missing))


def scoring_versioned(it: Repository) -> Need:
    """Code that scores."""
    asks = "the scoring code is in the repository"
    return _commands(asks, it, "score", "serve")


def scoring_tested(it: Repository) -> Need:
    """Tests of the code that scores."""
    return _tests(
        "the scoring code is under version control with tests", it, "models/test_scoring", "serving/test_predictor"
    )


def released_by_hand(it: Repository) -> Need:
    """Releases by a person, of low friction."""
    return _commands("a release takes one command", it, "promote", "approve", "rollback")


def release_owned(it: Repository) -> Need:
    """Releases by those who answer for the software."""
    asks = "those who answer for the software manage releases"
    need = _tests(asks, it, "registry/test_release")
    return Need(
        asks,
        f"gates from dev to prod in params.yaml: {need.proof}" if "\nrelease:" in it.text("params.yaml") else "",
        need.missing,
    )


def released_automatically(it: Repository) -> Need:
    """Models that reach the application without a person."""
    asks = "a promoted model reaches the application by itself"
    return _tests(asks, it, "training/test_promotion", "serving/test_follower")


def _deploying(it: Repository) -> dict[str, list[str]]:
    found = {name: [line for line in it.steps(name) if any(word in line for word in DEPLOYS)] for name in it.workflows}
    return {name: lines for name, lines in found.items() if lines}


def released_by_cd(it: Repository) -> Need:
    """Continuous delivery."""
    asks = "a continuous delivery pipeline manages releases"
    deploying = _deploying(it)
    if not deploying:
        return Need(
            asks,
            missing=f"no workflow in .github/workflows releases anything (there are: {', '.join(it.workflows) or 'none'})",
        )
    return Need(asks, "; ".join(f"{name}: {lines[0].strip()}" for name, lines in deploying.items()))


def environments_managed(it: Repository) -> Need:
    """From training over test to production, as code."""
    return _files("training, test and production environments are made from code", it, HOSTS, HOSTS)


def integrated_and_tested(it: Repository) -> Need:
    """Continuous integration of what is released."""
    asks = "continuous integration builds and tests every change"
    on_change = [name for name in it.workflows if {"push", "pull_request"} <= it.events(name)]
    tested = [name for name in on_change if any("make test" in line for line in it.steps(name))]
    proof = f"{', '.join(tested)} runs `make test` on every change"
    return _shown(asks, tested, proof, "no workflow runs the tests on every change")


def model_tested(it: Repository) -> Need:
    """Tests of the model in the application."""
    return _tests("integration tests exist for the model", it, "models/test_model", "serving/test_app")


def application_tested(it: Repository) -> Need:
    """Unit tests of the application."""
    return _tests(
        "the application's code has unit tests",
        it,
        "serving/test_schemas",
        "serving/test_middleware",
        "serving/test_page",
    )


def application_integration_tested(it: Repository) -> Need:
    """Unit and integration tests of the application."""
    return _tests(
        "the application's code has unit and integration tests",
        it,
        "serving/test_app",
        "serving/test_outages",
        "predictions/test_log",
    )


def every_release_tested(it: Repository) -> Need:
    """Tests of each model that is released."""
    asks = "every model release is tested, against its own golden answers and by the gates"
    need = _tests(asks, it, "registry/test_integrity", "registry/test_release")
    return Need(
        asks, need.proof, need.missing or "; ".join(f"no {one}" for one in it.missing("taxi/registry/golden.py"))
    )


def compared_live(it: Repository) -> Need:
    """A/B testing."""
    asks = "champion and challenger are compared on live traffic before a release"
    need = _commands(asks, it, "experiment")
    return Need(
        asks, f"{need.proof}; {_tests(asks, it, 'experiments/test_ab_test').proof}" if need.proof else "", need.missing
    )


def no_expert_needed(it: Repository) -> Need:
    """Releases that do not wait for a data scientist."""
    asks = "a model goes live without a data scientist's help"
    moves = it.tests_about("rollback", "roll_back", "settle", "alias")
    proof = f"promotion by rule, aliases the service follows, rollback: {len(moves)} tests"
    return _shown(asks, moves, proof, "no tests of alias moves")


def no_downtime(it: Repository) -> Need:
    """Swaps without a dropped request."""
    asks = "models are swapped without downtime"
    named = it.tests.get("serving/test_swaps", [])
    return _shown(
        asks, named, f"{len(named)} tests in serving/test_swaps, under load", "no tests in serving/test_swaps"
    )


# --- The sixteen cells of the maturity model: what each asks for, and so by which checks it is judged.

PEOPLE, CREATION, RELEASE, INTEGRATION = AREAS


def _all(*needs: Callable[[Repository], Need]) -> Check:
    return lambda repository: [one(repository) for one in needs]


_MADE = (data_gathered, compute_managed, experiments_tracked, versions_controlled)
_TEAM = (repeatable_jobs, shared_data, integration_by_engineers)
_RELEASED = (released_automatically, scoring_tested, released_by_cd, environments_managed)
_INTEGRATED = (
    every_release_tested,
    no_expert_needed,
    application_integration_tested,
    compared_live,
)

CELLS: dict[tuple[int, str], Check] = {
    (1, PEOPLE): _all(shared_repository),
    (1, CREATION): _all(data_gathered),
    (1, RELEASE): _all(scoring_versioned),
    (1, INTEGRATION): _all(model_tested, application_tested, integrated_and_tested, released_automatically),
    (2, PEOPLE): _all(repeatable_jobs, shared_data),
    (2, CREATION): _all(*_MADE),
    (2, RELEASE): _all(scoring_tested, released_by_hand, release_owned),
    (2, INTEGRATION): _all(model_tested, application_tested),
    (3, PEOPLE): _all(*_TEAM),
    (3, CREATION): _all(*_MADE),
    (3, RELEASE): _all(*_RELEASED),
    (3, INTEGRATION): _all(*_INTEGRATED),
    (4, PEOPLE): _all(*_TEAM, markers, gathered_in_production),
    (4, CREATION): _all(*_MADE, retraining_triggered),
    (4, RELEASE): _all(*_RELEASED, integrated_and_tested),
    (4, INTEGRATION): _all(*_INTEGRATED, no_downtime),
}
