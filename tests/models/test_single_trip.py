"""One trip at a time gives what a million give, for every kind of trip, with and without a planned distance."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from taxi.errors import TaxiError
from taxi.features.trip_features import planned_distance
from taxi.models.fitting import fit_model
from taxi.models.model import DurationModel, save_model
from taxi.models.single_trip import FastModel, Forest, fast_model
from taxi.params import load_params
from taxi.registry.golden import write_golden
from taxi.registry.versions import Version
from taxi.serving.follower import examine
from taxi.serving.local_store import find_trees

Trips = Callable[..., pd.DataFrame]


@pytest.fixture(scope="module")
def trips(sample_trips: Trips) -> pd.DataFrame:
    made = planned_distance(sample_trips("2024-01", 6_000))
    odd = made.head(300).assign(PULocationID=264, DOLocationID=np.resize([1, 264, 265], 300), passenger_count=np.nan)
    return pd.concat([made, odd], ignore_index=True)


@pytest.fixture(scope="module")
def model(trips: pd.DataFrame, zones: pd.DataFrame) -> DurationModel:
    params = load_params()
    quick = params.model.model_copy(update={"rounds": 30, "head_rounds": 10, "interval_rounds": 10, "max_depth": 7})
    return fit_model(trips, zones, quick, params.features)


@pytest.fixture(scope="module")
def fast(model: DurationModel) -> FastModel:
    return fast_model(model)


def known(trip: pd.Series) -> tuple[datetime, int, int, float, float, float]:
    zones = int(trip["PULocationID"]), int(trip["DOLocationID"])
    return trip["pickup"].to_pydatetime(), *zones, trip["passenger_count"], trip["trip_type"], trip["VendorID"]


@pytest.mark.slow
def test_one_trip_gets_what_it_gets_in_a_batch(model: DurationModel, fast: FastModel, trips: pd.DataFrame) -> None:
    batch = model.predict(trips).to_numpy()

    for row in [*range(0, len(trips), 17), len(trips) - 1]:
        assert fast.predict_one(*known(trips.iloc[row])) == pytest.approx(batch[row], abs=1e-9)


def test_a_planned_distance_asks_the_planned_model(model: DurationModel, fast: FastModel, trips: pd.DataFrame) -> None:
    assert model.planned is not None
    batch = model.planned.predict(trips).to_numpy()

    for row in np.flatnonzero(trips["planned_distance"].notna())[::37]:
        trip = trips.iloc[row]
        assert fast.predict_one(*known(trip), trip["planned_distance"]) == pytest.approx(batch[row], abs=1e-9)


def test_trees_that_were_kept_in_a_file_give_the_same(model: DurationModel, fast: FastModel, tmp_path: Path) -> None:
    fast.save_trees(tmp_path / "trees.npz")
    kept, when = fast_model(model, tmp_path / "trees.npz"), datetime(2024, 2, 6, 8, 15)

    for distance in (None, 3.5):
        asked = (when, 74, 138, 1.0, 1.0, 2.0, distance)
        assert kept.predict_one(*asked) == fast.predict_one(*asked)


def test_a_version_that_is_still_kept_comes_back_without_growing_its_trees_again(
    model: DurationModel, trips: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, tags = tmp_path / "versions" / "1-x", {"golden": write_golden(model, trips.head(50))}
    save_model(model, folder)
    version = Version("green", 1, "2024-01", "2024-01", None, {}, tags, "", "")
    examine("green", version, folder)
    monkeypatch.setattr(Forest, "grow", lambda boosted: pytest.fail("the trees were grown again"))

    examine("green", version, folder)

    find_trees(folder).unlink()  # type: ignore[union-attr]
    with pytest.raises(pytest.fail.Exception, match="grown again"):
        examine("green", version, folder)


def test_a_zone_that_does_not_exist_counts_as_unknown(fast: FastModel) -> None:
    when = datetime(2024, 2, 1, 12, 30)

    assert fast.predict_one(when, 999, -4) == fast.predict_one(when, 0, 0)


def test_a_distance_without_a_model_for_it_is_an_error(model: DurationModel) -> None:
    without = fast_model(DurationModel(model.features, model.distribution, model.recipe))

    with pytest.raises(TaxiError, match="expected a trip without planned_distance"):
        without.predict_one(datetime(2024, 2, 1), 1, 2, planned_distance=3.0)


def test_a_simple_model_has_no_fast_path(trips: pd.DataFrame, zones: pd.DataFrame) -> None:
    params = load_params()
    floor = fit_model(trips, zones, params.model.model_copy(update={"kind": "pair-median"}), params.features)

    with pytest.raises(TaxiError, match="got pair-median"):
        fast_model(floor)
