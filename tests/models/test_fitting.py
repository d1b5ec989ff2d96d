"""Months are learnt one by one: the same model as from one frame, thinned by age where there are too many trips."""

from collections.abc import Callable
from functools import reduce

import numpy as np
import pandas as pd
import pytest

from taxi.features.trip_features import NAMES, PLANNED, TripFeatures
from taxi.models.boosted import Boosted, schedule
from taxi.models.calibration import Calibration
from taxi.models.fitting import (
    COLUMNS,
    DAY_OF_YEAR,
    Tally,
    boost_both,
    doubt_season,
    draw_rows,
    fit_months,
    maker_of,
    plan_draw,
    recency_weights,
    tally_month,
    thinning,
)
from taxi.params import ModelParams, load_params

Trips = Callable[..., pd.DataFrame]
AS_OF = pd.Timestamp("2024-03-01")


@pytest.fixture(scope="module")
def months(sample_trips: Trips) -> list[pd.DataFrame]:
    return [sample_trips(month, 3_000)[COLUMNS] for month in ("2024-01", "2024-02")]


def recipe(**changes: object) -> ModelParams:
    quick = {"rounds": 8, "head_rounds": 4, "interval_rounds": 6, "max_depth": 4, "planned": False}
    return load_params().model.model_copy(update=quick | changes)


def rows_of(parts: list[pd.DataFrame], zones: pd.DataFrame) -> np.ndarray:
    """Return what boosting gets of these months: features, minutes, weight, newest; in an order of their own."""
    params = load_params()
    maker = maker_of(zones, params.model, params.features)
    tally = reduce(Tally.join, (tally_month(lambda part=part: part, maker, AS_OF, 240) for part in parts))
    maker.restore(tally.sums)
    draw = plan_draw(tally.days, AS_OF, params.model)
    drawn = [draw_rows(lambda part=part: part, maker, draw) for part in parts]
    table = np.vstack([np.column_stack([one.seen, one.minutes, one.weight, one.newest]) for one in drawn])
    return table[np.lexsort(table.T)]


@pytest.mark.slow
def test_months_one_by_one_give_the_rows_that_one_frame_gives(months: list[pd.DataFrame], zones: pd.DataFrame) -> None:
    together = pd.concat(months, ignore_index=True)

    np.testing.assert_allclose(rows_of(months, zones), rows_of([together], zones), rtol=1e-6)


def test_trips_of_a_pair_lie_together_so_that_boosting_is_faster(
    months: list[pd.DataFrame], zones: pd.DataFrame
) -> None:
    maker = TripFeatures(zones)
    tally = tally_month(lambda: months[0], maker, AS_OF, 240)
    seen = draw_rows(lambda: months[0], maker.restore(tally.sums), plan_draw(tally.days, AS_OF, recipe())).seen

    changes = np.any(np.diff(seen[:, :2], axis=0) != 0, axis=1).sum()
    assert changes == len(np.unique(seen[:, :2], axis=0)) - 1


def test_tallies_of_months_add_up_to_the_tally_of_all(months: list[pd.DataFrame], zones: pd.DataFrame) -> None:
    maker = TripFeatures(zones)
    one, two = (tally_month(lambda part=part: part, maker, AS_OF, 240) for part in months)

    both = one.join(two)
    whole = tally_month(lambda: pd.concat(months, ignore_index=True), maker, AS_OF, 240)

    assert both.days.sum() == 6_000 == whole.days.sum() or both.days.equals(whole.days)
    for fold, other in zip(both.sums, whole.sums, strict=True):
        for name, (total, count) in fold.items():
            assert np.allclose(total, other[name][0])
            assert np.allclose(count, other[name][1])


def test_few_trips_are_all_kept_and_many_are_thinned_to_the_limit_by_age() -> None:
    days = pd.Series([1_000.0] * 100, index=pd.date_range("2023-11-22", periods=100))
    weight = recency_weights(days.index.to_series(), AS_OF, 30)

    scale = thinning(days, weight, 40_000)

    assert thinning(days, weight, 100_000) == float("inf")
    share = np.minimum(1, scale * weight)
    assert share @ days.to_numpy() == pytest.approx(40_000, rel=1e-6)
    assert (np.diff(share) >= 0).all()
    assert share[-1] == 1


def test_a_thinned_month_weighs_as_much_as_the_whole(months: list[pd.DataFrame], zones: pd.DataFrame) -> None:
    maker = TripFeatures(zones, planned=True)
    tally = tally_month(lambda: months[0], maker, AS_OF, 240)
    maker.restore(tally.sums)

    all_rows, some = (
        draw_rows(lambda: months[0], maker, plan_draw(tally.days, AS_OF, recipe(max_rows=limit)))
        for limit in (1_000_000, 1_000)
    )

    assert len(some.minutes) == pytest.approx(1_000, abs=120)
    assert some.weight.sum() == pytest.approx(all_rows.weight.sum(), rel=0.12)


def test_the_newest_weeks_calibrate_but_never_more_than_a_quarter_of_the_days() -> None:
    year = pd.Series(1.0, index=pd.date_range("2023-03-01", "2024-02-29"))
    three_weeks = year.iloc[-21:]

    assert plan_draw(year, AS_OF, recipe()).newest == AS_OF - pd.Timedelta(days=28)
    assert plan_draw(three_weeks, AS_OF, recipe()).newest == AS_OF - pd.Timedelta(days=5)


def test_behind_a_gap_the_newest_weeks_are_those_of_the_newest_month_there_is() -> None:
    year = pd.Series(1.0, index=pd.date_range("2022-03-01", "2023-02-28"))

    assert plan_draw(year, AS_OF, recipe()).newest == pd.Timestamp("2023-02-01")


def test_a_trip_from_after_the_window_and_no_trip_at_all_are_errors(
    months: list[pd.DataFrame], zones: pd.DataFrame
) -> None:
    features = load_params().features

    with pytest.raises(ValueError, match="expected every training pickup before 2024-02-15"):
        fit_months([lambda: months[1]], zones, recipe(), features, pd.Timestamp("2024-02-15"))
    with pytest.raises(ValueError, match="expected at least one trip to learn from"):
        fit_months([lambda: months[0].head(0)], zones, recipe(), features, AS_OF)


def test_fewer_trips_take_fewer_and_larger_steps() -> None:
    assert schedule(500, 0.06, 1_000_000, 1_000) == (500, 0.06)
    assert schedule(500, 0.06, 250_000, 1_000) == (250, 0.12)
    assert schedule(500, 0.06, 10_000, 1_000) == (60, 0.3)
    assert schedule(40, 0.06, 10_000, 1_000) == (40, 0.06)


def test_a_share_of_trips_is_given_another_day_of_the_year_and_gaps_stay_gaps() -> None:
    seen = np.full((20_000, len(NAMES)), 1.0, dtype=np.float32)
    seen[:, DAY_OF_YEAR] = 15
    gaps = seen.copy()
    gaps[:, DAY_OF_YEAR] = np.nan

    doubted, unknown = (doubt_season(one, 0.25, np.random.default_rng(7)) for one in (seen, gaps))

    other = doubted[:, DAY_OF_YEAR][doubted[:, DAY_OF_YEAR] != 15]
    assert len(other) / len(seen) == pytest.approx(0.25 * 365 / 366, abs=0.01)
    assert (other.min(), other.max()) == (1, 366)
    assert np.isnan(unknown[:, DAY_OF_YEAR]).all()
    assert (np.delete(doubted, DAY_OF_YEAR, axis=1) == 1).all()


def test_the_second_model_has_a_recipe_of_its_own(zones: pd.DataFrame) -> None:
    asked: list[tuple[int, int, float, int]] = []

    def boost(columns: int, params: ModelParams) -> Boosted:
        asked.append((columns, params.rounds, params.learning_rate, params.max_depth))
        return Boosted({}, Calibration.none())

    own = {"rounds": 3, "learning_rate": 0.5, "max_depth": 2}
    planned = {"planned_rounds": 7, "planned_learning_rate": 0.2, "planned_max_depth": 4, "planned": True}
    both = boost_both(boost, TripFeatures(zones, planned=True), {}, recipe(**own, **planned))

    assert asked == [(len(NAMES) + len(PLANNED), 7, 0.2, 4), (len(NAMES), 3, 0.5, 2)]
    assert both.planned is not None and both.planned.features.planned and not both.features.planned
