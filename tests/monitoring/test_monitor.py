"""The monitor's verdicts are pure functions; drift is measured by Evidently itself."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from evidently.ui.workspace import Workspace

from taxi.monitoring.drift import NOTHING_COMPARED, compare_months, describe_inputs, keep_page, keep_run, sample_trips
from taxi.monitoring.monitor import (
    judge_coverage,
    judge_drift,
    judge_null_block,
    judge_rmse,
    judge_slices,
    judge_volume,
    reach_verdict,
)
from taxi.params import load_params
from taxi.training.step_result import list_alarms, make_check

pytestmark = pytest.mark.slow  # imports Evidently, which takes seconds

LIMITS = load_params().monitor
Trips = Callable[..., pd.DataFrame]


@pytest.mark.parametrize(
    ("now", "usual", "alarm"), [(1000, 1000, False), (701, 1000, False), (690, 1000, True), (1610, 1000, True)]
)
def test_volume(now: float, usual: float, alarm: bool) -> None:
    check = judge_volume(now, usual, LIMITS)

    assert check.alarms is alarm
    assert check.numbers == {"volume": pytest.approx(now / usual - 1)}
    assert check.limit == (-LIMITS.volume_drop, LIMITS.volume_rise)
    assert f"{now / usual - 1:+.1%}" in check.sentence


@pytest.mark.parametrize(("now", "before", "alarm"), [(0.10, 0.07, False), (0.21, 0.07, True), (0.01, 0.10, True)])
def test_the_null_block(now: float, before: float, alarm: bool) -> None:
    assert judge_null_block(now, before, LIMITS).alarms is alarm


def test_without_a_month_before_nothing_is_alarming() -> None:
    checks = [judge_volume(5, None, LIMITS), judge_null_block(0.9, None, LIMITS)]

    assert [(check.alarms, check.numbers) for check in checks] == [(False, {}), (False, {})]


@pytest.mark.parametrize(
    ("rmse", "coverage", "alarms"),
    [(5.4, 0.8, []), (5.6, 0.8, ["rmse"]), (5, 0.7, ["coverage"]), (5, 0.9, ["coverage"])],
)
def test_the_champions_error_and_coverage(rmse: float, coverage: float, alarms: list[str]) -> None:
    scores = {"rmse": rmse, "coverage80": coverage}

    checks = [judge_rmse(scores, {"rmse": 5.0}, LIMITS), judge_coverage(scores, LIMITS)]

    assert list_alarms(checks) == alarms
    assert [check.numbers for check in checks] == [{"rmse_ratio": rmse / 5.0}, {"coverage": coverage}]


def test_the_slice_that_fell_behind_is_named() -> None:
    before = pd.DataFrame({"n": 1000, "rmse": 5.0}, index=["north", "south", "airport"])
    now = before.assign(rmse=[5.5, 5.5, 8.0])

    check = judge_slices(now, before, LIMITS)

    assert check.alarms
    assert "'airport'" in check.sentence


def test_slices_that_all_get_worse_together_are_the_rmse_checks_affair() -> None:
    before = pd.DataFrame({"n": 1000, "rmse": 5.0}, index=["north", "south"])

    assert judge_slices(before.assign(rmse=9.0), before, LIMITS).alarms is False


def test_a_number_may_reach_its_limit_and_not_pass_it() -> None:
    checks = [make_check("volume", value, (-0.3, 0.6), "said") for value in (-0.3, -0.31, 0.6, 0.61)]

    assert [check.alarms for check in checks] == [False, True, False, True]


def test_a_verdict_is_an_alarm_if_any_check_raises_one() -> None:
    fell, fine = make_check("volume", -0.9, (-0.3, 0.6), "fell"), make_check("rmse", 1.0, (None, 1.1), "fine")

    assert reach_verdict([fell, fine], has_champion=True) == "alarm"
    assert reach_verdict([fine], has_champion=True) == "calm"
    assert reach_verdict([fine], has_champion=False) == "first"
    assert [str(check) for check in (fell, fine)] == ["volume: fell", "rmse: fine"]


def watched(trips: pd.DataFrame, zones: pd.DataFrame, slower: float = 1.0) -> pd.DataFrame:
    return describe_inputs(trips, zones, trips["duration"] * slower)


def test_another_month_of_the_same_city_has_not_drifted(sample_trips: Trips, zones: pd.DataFrame) -> None:
    drift = compare_months(
        watched(sample_trips("2024-01", 8000), zones), watched(sample_trips("2024-02", 8000), zones), LIMITS
    )

    assert list_alarms(judge_drift(drift, LIMITS)) == [], drift.table


def test_what_drifted_is_named(sample_trips: Trips, zones: pd.DataFrame) -> None:
    trips = sample_trips("2024-01", 8000)
    moved = trips.assign(pickup=trips["pickup"] + pd.Timedelta(hours=5), VendorID=1.0)

    drift = compare_months(watched(trips, zones), watched(moved, zones, slower=1.3), LIMITS)

    assert {"hour", "VendorID", "prediction"} <= set(drift.table.index[drift.table["drifted"]])
    assert "trip_type" not in set(drift.table.index[drift.table["drifted"]])
    assert "prediction-drift" in list_alarms(judge_drift(drift, LIMITS))


def test_evidentlys_page_needs_no_network(sample_trips: Trips, zones: pd.DataFrame, tmp_path: Path) -> None:
    inputs = watched(sample_trips("2024-01", 2000), zones)

    keep_page(compare_months(inputs, inputs, LIMITS), tmp_path / "page.html")

    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert '<link href="http' not in page and '<script src="http' not in page
    keep_page(None, tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == NOTHING_COMPARED


def test_sampling_is_sound_and_said(make_trips: Trips, zones: pd.DataFrame) -> None:
    trips = make_trips(500)

    drawn = sample_trips(trips, 100, seed=1)

    assert len(drawn) == 100
    assert drawn.index.is_monotonic_increasing
    assert sample_trips(trips, 500, seed=1) is trips
    few = LIMITS.model_copy(update={"sample_rows": 100})
    assert compare_months(watched(trips, zones), watched(trips, zones), few).note.startswith("100 of 500 trips")


def test_evidentlys_workspace_keeps_one_run_a_month_however_often_it_is_run(
    sample_trips: Trips, zones: pd.DataFrame, tmp_path: Path
) -> None:
    inputs = watched(sample_trips("2024-01", 500), zones)
    drift = compare_months(inputs, inputs, LIMITS)

    for month in ("2024-02", "2024-03", "2024-02"):
        keep_run(drift, tmp_path / "evidently", "green", month)

    workspace = Workspace.create(str(tmp_path / "evidently"))
    (project,) = workspace.search_project("green")
    runs = [workspace.get_run(project.id, one) for one in workspace.list_runs(project.id)]
    assert sorted((run.name, f"{run.timestamp:%Y-%m-%d}") for run in runs) == [
        ("green 2024-02", "2024-02-01"),
        ("green 2024-03", "2024-03-01"),
    ]
