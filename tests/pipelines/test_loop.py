"""An alarm's event, a real Prefect server, its automation, a worker: a retrain is judged, promoted, and the alias moves."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from taxi.config import Settings
from taxi.data.acceptance import clean_month
from taxi.data.fetch import fetch_month, fetch_zones
from taxi.data.source import open_source
from taxi.data.synthetic import write_sample
from taxi.params import load_params
from taxi.registry.versions import aliased_version
from tests.support.automation import SMALL, Automation
from tests.support.databases import give_prefect_home
from tests.support.serving_worlds import ROOT, Registry, train, wait_for

pytestmark = pytest.mark.slow
TINY = SMALL | {"rounds": 30, "head_rounds": 10, "interval_rounds": 10, "threads": 1}
EMIT = """
from pipelines.alarms import emit_alarms
from taxi.config import load_settings
told = {"kind": "raised", "service": "green", "severity": "error", "month": None, "part": "champion", "said": "RMSE has risen"}
emit_alarms(load_settings(), [told | {"id": f"{n:032x}", "rule": rule} for n, rule in enumerate(["data-quality", "live-rmse"], 1)])
"""


def put_month_on_hand(place: Path) -> None:
    """Fetch and split the first month, as its run does."""
    source, settings = open_source(str(place / "source")), Settings(ROOT, "", place / "data", place / "reports", "")
    fetch_zones(source, settings.zones)
    fetch_month(source, "green", "2024-01", settings.month("green", "2024-01"))
    clean_month(settings.month("green", "2024-01"), load_params())


def register_champion(place: Path) -> int:
    """Register a champion that was trained to the first month, and return its number."""
    registry = Registry(place)
    model = train(place / "models" / "first", place / "data" / "zones")
    number = registry.register(model, promoted_in="2024-01", **{"metric.rmse": "5.0", "synthetic": "true"})
    registry.alias("champion", number)
    return number


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Automation]:
    made = Automation(tmp_path_factory.mktemp("loop"), {"model": TINY})
    write_sample(made.place / "source", "green", ["2024-01", "2024-02"], rows=16_000, shift_month="2024-02")
    put_month_on_hand(made.place)
    give_prefect_home(made.place / "prefect")
    try:
        made.start_prefect()
        yield made
    finally:
        made.stop()


def emit(world: Automation) -> None:
    words = [sys.executable, "-c", EMIT]
    subprocess.run(words, env=world.environment, cwd=world.checkout, check=True)


def decisions(world: Automation) -> list[dict[str, Any]]:
    path = Path(world.environment["TAXI_REPORTS"]) / "green/retrain/decisions.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_an_alarms_event_starts_a_retrain_that_moves_the_champion_and_data_quality_starts_none(
    world: Automation,
) -> None:
    uri = world.environment["MLFLOW_TRACKING_URI"]
    before = register_champion(world.place)

    emit(world)
    runs = wait_for(world.ended_runs, "the end of the retrain", 1200)

    assert [(one["name"], one["state_type"]) for one in runs] == [("retrain-green-live-rmse", "COMPLETED")]
    decided = decisions(world)[0]
    assert (decided["status"], decided["month"], decided["promoted"]) == ("done", "2024-02", True)
    assert (decided["decision"]["trigger"], decided["decision"]["call"]["rule"]) == ("alarm", "live-rmse")
    after = aliased_version(uri, "green", "champion")
    assert after and after.number > before
    assert (after.trained_to, after.tags["judged_in"]) == ("2024-02", "2024-02")
    pages = Path(world.environment["TAXI_REPORTS"]) / "green/retrain" / f"2024-02-after-{before}"
    assert {page.name for page in pages.glob("*.html")} == {"04-train.html", "05-compare.html"}
