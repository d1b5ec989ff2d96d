"""Which trips train: the newest of the window, read from no more months than they take."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow.parquet as parquet
import pytest

from taxi.config import Settings
from taxi.data.schema import to_arrow
from taxi.reporting.feature_tables import training_answers
from taxi.training.plan import make_plan
from taxi.training.train import newest_trips, read_months

MONTHS = ["2024-01", "2024-02", "2024-03"]


@pytest.fixture
def settings(tmp_path: Path, make_trips: Callable[..., pd.DataFrame]) -> Settings:
    made = Settings(tmp_path, "", tmp_path / "data", tmp_path / "reports", "")
    for month in MONTHS:
        path = made.month("green", month).trips
        path.parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(to_arrow(make_trips(100, month)), path)
    return made


def test_the_newest_trips_are_those_of_the_whole_windows_end(settings: Settings) -> None:
    plan = make_plan("green", "2024-04", MONTHS, 12, None)

    newest, everything = newest_trips(settings, plan, 150), read_months(settings, "green", MONTHS)

    assert len(newest) == 150
    assert newest["pickup"].min() == everything["pickup"].sort_values().iloc[-150]
    assert newest_trips(settings, plan, 10_000)["pickup"].tolist() == everything["pickup"].tolist()


def test_months_older_than_it_takes_are_not_read(settings: Settings) -> None:
    plan = make_plan("green", "2024-04", MONTHS, 12, None)
    settings.month("green", "2024-01").trips.unlink()

    assert len(newest_trips(settings, plan, 200)) == 200


def test_without_an_earlier_month_the_newest_end_where_the_judging_days_begin(settings: Settings) -> None:
    plan = make_plan("green", "2024-01", MONTHS, 12, None)

    newest = newest_trips(settings, plan, 40)

    assert len(newest) == 40
    assert newest["pickup"].max() < pd.Timestamp(plan.holdout_from)


def test_what_a_planned_distance_is_worth_is_told_where_the_recipe_has_the_second_model() -> None:
    plan = make_plan("green", "2024-04", MONTHS, 12, None)
    row = {"rmse": 5.0, "mae": 3.0, "coverage80": 0.8, "width80": 10.0}
    scores = pd.DataFrame.from_dict({"challenger": row, "pair-median": row}, orient="index")
    importance = pd.Series({"miles": 0.5})

    with_it = pd.concat([scores, pd.DataFrame({"with distance": row | {"rmse": 4.0}}).T])

    assert not [line for line in training_answers(scores, importance, plan) if "distance" in line]
    assert "A planned distance changes the RMSE by -20.0%" in " ".join(training_answers(with_it, importance, plan))
