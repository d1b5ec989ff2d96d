"""Features know only what is known when a trip starts, and are the same for a million trips and for one."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from taxi.data.schema import AT_PICKUP
from taxi.features.lookups import holiday_flags
from taxi.features.trip_features import MANY, NAMES, TripAtPickup, TripFeatures, at_pickup

Trips = Callable[..., pd.DataFrame]
KNOWN_AT_DROPOFF = ["dropoff", "duration", "trip_distance", "RatecodeID", "payment_type", "total_amount"]


@pytest.fixture(scope="module")
def trips(sample_trips: Trips) -> pd.DataFrame:
    return sample_trips("2024-01")


@pytest.fixture(scope="module")
def fitted(trips: pd.DataFrame, zones: pd.DataFrame) -> TripFeatures:
    return TripFeatures(zones).fit(at_pickup(trips), trips["duration"])


def _number(value: float) -> float:
    return int(value) if float(value).is_integer() else float(value)


def column(matrix: np.ndarray, name: str) -> np.ndarray:
    return matrix[:, NAMES.index(name)]


def test_only_columns_known_at_pickup_are_read() -> None:
    assert not set(AT_PICKUP) & set(KNOWN_AT_DROPOFF)


def test_poisoned_dropoff_columns_change_nothing(fitted: TripFeatures, trips: pd.DataFrame) -> None:
    poisoned = trips.copy()
    for name in set(trips.columns) - set(AT_PICKUP):
        poisoned[name] = pd.NaT if name == "dropoff" else -1e9

    assert np.array_equal(fitted.transform(trips), fitted.transform(poisoned), equal_nan=True)
    assert np.array_equal(fitted.transform(trips), fitted.transform(trips[AT_PICKUP]), equal_nan=True)


def test_a_single_trip_has_the_features_it_has_among_many(fitted: TripFeatures, trips: pd.DataFrame) -> None:
    together = fitted.transform(trips)

    for row in range(0, len(trips), 401):
        alone = fitted.transform(trips.iloc[[row]])
        assert alone.tobytes() == together[[row]].tobytes()


def test_the_day_of_the_year_is_told_only_where_a_whole_year_was_learnt(
    fitted: TripFeatures, trips: pd.DataFrame, zones: pd.DataFrame
) -> None:
    year = pd.concat([trips.assign(pickup=trips["pickup"] + pd.DateOffset(months=by)) for by in range(12)])

    year_round = TripFeatures(zones).fit(year, year["duration"])
    asked = year.iloc[::5003]
    told = year_round.transform(asked)

    assert np.isnan(column(fitted.transform(trips), "day_of_year")).all()
    assert column(told, "day_of_year").tolist() == asked["pickup"].dt.dayofyear.tolist()
    for row, trip in zip(told, asked[AT_PICKUP].itertuples(index=False), strict=True):
        one = year_round.transform_one(TripAtPickup(trip.pickup.to_pydatetime(), *map(_number, trip[1:])))
        np.testing.assert_array_equal(one, row)


def test_the_order_of_trips_does_not_matter(fitted: TripFeatures, trips: pd.DataFrame) -> None:
    mixed = trips.sample(frac=1, random_state=1)

    assert np.array_equal(fitted.transform(mixed), fitted.transform(trips)[mixed.index], equal_nan=True)


def test_many_trips_have_the_features_that_they_have_in_small_parts(fitted: TripFeatures, make_trips: Trips) -> None:
    trips = make_trips(MANY + 1)
    half = MANY // 2

    parts = [fitted.transform(trips[:half]), fitted.transform(trips[half:])]

    np.testing.assert_array_equal(fitted.transform(trips), np.concatenate(parts))


def test_learning_is_out_of_fold(trips: pd.DataFrame, zones: pd.DataFrame) -> None:
    """A trip's own duration must not reach its own features in training."""
    changed = trips["duration"].copy()
    changed.iloc[0] += 30

    before = TripFeatures(zones).fit_transform(at_pickup(trips), trips["duration"])
    after = TripFeatures(zones).fit_transform(at_pickup(trips), changed)

    assert np.allclose(before[0], after[0], rtol=1e-5, equal_nan=True)
    assert not np.allclose(before, after, rtol=1e-5, equal_nan=True)


def test_history_of_a_pair_is_pulled_towards_what_its_distance_takes(zones: pd.DataFrame, make_trips: Trips) -> None:
    one = make_trips(1, PULocationID=74, DOLocationID=75, duration=30.0)
    far, near = (TripFeatures(zones, smoothing=s).fit(one, one["duration"]).transform(one) for s in (1e9, 1e-9))

    assert column(near, "pair_minutes")[0] == pytest.approx(30, abs=0.01)
    assert column(far, "pair_minutes")[0] == pytest.approx(21, abs=0.01)  # (12 + 30) / 2: one trip, one of prior


@pytest.mark.parametrize("zone", [264, 265, 999, -4, np.nan])
def test_unknown_zones_and_unseen_pairs_have_features(fitted: TripFeatures, trips: pd.DataFrame, zone: float) -> None:
    strange = trips.head(3).assign(PULocationID=zone, DOLocationID=265)

    seen = fitted.transform(strange)

    assert np.isfinite(column(seen, "pair_minutes")).all()
    assert np.isnan(column(seen, "miles")).all()


def test_a_planned_way_takes_what_miles_took_before_between_the_zones_and_at_the_hour(
    zones: pd.DataFrame, make_trips: Trips
) -> None:
    many = make_trips(4_000, PULocationID=74, DOLocationID=75, duration=12.0).assign(planned_distance=2.0)
    unknown = many.assign(planned_distance=np.nan, duration=50.0)
    past = pd.concat([many, unknown], ignore_index=True)
    asked = many.head(3).assign(planned_distance=[1.0, 4.0, np.nan])

    maker = TripFeatures(zones, planned=True).fit(past, past["duration"])
    minutes = maker.transform(asked)[:, len(NAMES) + 2 :]

    assert minutes[:2] == pytest.approx(np.repeat([[6.0], [24.0]], 4, axis=1), rel=0.01)  # six minutes a mile
    assert np.isnan(minutes[2]).all()


@pytest.mark.parametrize(
    ("day", "free", "near"),
    [("2023-07-04", 1, 0), ("2023-07-05", 0, 1), ("2023-11-23", 1, 0), ("2023-03-15", 0, 0), ("2023-12-31", 0, 1)],
)
def test_new_yorks_holidays(day: str, free: int, near: int) -> None:
    is_free, is_near = holiday_flags(np.array([day], dtype="datetime64[D]").astype(int))

    assert (is_free[0], is_near[0]) == (free, near)


def test_no_trips_is_an_error(trips: pd.DataFrame, zones: pd.DataFrame) -> None:
    with pytest.raises(ValueError, match="expected at least one trip to learn from"):
        TripFeatures(zones).fit(trips.head(0), trips["duration"].head(0))


def test_a_missing_column_is_named(trips: pd.DataFrame) -> None:
    with pytest.raises(ValueError, match=r"\['VendorID'\] are missing"):
        at_pickup(trips.drop(columns="VendorID"))


def test_only_features_fitted_here_look_back(zones: pd.DataFrame, sample_trips: Callable[..., pd.DataFrame]) -> None:
    trips = sample_trips("2024-01", 500)
    fitted = TripFeatures(zones).fit(trips, trips["duration"])
    read = TripFeatures(zones).restore([fitted.sums_])

    for without_folds in (TripFeatures(zones), read):
        with pytest.raises(ValueError, match="expected features fitted here"):
            without_folds.look_back(trips)
