"""The benchmarks' own arithmetic, and one small run of the accuracy benchmark from source to files."""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.accuracy import main, models_argument, plan_folds
from benchmarks.child import measure_apart
from benchmarks.fold import PREDICTIONS, widest_miss
from benchmarks.intervals import level_for_coverage, pair_hour_interval
from benchmarks.peers import pair_hour_quantiles
from benchmarks.scale import exponent, plan_months
from benchmarks.summary import compare, summarise_intervals
from benchmarks.ways import milliseconds
from benchmarks.window import months_before, parse_months
from benchmarks.wrk import read_wrk
from taxi.data.synthetic import write_sample
from taxi.errors import UsageError

Trips = Callable[..., pd.DataFrame]


def a_fold(month: str, ours: float, p3: float) -> dict:
    return {"month": month, "scores": {"ours": {"rmse": ours}, "p3": {"rmse": p3}}}


@pytest.mark.parametrize("power", [0.5, 1.0, 1.1])
def test_the_exponent_is_that_of_the_growth(power: float) -> None:
    rows = [1e5, 1e6, 3.6e7]

    assert exponent(rows, [3 * one**power for one in rows]) == pytest.approx(power)


def test_one_size_has_no_exponent() -> None:
    assert exponent([1e6], [2.0]) is None


@pytest.mark.parametrize(
    ("rows", "months", "each"), [(100_000, 1, 100_000), (3_000_000, 1, 3_000_000), (36_000_000, 12, 3_000_000)]
)
def test_many_trips_come_in_months_of_three_million(rows: int, months: int, each: int) -> None:
    planned, found = plan_months(rows)

    assert (len(planned), found) == (months, each)


def test_the_level_that_covers_as_much_is_found() -> None:
    assert level_for_coverage(lambda level: level**2, 0.64) == pytest.approx(0.8, abs=1e-4)


def test_a_level_just_after_a_jump_covers_no_less() -> None:
    def jumps(level: float) -> float:
        return 0.7 if level < 0.6 else 0.9

    assert jumps(level_for_coverage(jumps, 0.8)) == 0.9


def test_a_coverage_out_of_reach_is_said() -> None:
    assert level_for_coverage(lambda level: 0.7 * level, 0.8) is None


def test_quantiles_of_pair_and_hour_are_those_of_pandas(make_trips: Trips) -> None:
    trips = make_trips(3000)
    cells = [trips["PULocationID"], trips["DOLocationID"], trips["pickup"].dt.hour]

    found = pair_hour_quantiles(trips, trips, [0.1, 0.5])

    for column, level in enumerate((0.1, 0.5)):
        table = trips["duration"].groupby(cells).quantile(level)
        np.testing.assert_allclose(found[:, column], table.loc[pd.MultiIndex.from_arrays(cells)])


def test_an_hour_never_seen_takes_the_pairs_quantiles_and_a_pair_never_seen_those_of_all(make_trips: Trips) -> None:
    train = make_trips(300, PULocationID=7, DOLocationID=8, pickup=pd.Timestamp("2023-03-01 09:30"))
    asked = train.head(2).assign(pickup=pd.Timestamp("2023-03-01 10:30"), DOLocationID=[8, 9])

    assert pair_hour_quantiles(train, asked, [0.5])[:, 0] == pytest.approx([train["duration"].median()] * 2)


def test_intervals_of_pair_and_hour_are_made_to_the_coverage_asked_for(make_trips: Trips) -> None:
    trips = make_trips(4000, PULocationID=7, DOLocationID=8)

    found = pair_hour_interval(trips, trips, 0.8)

    assert found["coverage"] == pytest.approx(0.8, abs=0.01)
    assert 0 < found["width"] < 60


def test_the_ratio_is_of_the_means_and_the_better_months_are_named() -> None:
    found = compare([a_fold("2023-01", 4.0, 5.0), a_fold("2023-02", 6.0, 5.0)], "p3", "rmse")

    assert found == {"ratio": 1.0, "better_in": ["2023-01"], "folds": 2}


def test_a_rival_that_was_left_out_is_not_compared() -> None:
    assert compare([a_fold("2023-01", 4.0, 5.0)], "zc_xgboost", "rmse") is None


def test_the_worst_slice_is_the_farthest_from_its_share_among_the_large() -> None:
    table = pd.DataFrame({"coverage80": [0.84, 0.79, 0.2], "n": [2000, 9000, 1999]}, index=["a", "b", "tiny"])

    assert widest_miss(table) == {"slice": "a", "coverage80": 0.84, "n": 2000}
    assert widest_miss(table[table["n"] < 2000]) is None


def test_months_whose_peer_cannot_cover_as_much_are_left_out_of_the_widths_ratio() -> None:
    both = {"coverage": 0.8, "width": 9.0, "pair_hour": {"width": 12.0}}
    alone = {"coverage": 0.82, "width": 11.0, "pair_hour": {"width": None}}

    found = summarise_intervals([both, alone], [None, None])

    assert (found["width_ratio"], found["width_ratio_folds"], found["width"]) == (0.75, 1, 10.0)
    assert found["coverage"] == [0.8, 0.82]


def test_a_month_that_cannot_be_had_is_skipped_with_its_reason_and_missed_in_windows() -> None:
    folds, skipped = plan_folds(["2023-01", "2023-02", "2023-03"], 2, {"2023-01": "refused", "2022-12": "gone"})

    assert folds == {"2023-03": ["2023-02"]}
    assert skipped == {"2023-01": "refused", "2023-02": "none of the 2 months before it can be had"}


def test_months_are_read_as_a_span_or_alone() -> None:
    assert parse_months("2022-12:2023-02") == ["2022-12", "2023-01", "2023-02"]
    assert parse_months("2023-03") == ["2023-03"]
    assert months_before("2023-02", 3) == ["2022-11", "2022-12", "2023-01"]
    with pytest.raises(UsageError):
        parse_months("2023-03:2023-01")


def test_an_unknown_model_is_named_with_those_there_are() -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=r"ours, p3.*got p4"):
        models_argument("ours,p4")


def test_latencies_are_told_in_milliseconds() -> None:
    assert milliseconds([1_000_000] * 99 + [9_000_000]) == {
        "median_ms": 1.0,
        "p99_ms": pytest.approx(1.08),
        "calls": 100,
    }


def test_what_wrk_prints_is_read_in_milliseconds_with_every_failure() -> None:
    said = """
  Latency Distribution
     50%  850.00us
     75%    1.10ms
     90%    2.00ms
     99%    1.20s
  1200 requests in 4.00s, 1.00MB read
  Socket errors: connect 1, read 2, write 0, timeout 4
  Non-2xx or 3xx responses: 10
Requests/sec:    300.25
"""

    assert read_wrk(said) == {"per_second": 300.25, "p50_ms": 0.85, "p99_ms": 1200.0, "failed": 17}


@pytest.mark.slow
def test_a_server_that_ends_shows_what_it_wrote() -> None:
    from benchmarks.rivals import running  # imports MLflow

    words = [sys.executable, "-c", "raise SystemExit('there is no model')"]
    with (
        pytest.raises(RuntimeError, match=r"the rival ended with 1 before it answered. It wrote:\nthere is no model"),
        running("the rival", words, {}, "http://127.0.0.1:9/predict", {}),
    ):
        pass


@pytest.mark.slow
def test_work_in_a_child_is_measured_and_its_failure_is_told() -> None:
    found = measure_apart(np.ones, shape=30_000_000)

    assert found.result.size == 30_000_000
    assert found.peak_mb - found.base_mb > 200
    with pytest.raises(RuntimeError, match="process ended with 1"):
        measure_apart(np.ones, shape=-1)


@pytest.mark.slow
def test_accuracy_runs_from_a_source_to_predictions_that_anyone_can_recompute_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_sample(tmp_path / "source", "green", ["2023-01", "2023-02"], rows=4000)
    asked = ["--source", str(tmp_path / "source"), "--months", "2023-02:2023-03", "--window", "2", "--json"]

    code = main([*asked, "--models", "zc_linear,pair_hour_median", "--predictions", str(tmp_path / "all.parquet")])

    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    found = pd.read_parquet(tmp_path / "all.parquet")
    error = found["zc_linear"] - found["duration"]
    assert code == 0
    assert set(said["missing"]) == {"2022-12", "2023-03"}
    assert set(said["skipped"]) == {"2023-03"}
    assert list(found) == ["service", "month", "row", "duration", *PREDICTIONS]
    assert said["summary"]["scores"]["zc_linear"]["rmse"] == pytest.approx(float(np.sqrt((error**2).mean())))
    assert found["ours_mean"].isna().all()
