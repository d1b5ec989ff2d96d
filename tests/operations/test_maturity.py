"""The maturity model's cells, judged by what is in the repository; the level that the README claims is the one that is reached."""

import json
import re
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from pipelines.cli import app
from taxi.operations.maturity import (
    AREAS,
    CELLS,
    LEVELS,
    Cell,
    Need,
    Repository,
    integrated_and_tested,
    judge,
    level_reached,
    released_by_cd,
    retraining_triggered,
)
from tests.support.worlds import ROOT

HERE = Repository(ROOT, frozenset(typer.main.get_command(app).commands))
DEPLOY = "on: {release: {types: [published]}}\njobs: {deploy: {steps: [{run: terraform apply -auto-approve}]}}\n"


def write(root: Path, path: str, text: str = "") -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


def test_the_level_that_the_readme_claims_is_the_one_that_is_reached() -> None:
    claimed = re.search(r"Maturity: level (\d)", (ROOT / "README.md").read_text(encoding="utf-8"))

    assert claimed, "expected a line 'Maturity: level N' in README.md"
    assert int(claimed[1]) == level_reached(judge(HERE, CELLS))


def test_every_cell_of_every_level_has_a_check_and_each_check_says_what_it_asks() -> None:
    cells = judge(HERE, CELLS)

    assert [(cell.level, cell.area) for cell in cells] == [(level, area) for level in LEVELS for area in AREAS]
    assert all(cell.needs and all(need.asks for need in cell.needs) for cell in cells)
    assert [need for cell in cells for need in cell.needs if not need.met and not need.missing] == []


def test_an_empty_repository_proves_nothing(tmp_path: Path) -> None:
    cells = judge(Repository(tmp_path, frozenset()), CELLS)

    assert level_reached(cells) == 0
    assert [need.asks for cell in cells for need in cell.needs if need.met] == []


def test_a_level_counts_only_where_all_below_it_are_met() -> None:
    proved, lacking = [Need("a", "proof")], [Need("a", missing="nothing")]
    cells = [Cell(level, area, proved) for level in LEVELS for area in AREAS]

    assert level_reached(cells) == 4
    assert level_reached([Cell(2, "people", lacking), *cells]) == 1
    assert level_reached([*cells, Cell(4, "people", [])]) == 3


def test_delivery_is_missing_until_a_workflow_deploys(tmp_path: Path) -> None:
    write(tmp_path, ".github/workflows/ci.yml", "on: [push]\njobs: {test: {steps: [{run: make test}]}}\n")
    assert "there are: ci.yml" in released_by_cd(Repository(tmp_path, frozenset())).missing

    write(tmp_path, ".github/workflows/deploy.yml", DEPLOY)

    assert released_by_cd(Repository(tmp_path, frozenset())).proof == "deploy.yml: terraform apply -auto-approve"


def test_integration_is_proved_through_the_script_that_a_workflow_calls(tmp_path: Path) -> None:
    write(
        tmp_path, ".github/workflows/ci.yml", "on: {push: {}, pull_request: {}}\njobs: {a: {steps: [{run: bash go}]}}\n"
    )
    assert not integrated_and_tested(Repository(tmp_path, frozenset())).met

    write(tmp_path, "go", "make lint\nmake test\n")

    assert integrated_and_tested(Repository(tmp_path, frozenset())).met


def test_retraining_is_triggered_only_with_a_policy_and_a_trigger(tmp_path: Path) -> None:
    write(tmp_path, "prefect.yaml", "deployments: [{name: retrain, triggers: [{type: event}]}]\n")
    assert "no retraining policy" in retraining_triggered(Repository(tmp_path, frozenset())).missing

    write(tmp_path, "taxi/policy.py")

    assert "started by events: retrain" in retraining_triggered(Repository(tmp_path, frozenset())).proof


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.slow
def test_the_command_ends_with_1_where_the_level_is_not_met(level: int) -> None:
    done = CliRunner().invoke(app, ["maturity", "--level", str(level), "--json"])

    answer = json.loads(done.stdout.splitlines()[-1])
    assert {cell["level"] for cell in answer["cells"]} == {level}
    assert done.exit_code == (0 if all(cell["met"] for cell in answer["cells"]) else 1)
