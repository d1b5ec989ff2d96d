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
from taxi.models.model import DurationModel, load_model, save_model
from taxi.models.single_trip import FastModel
from taxi.params import load_params
from taxi.registry.golden import write_golden
from taxi.registry.versions import Version
from taxi.serving.follower import examine

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
    return FastModel(model)


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


def asked_both_ways(fast: FastModel) -> list[tuple[float, ...]]:
    return [fast.predict_one(datetime(2024, 2, 6, 8, 15), 74, 138, 1.0, 1.0, 2.0, miles) for miles in (None, 3.5)]


def test_a_models_file_has_its_trees_grown_and_they_give_the_same(
    model: DurationModel, fast: FastModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_model(model, tmp_path / "model")
    monkeypatch.setattr("taxi.models.boosted.grow_trees", lambda parts: pytest.fail("the trees were grown again"))

    assert asked_both_ways(FastModel(load_model(tmp_path / "model"))) == asked_both_ways(fast)


def test_the_trees_of_a_model_without_them_are_grown_when_it_is_loaded(
    model: DurationModel, fast: FastModel, trips: pd.DataFrame, tmp_path: Path
) -> None:
    save_model(model, tmp_path / "model")
    for folder in (tmp_path / "model", tmp_path / "model" / "planned"):
        (folder / "trees.npz").unlink()

    assert asked_both_ways(FastModel(load_model(tmp_path / "model"))) == asked_both_ways(fast)
    version = Version(
        "green", 1, "2024-01", "2024-01", None, {}, {"golden": write_golden(model, trips.head(50))}, "", ""
    )
    examine("green", version, tmp_path / "model")


def test_a_version_whose_trees_are_another_models_may_not_serve(
    model: DurationModel, trips: pd.DataFrame, tmp_path: Path
) -> None:
    save_model(model, tmp_path / "model")
    with np.load(tmp_path / "model" / "trees.npz") as archive:
        changed = dict(archive) | {"leaf": archive["leaf"] * np.float32(1.01)}
    np.savez(tmp_path / "model" / "trees.npz", **changed)
    version = Version(
        "green", 1, "2024-01", "2024-01", None, {}, {"golden": write_golden(model, trips.head(50))}, "", ""
    )

    with pytest.raises(TaxiError, match="a trip alone and among others"):
        examine("green", version, tmp_path / "model")


def test_a_zone_that_does_not_exist_counts_as_unknown(fast: FastModel) -> None:
    when = datetime(2024, 2, 1, 12, 30)

    assert fast.predict_one(when, 999, -4) == fast.predict_one(when, 0, 0)


def test_a_distance_without_a_model_for_it_is_an_error(model: DurationModel) -> None:
    without = FastModel(DurationModel(model.features, model.distribution, model.recipe))

    with pytest.raises(TaxiError, match="expected a trip without planned_distance"):
        without.predict_one(datetime(2024, 2, 1), 1, 2, planned_distance=3.0)


def test_a_simple_model_has_no_fast_path(trips: pd.DataFrame, zones: pd.DataFrame) -> None:
    params = load_params()
    floor = fit_model(trips, zones, params.model.model_copy(update={"kind": "pair-median"}), params.features)

    with pytest.raises(TaxiError, match="got pair-median"):
        FastModel(floor)
