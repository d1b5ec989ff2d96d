"""What a version must do before it may answer."""

import math
from datetime import datetime

import numpy as np
import pandas as pd
import pytest

from taxi.errors import TaxiError
from taxi.outputs import OUTPUTS
from taxi.serving.loader import Loaded, batch_minutes, check_minutes, rehearsal, trip_frame, warm
from taxi.serving.schemas import Trip


class Even:
    """A model whose mean is the pickup zone; ``planned`` adds the planned distance."""

    planned = None

    def predict(self, trips: pd.DataFrame) -> pd.DataFrame:
        mean = trips["PULocationID"] * 0.1 + 5
        return pd.DataFrame({"mean": mean, "median": mean, "p10": mean - 1, "p90": mean + 1})


class Planned(Even):
    def predict(self, trips: pd.DataFrame) -> pd.DataFrame:
        assert trips["planned_distance"].notna().all()
        return super().predict(trips).add(trips["planned_distance"], axis=0)


class Quick:
    """A single-trip predictor that is ``off`` by some minutes, and knows no planned distance."""

    def __init__(self, off: float = 0) -> None:
        self.off = off

    def predict_one(self, pickup: datetime, PULocationID: int, *rest: object) -> tuple[float, ...]:
        assert rest[-1] is None
        mean = PULocationID * 0.1 + 5 + self.off
        return mean, mean, mean - 1, mean + 1


def trip(zone: int, miles: float | None = None) -> Trip:
    return Trip(PULocationID=zone, DOLocationID=7, planned_distance_miles=miles)


def test_a_trip_with_a_planned_distance_is_the_second_models() -> None:
    model = Even()
    model.planned = Planned()  # type: ignore[assignment]
    frame = trip_frame([trip(10), trip(20, 3.5), trip(30)], [datetime(2024, 1, 1)] * 3)

    assert batch_minutes(model, frame)[:, 0].tolist() == [6.0, 10.5, 8.0]  # type: ignore[arg-type]


def test_without_a_second_model_a_planned_distance_is_not_used() -> None:
    frame = trip_frame([trip(10), trip(20, 3.5)], [datetime(2024, 1, 1)] * 2)

    assert batch_minutes(Even(), frame)[:, 0].tolist() == [6.0, 7.0]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ((10, 10, 5, math.nan), "not a number"),
        ((10, 10, 5, math.inf), "infinite"),
        ((10, 10, 0.5, 20), "below a minute"),
        ((10, 10, 5, 61), "beyond an hour"),
        ((10, 4, 5, 20), "median below P10"),
        ((21, 10, 5, 20), "mean above P90"),
    ],
)
def test_minutes_that_cannot_be_are_not_answered(row: tuple[float, ...], fault: str) -> None:
    with pytest.raises(TaxiError, match=r"within 1\.\.60"):
        check_minutes(np.array([[10, 9, 5, 20], row], dtype=float))
    check_minutes(np.array([[10, 9, 5, 20]], dtype=float))


def test_a_version_whose_single_trip_differs_from_its_batch_may_not_serve() -> None:
    warm(Loaded(1, Even(), Quick(), None), rehearsal())  # type: ignore[arg-type]

    with pytest.raises(TaxiError, match=r"they differ by 0\.001"):
        warm(Loaded(1, Even(), Quick(0.001), None), rehearsal())  # type: ignore[arg-type]


def test_the_rehearsal_has_all_hours_and_zones_and_what_is_optional() -> None:
    trips = rehearsal()

    assert {one.PULocationID for one in trips} == {one.DOLocationID for one in trips} == set(range(1, 266))
    assert {one.pickup.hour for one in trips if one.pickup} == set(range(24))
    assert {one.planned_distance_miles for one in trips} == {None, 3.5}
    assert list(trip_frame(trips, [datetime(2024, 1, 1)] * 265))[-1] == "planned_distance" and len(OUTPUTS) == 4
