"""A change in code redoes the results that are computed by it, and no others."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from taxi import fingerprint
from taxi.config import NOTEBOOKS, PACKAGE, Settings
from taxi.fingerprint import code_of, hash_path, imports_of, kept_result, modules_of
from taxi.params import load_params
from taxi.runs.steps import month_fingerprint, step_fingerprint
from taxi.training.plan import make_plan

ROOT = PACKAGE.parent
FITTED, MONTH = {"02-features", "03-monitor", "04-train", "05-compare"}, "the month"
Prints = dict[str, str]


@pytest.fixture
def change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Add a comment to a file of the package: of a copy, whose code is what fingerprints look at."""
    copy = shutil.copytree(PACKAGE, tmp_path / "taxi", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(fingerprint, "PACKAGE", copy)

    def add_comment(name: str) -> None:
        with (copy / name).open("a") as file:
            file.write("\n# another comment\n")

    yield add_comment
    code_of.cache_clear()


@pytest.fixture
def prints(tmp_path: Path) -> Callable[[], Prints]:
    """Return the fingerprints of a month's steps, of the whole month and of its split, by name."""
    root = tmp_path / "checkout"
    shutil.copytree(ROOT / "notebooks", root / "notebooks")
    shutil.copyfile(ROOT / "params.yaml", root / "params.yaml")
    settings = Settings(root, "unused", tmp_path / "data", tmp_path / "reports", "unused")
    plan = make_plan("green", "2023-03", ["2023-02"], 12, None)

    def take() -> Prints:
        code_of.cache_clear()  # as in the next process
        steps = {name: step_fingerprint(settings, plan, name) for name in NOTEBOOKS}
        month = month_fingerprint(settings, plan, load_params(root / "params.yaml"))
        return steps | {MONTH: month, "the split": code_of("taxi.data.acceptance")}

    return take


def redone(before: Prints, after: Prints) -> set[str]:
    return {name for name in before if before[name] != after[name]}


def test_a_change_in_what_serves_or_shows_redoes_no_month(change, prints) -> None:
    before = prints()

    for room in ("serving", "reporting", "operations", "experiments", "templates"):
        for path in (PACKAGE / room).rglob("*.*"):
            if path.suffix != ".pyc":
                change(path.relative_to(PACKAGE).as_posix())
    change("monitoring/alarm_book.py")

    assert redone(before, prints()) == set()


@pytest.mark.parametrize(("changed", "expected"), [
    ("features/trip_features.py", {*FITTED, MONTH}),
    ("features/lookups.py", {*FITTED, MONTH}),  # at one remove
    ("data/__init__.py", {*NOTEBOOKS, MONTH, "the split"}),  # a package that imported modules lie in
    ("data/trips.py", {"01-explore", "03-monitor", MONTH, "the split"}),
    ("models/cluster.py", {*FITTED, MONTH}),  # imported inside a function
    ("training/promotion.py", {"05-compare", MONTH}),  # imported as a name of its package, in a notebook's cell
    ("monitoring/drift.py", {"03-monitor", MONTH}),
    ("training/policy.py", {MONTH}),
    ("registry/golden.py", {MONTH}),
    ("runs/record.py", {*NOTEBOOKS, MONTH}),
])  # fmt: skip
def test_a_change_redoes_what_is_computed_by_it(change, prints, changed: str, expected: set[str]) -> None:
    before = prints()

    change(changed)

    assert redone(before, prints()) == expected


@pytest.mark.parametrize(("old", "new", "expected"), [
    ("smoothing: 20 ", "smoothing: 21 ", {*NOTEBOOKS, MONTH}),
    ("approval: []", "approval: [prod]", set()),
])  # fmt: skip
def test_parameters_that_last_redo_the_month_and_asking_for_approval_does_not(
    tmp_path: Path, prints, old: str, new: str, expected: set[str]
) -> None:
    before, path = prints(), tmp_path / "checkout/params.yaml"
    assert old in path.read_text()

    path.write_text(path.read_text().replace(old, new))

    assert redone(before, prints()) == expected


def test_no_month_is_made_by_what_serves_or_shows() -> None:
    roots = {name for notebook in (ROOT / "notebooks").glob("*.ipynb") for name in imports_of(notebook)}

    closure = modules_of(*roots, "taxi.runs.month_result", "taxi.runs.mlflow_run")

    assert {"taxi", "taxi.runs", "taxi.data.schema", "taxi.models.cluster", "taxi.registry.versions"} <= set(closure)
    assert not [name for name in closure if name.split(".")[1:2] in (["serving"], ["reporting"], ["operations"])]


def test_a_cell_that_is_no_plain_python_may_import_anything(tmp_path: Path) -> None:
    cells = [{"cell_type": "code", "source": ["files = !ls\n", "from taxi import months"]}]
    (tmp_path / "odd.ipynb").write_text(json.dumps({"cells": cells}))

    assert "taxi.serving.app" in modules_of(*imports_of(tmp_path / "odd.ipynb"))


def test_a_result_is_kept_for_its_own_fingerprint_only(tmp_path: Path) -> None:
    (tmp_path / "one.json").write_text('{"fingerprint": "abc", "rows": 3}')

    assert kept_result(tmp_path / "one.json", "abc") == {"fingerprint": "abc", "rows": 3}
    assert kept_result(tmp_path / "one.json", "abd") is None
    assert kept_result(tmp_path / "none.json", "abc") is None
    (tmp_path / "one.json").write_text('{"fingerprint": "abc", "ro')
    assert kept_result(tmp_path / "one.json", "abc") is None


def test_a_file_that_changes_is_hashed_again(tmp_path: Path) -> None:
    path = tmp_path / "trips.parquet"
    path.write_text("first")
    before = hash_path(path)
    path.write_text("the second")

    assert hash_path(path) not in (before, None)
    assert hash_path(tmp_path / "none") is None
