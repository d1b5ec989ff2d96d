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
    KINDS,
    LEVELS,
    Cell,
    Need,
    Repository,
    judge,
    judge_need,
    level_reached,
    read_model,
)
from tests.support.worlds import ROOT

HERE = Repository(ROOT, frozenset(typer.main.get_command(app).commands))
MODEL = read_model()
DEPLOY = "on: {release: {types: [published]}}\njobs: {deploy: {steps: [{run: terraform apply -auto-approve}]}}\n"


def write(root: Path, path: str, text: str = "") -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


def need(name: str, root: Path) -> Need:
    return judge_need(Repository(root, frozenset()), MODEL["needs"][name])


def test_the_level_that_the_readme_claims_is_the_one_that_is_reached() -> None:
    claimed = re.search(r"Maturity: level (\d)", (ROOT / "README.md").read_text(encoding="utf-8"))

    assert claimed, "expected a line 'Maturity: level N' in README.md"
    assert int(claimed[1]) == level_reached(judge(HERE, MODEL))


def test_every_cell_of_every_level_has_a_check_and_each_check_says_what_it_asks() -> None:
    cells = judge(HERE, MODEL)

    assert [(cell.level, cell.area) for cell in cells] == [(level, area) for level in LEVELS for area in AREAS]
    assert all(cell.needs and all(need.asks for need in cell.needs) for cell in cells)
    assert [need for cell in cells for need in cell.needs if not need.met and not need.missing] == []


def test_an_empty_repository_proves_nothing(tmp_path: Path) -> None:
    cells = judge(Repository(tmp_path, frozenset()), MODEL)

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
    assert "there are: ci.yml" in need("released-by-cd", tmp_path).missing

    write(tmp_path, ".github/workflows/deploy.yml", DEPLOY)

    assert need("released-by-cd", tmp_path).proof == "deploy.yml: terraform apply -auto-approve"


def test_integration_is_proved_through_the_script_that_a_workflow_calls(tmp_path: Path) -> None:
    write(
        tmp_path, ".github/workflows/ci.yml", "on: {push: {}, pull_request: {}}\njobs: {a: {steps: [{run: bash go}]}}\n"
    )
    assert not need("integrated-and-tested", tmp_path).met

    write(tmp_path, "go", "make lint\nmake test\n")

    assert need("integrated-and-tested", tmp_path).met


def test_retraining_is_triggered_only_with_a_policy_and_a_trigger(tmp_path: Path) -> None:
    write(tmp_path, "prefect.yaml", "deployments: [{name: retrain, triggers: [{type: event}]}]\n")
    assert "no taxi/training/policy.py" in need("retraining-triggered", tmp_path).missing

    write(tmp_path, "taxi/training/policy.py")
    assert "triggers retrain" in need("retraining-triggered", tmp_path).proof

    write(tmp_path, "prefect.yaml", "deployments: [{name: retrain, triggers: []}]\n")
    assert not need("retraining-triggered", tmp_path).met


def test_every_deployment_is_to_have_a_work_pool(tmp_path: Path) -> None:
    for name in ("requirements.lock", "environment.yml", "dvc.yaml"):
        write(tmp_path, name)
    write(tmp_path, "prefect.yaml", "deployments: [{name: a, work_pool: {name: b}}, {name: c}]\n")

    assert "every entry was to have work_pool, 1 of 2 have" in need("compute-managed", tmp_path).missing


def test_the_table_has_only_kinds_that_there_are_and_each_proof_that_runs_has_tests() -> None:
    for name, asked in MODEL["needs"].items():
        assert set(asked) - {"asks", "runs"} <= set(KINDS), name
        program, *words = asked.get("runs", "taxi alarms").split()
        if program == "python":
            file, chosen = next(word for word in words if word.startswith("tests/")), words[words.index("-k") + 1]
            tests = HERE.tests[file.removeprefix("tests/").removesuffix(".py")]
            assert any(chosen in test for test in tests), name
        else:
            assert words[0] in HERE.commands, name
    assert {name for cell in MODEL["cells"] for name in cell["needs"]} == set(MODEL["needs"])


@pytest.mark.slow
def test_a_proof_is_executed_only_where_asked_and_counts_only_where_it_passes(tmp_path: Path) -> None:
    write(tmp_path, "tests/room/test_it.py", "def test_good(): pass\ndef test_bad(): assert 1 == 2\n")
    command = "python -m pytest -q -p no:cacheprovider tests/room/test_it.py -k"
    model = {
        "needs": {
            word: {"asks": word, "tests": ["room/test_it"], "runs": f"{command} {word}"}
            for word in ("good", "bad", "no")
        },
        "cells": [
            {"level": 1, "area": "people", "needs": ["good"]},
            {"level": 2, "area": "people", "needs": ["bad", "no"]},
        ],
    }
    here = Repository(tmp_path, frozenset())

    looked, some, all_ = (judge(here, model, run) for run in ((), (1,), (1, 2)))

    assert [cell.met for cell in looked] == [True, True] and looked[0].needs[0].run.startswith("not run: `python")
    assert "passed in" in some[0].needs[0].run and some[1].needs[0].run.startswith("not run")
    assert [cell.met for cell in all_] == [True, False]
    bad, none = all_[1].needs
    assert "failed with exit 1: " in bad.missing and "failed with exit 5: " in none.run  # 5: no such test


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.slow
def test_the_command_ends_with_1_where_the_level_is_not_met(level: int) -> None:
    done = CliRunner().invoke(app, ["maturity", "--level", str(level), "--json"])

    answer = json.loads(done.stdout.splitlines()[-1])
    assert {cell["level"] for cell in answer["cells"]} == {level}
    assert done.exit_code == (0 if all(cell["met"] for cell in answer["cells"]) else 1)
