"""What a command imports before it answers, and what a typing error costs: each in a process of its own."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from taxi.files import write_model
from tests.support.month_results import make_result

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("dvc", "evidently", "mlflow", "pandas", "prefect", "scipy", "sklearn", "sqlalchemy", "xgboost")
SHOW = (
    "import sys; from pipelines.cli import main; sys.argv = ['taxi', *sys.argv[1:]]\n"
    "try: main()\n"
    "finally: print('imported:', *sorted({name.partition('.')[0] for name in sys.modules}), file=sys.stderr)"
)
AGAIN = """
import json, sys
from pipelines import finished
from taxi.config import load_settings
from taxi.runs.month_result import read_result
settings = load_settings()
result = read_result(settings.reports / "green/2024-01/month.json")
finished.finished_month = lambda *which: result
print(json.dumps(finished.publish_finished(settings, "green", ["2024-01"], True)[0]["alarm_check"]))
print("imported:", *sorted({name.partition(".")[0] for name in sys.modules}), file=sys.stderr)
"""
ONE = ("--service", "green", "--month", "2024-01")
SOME = ("--service", "green", "--from", "2024-01", "--to", "2024-03")
CHECKED = (
    ("run", *ONE),
    ("backfill", *SOME),
    ("ingest", *ONE),
    ("notebook", "01-explore", *ONE),
    ("retrain", "--service", "green", "--because", "it is asked for"),
    ("serve", "--service", "green", "--port", "0"),
    ("search", *ONE),
    ("backtest", *SOME),
)
READING = (
    ("clean", *ONE),
    ("alarms", "check", "--service", "green"),
    ("promote", "1", "--to", "staging"),
    ("approve", "1", "--report", "none.html"),
)


def taxi(root: Path, *words: str, script: str = SHOW) -> tuple[int, str, set[str]]:
    """Run a command in the checkout at ``root``; return its exit code, all that it said, and the packages it imported."""
    places = {"TAXI_DATA": str(root / "data"), "TAXI_REPORTS": str(root / "reports"), "TAXI_SOURCE": str(root)}
    registry = {"MLFLOW_TRACKING_URI": f"sqlite:///{root}/mlflow.db", "PYTHONPATH": str(ROOT)}
    environment = {**os.environ, **places, **registry}
    done = subprocess.run(
        [sys.executable, "-c", script, *words], cwd=root, env=environment, capture_output=True, text=True, check=False
    )
    said, _, imported = done.stderr.rpartition("imported:")
    return done.returncode, done.stdout + said, set(imported.split())


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with nothing in it but params.yaml and an empty folder of notebooks."""
    (tmp_path / "notebooks").mkdir()
    shutil.copyfile(ROOT / "params.yaml", tmp_path / "params.yaml")
    return tmp_path


@pytest.mark.parametrize("words", [("--help",), ("run", "--help"), ("doctor", "--help")], ids=" ".join)
def test_help_imports_nothing_heavy(checkout: Path, words: tuple[str, ...]) -> None:
    code, said, imported = taxi(checkout, *words)

    assert code == 0 and "Usage" in said
    assert imported.isdisjoint(HEAVY)


def test_status_of_an_empty_checkout_imports_nothing_heavy_and_creates_nothing(checkout: Path) -> None:
    before = sorted(checkout.rglob("*"))

    code, said, imported = taxi(checkout, "status")

    assert code == 0
    assert f"green: no months on hand; no champion yet, and no registry at {checkout}/mlflow.db" in said
    assert imported.isdisjoint(HEAVY)
    assert sorted(checkout.rglob("*")) == before


@pytest.mark.parametrize("words", [*CHECKED, *READING], ids=lambda words: words[0])
def test_a_wrong_entry_in_params_is_said_before_anything_heavy_is_imported(
    checkout: Path, words: tuple[str, ...]
) -> None:
    text = (checkout / "params.yaml").read_text(encoding="utf-8")
    (checkout / "params.yaml").write_text(text.replace("  rounds: 160", "  rouds: 160"), encoding="utf-8")
    before = sorted(checkout.rglob("*"))

    code, said, imported = taxi(checkout, *words)

    assert code == 2
    assert "params.yaml: line 60: model.rouds is not known: did you mean rounds?" in said
    assert said.count("\n") == 1
    assert imported.isdisjoint(HEAVY)
    assert sorted(checkout.rglob("*")) == before


@pytest.mark.parametrize("words", CHECKED, ids=lambda words: words[0])
def test_a_wrong_service_is_said_before_anything_heavy_is_imported(checkout: Path, words: tuple[str, ...]) -> None:
    code, said, imported = taxi(checkout, *("blue" if word == "green" else word for word in words))

    assert code == 2
    assert "expected a service, one of green, yellow; got 'blue'" in said
    assert imported.isdisjoint(HEAVY)


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        (("run", *ONE, "--source", "nowhere"), "expected a source as https"),
        (("run", *ONE, "--engine", "spark"), "expected an engine"),
        (("ingest", "--service", "green", "--month", "2024-13"), "expected a month as YYYY-MM"),
        (("backfill", "--service", "green", "--from", "2024-03", "--to", "2024-01"), "no later than the last"),
        (("backtest", *SOME, "--policy", "auto,auto"), "expected policies once each"),
        (("backtest", *SOME, "-p", "model.rouds=3"), "rouds"),
        (("notebook", "09-none", *ONE), "no notebook '09-none'"),
        (("notebook", "01-explore", *ONE, "-p", "month"), "expected a parameter as name=value"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else value[:12],
)
def test_any_other_wrong_argument_too(checkout: Path, words: tuple[str, ...], wrong: str) -> None:
    code, said, imported = taxi(checkout, *words)

    assert code == 2
    assert wrong in said and "Traceback" not in said
    assert imported.isdisjoint(HEAVY)


def test_a_finished_month_is_published_again_without_prefect_mlflow_or_models(checkout: Path) -> None:
    rows = {"raw": 10, "kept": 9, "quarantined": 1, "reasons": {"void": 1}}
    more = {"rows": rows, "verdict": "calm", "champion": None, "challenger": None, "seconds": {}, "winner": None}
    write_model(checkout / "reports/green/2024-01/month.json", make_result("2024-01", **more))

    code, said, imported = taxi(checkout, script=AGAIN)

    assert code == 0, said
    assert '"failed": null' in said
    assert (checkout / "reports/index.html").is_file() and (checkout / "reports/live.html").is_file()
    assert imported.isdisjoint({"mlflow", "prefect", "evidently", "ipykernel", "papermill"})


def test_a_damaged_result_is_named_by_status_which_shows_the_rest(checkout: Path) -> None:
    path = checkout / "reports" / "green" / "2024-01" / "month.json"
    path.parent.mkdir(parents=True)
    path.write_text('{"service": "gr', encoding="utf-8")

    code, said, _ = taxi(checkout, "status")

    assert code == 1
    assert "green: no months on hand" in said and "yellow: no months on hand" in said
    assert f"as JSON at {path}" in said and "Remove it and run the month again" in said
    assert "Traceback" not in said


@pytest.mark.parametrize("given", [["-p", "each=[1"], ["-p", "each=1", "-p", "each=2"], ["-p", "nonsense=1"]])
def test_a_parameter_that_cannot_be_is_wrong_usage_also_without_a_plan(checkout: Path, given: list[str]) -> None:
    shutil.copyfile(ROOT / "notebooks" / "01-explore.ipynb", checkout / "notebooks" / "01-explore.ipynb")

    code, said, _ = taxi(checkout, "notebook", "01-explore", *ONE, *given)

    assert code == 2
    assert said.count("\n") == 1 and "Traceback" not in said
