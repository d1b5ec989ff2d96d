"""The interval's edges move until eight trips in ten lie inside, in each group that has enough trips."""

import numpy as np
import pytest

from taxi.features.trip_features import NAMES
from taxi.models.calibration import GROUPS, HIGH, LOW, Calibration, calibrate, group_one, groups


def features(n: int, **columns: object) -> np.ndarray:
    seen = np.zeros((n, len(NAMES)), dtype=np.float32)
    for name, values in columns.items():
        seen[:, NAMES.index(name)] = values
    return seen


def test_every_kind_of_trip_has_a_group_of_its_own_and_one_trip_the_same_as_many() -> None:
    rng = np.random.default_rng(1)
    seen = features(
        2_000,
        hour_of_week=rng.integers(0, 168, 2_000),
        passenger_count=rng.choice([1, np.nan], 2_000),
        pickup_airport=rng.choice([0, 1, np.nan], 2_000),
        dropoff_airport=rng.choice([0, 1, np.nan], 2_000),
        pickup_borough=rng.choice([-1, 0, 3, 6, np.nan], 2_000),
    )

    found = groups(seen)

    assert [group_one(row) for row in seen] == found.tolist()
    assert found.min() >= 0 and found.max() < GROUPS
    assert len(np.unique(found)) == 2 * 2 * 4 * 5


@pytest.mark.parametrize("spread", [0.2, 0.6])
def test_edges_that_are_too_narrow_or_too_wide_are_moved_until_they_hold(spread: float) -> None:
    rng = np.random.default_rng(2)
    truth = rng.normal(2.5, 0.4, 20_000)
    seen, edges = features(20_000), np.column_stack([np.full(20_000, 2.5 - spread), np.full(20_000, 2.5 + spread)])

    found = calibrate(truth, edges, seen)

    moved = found.finish(np.column_stack([np.full((20_000, 1), 12.0), np.full((20_000, 1), 2.5), edges]), seen)
    inside = (np.exp(truth) >= moved[:, 2]) & (np.exp(truth) <= moved[:, 3])
    assert inside.mean() == pytest.approx(0.8, abs=0.01)


def test_a_group_with_few_trips_leans_on_the_others() -> None:
    rng = np.random.default_rng(3)
    truth = np.concatenate([rng.normal(0, 1, 10_000), [9.0, 9.0]])
    seen = features(10_002, passenger_count=np.concatenate([np.ones(10_000), [np.nan, np.nan]]))

    found = calibrate(truth, np.zeros((10_002, 2)), seen)

    few, many = (found.high[groups(seen)[row]] for row in (-1, 0))
    assert many == pytest.approx(1.28, abs=0.1)
    assert few == pytest.approx(many, abs=0.2)


def test_predictions_are_in_order_and_within_what_is_kept() -> None:
    margins = np.array([[80.0, 0.1, 4.9, -3.0], [0.2, 9.0, 1.0, 1.0]])

    mean, median, low, high = Calibration.none().finish(margins, features(2)).T

    assert (low <= np.minimum(mean, median)).all() and (high >= np.maximum(mean, median)).all()
    assert min(low) >= LOW and max(high) <= HIGH
