"""An alarm's event, a real Prefect server, its automation, a worker: a retrain is judged, promoted, and the alias moves."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from taxi.registry import aliased_version
from taxi.sample import write_sample
from tests.automation import SMALL, Automation
from tests.serving_worlds import wait_for

pytestmark = pytest.mark.slow
TINY = SMALL | {"rounds": 30, "head_rounds": 10, "interval_rounds": 10, "threads": 1}
EMIT = (
    "from pipelines.events import emit_alarms; emit_alarms([{'id': '%s', 'kind': 'raised', 'service': 'green', "
    "'rule': '%s', 'severity': 'error', 'month': None, 'part': 'champion', 'said': 'RMSE has risen'}])"
)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Automation]:
    made = Automation(tmp_path_factory.mktemp("loop"), {"model": TINY})
    write_sample(made.place / "source", "green", ["2024-01", "2024-02"], rows=4000, shift_month="2024-02")
    try:
        made.start_prefect()
        made.run("pipelines.cli", "run", "--service", "green", "--month", "2024-01", "--no-version")
        yield made
    finally:
        made.stop()


def emit(world: Automation, rule: str, number: int) -> None:
    words = [sys.executable, "-c", EMIT % (f"{number:032x}", rule)]
    subprocess.run(words, env=world.environment, cwd=world.checkout, check=True)


def decisions(world: Automation) -> list[dict[str, Any]]:
    path = Path(world.environment["TAXI_REPORTS"]) / "green/retrain/decisions.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_an_alarms_event_starts_a_retrain_that_moves_the_champion_and_data_quality_starts_none(world: Automation) -> None:
    uri = world.environment["MLFLOW_TRACKING_URI"]
    before = aliased_version(uri, "green", "champion")

    emit(world, "data-quality", 1)
    emit(world, "live-error", 2)
    runs = wait_for(world.ended_runs, "the end of the retrain", 300)

    assert [(one["name"], one["state_type"]) for one in runs] == [("retrain-green-live-error", "COMPLETED")]
    decided = decisions(world)[0]
    assert (decided["status"], decided["month"], decided["promoted"]) == ("done", "2024-02", True)
    assert (decided["decision"]["trigger"], decided["decision"]["call"]["rule"]) == ("alarm", "live-error")
    after = aliased_version(uri, "green", "champion")
    assert before and after and before.trained_to == "2024-01"
    assert (after.trained_to, after.tags["judged_in"]) == ("2024-02", "2024-02")
    pages = Path(world.environment["TAXI_REPORTS"]) / "green/retrain" / f"2024-02-after-{before.number}"
    assert {page.name for page in pages.glob("*.html")} == {"04-train.html", "05-compare.html"}
