"""Metrics, at their limits and worked by hand."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from taxi.models.evaluate import error_by_predicted, score, slices


def test_a_perfect_prediction_has_no_error() -> None:
    truth = pd.Series([5.0, 10.0, 20.0])

    found = score(truth, truth)

    assert (found["rmse"], found["mae"], found["medae"], found["p90"], found["within5"]) == (0, 0, 0, 0, 1)


def test_errors_worked_by_hand() -> None:
    predicted = pd.DataFrame(
        {"mean": [6.0, 8.0, 28.0], "median": [6.0, 8.0, 28.0], "p10": [4.0, 11.0, 10.0], "p90": [8.0, 14.0, 30.0]}
    )

    found = score(pd.Series([5.0, 10.0, 20.0]), predicted)

    assert found["rmse"] == pytest.approx(np.sqrt((1 + 4 + 64) / 3))
    assert found["mae"] == pytest.approx(11 / 3)
    assert found["medae"] == 2
    assert found["p90"] == pytest.approx(2 + 0.8 * 6)
    assert found["within5"] == pytest.approx(2 / 3)
    assert found["coverage80"] == pytest.approx(2 / 3)
    assert found["width80"] == pytest.approx((4 + 3 + 20) / 3)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_prediction_that_is_no_number_is_an_error(bad: float) -> None:
    with pytest.raises(ValueError, match="expected finite predictions and durations; 1 are not"):
        score(pd.Series([5.0, 6.0]), pd.Series([5.0, bad]))


def test_no_trips_is_an_error() -> None:
    with pytest.raises(ValueError, match="expected at least one trip to score"):
        score(pd.Series([], dtype=float), pd.Series([], dtype=float))


def test_hour_bands_and_the_null_block_divide_the_trips(
    make_trips: Callable[..., pd.DataFrame], zones: pd.DataFrame
) -> None:
    trips = make_trips(500)

    masks = slices(trips, zones)

    bands = np.sum([mask for name, mask in masks.items() if name.startswith("hours")], axis=0)
    assert (bands == 1).all()
    assert masks["null block: yes"].sum() == trips["passenger_count"].isna().sum() > 0


def test_coverage_is_given_by_what_was_predicted() -> None:
    predicted = pd.DataFrame(
        {"mean": [3.0, 4.0, 40.0], "median": [3.0, 4.0, 40.0], "p10": [2.0, 3.0, 30.0], "p90": [4.0, 5.0, 50.0]}
    )

    table = error_by_predicted(pd.Series([3.0, 9.0, 45.0]), predicted)

    assert list(table.index) == ["0-5", "30+"]
    assert table["coverage80"].tolist() == [0.5, 1.0]
