"""The live check on a real prediction store and a real registry: an error is told within one check, and recovers."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from taxi.config import Settings
from taxi.database import StoreDown
from taxi.monitoring.alarm_book import list_standing
from taxi.monitoring.alarms import check_live
from taxi.params import load_params
from taxi.predictions.store import Store, open_store
from taxi.registry.mlflow_client import connect, prepare
from tests.support.aliased import register
from tests.support.prediction_rows import make_row

AT = datetime(2024, 5, 1, 16, 30, tzinfo=UTC)
pytestmark = pytest.mark.slow
PARAMS = load_params()


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the address of a registry with versions 1 and 2 of green, both registered with an RMSE of 3 minutes."""
    uri = f"sqlite:///{tmp_path_factory.mktemp('registry') / 'mlflow.db'}"
    prepare(uri)
    connect(uri).create_registered_model("taxi-green")
    for month in ("2023-01", "2023-02"):
        register(uri, month, **{"metric.rmse": "3.0"})
    return uri


@pytest.fixture
def settings(tmp_path: Path, registry: str) -> Settings:
    return Settings(tmp_path, "none", tmp_path / "data", tmp_path / "reports", registry)


@pytest.fixture
def store(settings: Settings):
    made = open_store(f"sqlite:///{settings.data / 'predictions.db'}")
    yield made
    made.close()


def drive(store: Store, first: int, version: int, slower: float, since: datetime, n: int = 300) -> None:
    """Predict trips of 12 minutes, give or take three, one a second from ``since`` on, and tell the outcomes of all but those under way."""
    took = slower * 12 + np.random.default_rng(first).normal(0, 3, n)
    answer = {"version": version, "mean": 12.0, "median": 12.0, "p10": 8.15, "p90": 15.85}
    numbers = range(first, first + n)
    rows = [make_row(one, made_at=since + timedelta(seconds=one - first), **answer) for one in numbers]
    store.write_predictions(rows)
    ended = [{"trip_id": row["trip_id"], "duration": float(one)} for row, one in zip(rows, took, strict=True)]
    store.write_outcomes(ended[:-3])


def check(settings: Settings, store: Store, at: datetime) -> set[tuple[Any, ...]]:
    came = check_live(settings, PARAMS, "green", store, at)
    return {(one["kind"], one["severity"], one["rule"], one["part"]) for one in came["told"]}


def test_a_slow_down_is_told_by_the_next_check_and_a_better_version_recovers_it(settings, store):
    drive(store, 0, 1, 1.0, AT - timedelta(minutes=40))
    assert check(settings, store, AT - timedelta(minutes=30)) == set()

    drive(store, 1000, 1, 1.5, AT - timedelta(minutes=25), n=900)
    slow = check(settings, store, AT - timedelta(minutes=5))
    again = check(settings, store, AT - timedelta(minutes=5))
    drive(store, 3000, 2, 1.0, AT - timedelta(minutes=5))
    after = check(settings, store, AT)

    assert slow == {("raised", "error", "live-rmse", "champion"), ("raised", "error", "live-coverage", "champion")}
    assert again == set()
    assert after == {
        ("recovered", "info", "live-rmse", "champion"),
        ("recovered", "info", "live-coverage", "champion"),
    }


def test_an_hour_without_callers_is_told_by_the_same_hour_of_the_weeks_before(settings, store):
    for week in (1, 2):
        drive(store, 5000 * week, 1, 1.0, AT - timedelta(weeks=week, minutes=50), n=100)

    came = check_live(settings, PARAMS, "green", store, AT)

    assert {one["rule"]: one["severity"] for one in came["told"]} == {"live-volume": "error"}
    assert "0 predictions in the last hour, 0% of the 100 that the same hour of 2 weeks before had" in str(came)


def test_a_store_that_does_not_answer_is_no_calm_and_the_check_counts_as_not_run(settings, tmp_path):
    (tmp_path / "predictions.db").mkdir()
    broken = open_store(f"sqlite:///{tmp_path / 'predictions.db'}")

    with pytest.raises(StoreDown):
        check_live(settings, PARAMS, "green", broken, AT)

    assert list_standing(settings) == []
    assert not settings.alarm_book.exists()


def test_counts_leave_shadows_out_and_the_newest_come_in_their_order(store):
    rows = [make_row(one, made_at=AT + timedelta(seconds=one), shadow=one == 3) for one in range(6)]
    store.write_predictions(rows)

    newest = store.newest("green", AT, 2)

    assert store.count_made("green", AT, AT + timedelta(seconds=5)) == 4
    assert list(newest["prediction_id"]) == ["p000004", "p000005"]
    assert set(newest.columns) == {"prediction_id", "made_at", "arm", "version", "latency_ms"}
