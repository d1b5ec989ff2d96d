"""Models learn from the past only, beat a table of medians, and come back from disk to the last bit."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from taxi.data.schema import AT_PICKUP
from taxi.data.synthetic import NOISE, expected_minutes
from taxi.errors import TaxiError
from taxi.files import read_json, sha256_tree, write_json
from taxi.models.evaluate import score
from taxi.models.fitting import fit_model, recency_weights
from taxi.models.model import DENSE_FORMAT, FORMAT, DurationModel, load_model, save_model
from taxi.params import Params, load_params

Trips = Callable[..., pd.DataFrame]
KINDS = ("xgboost", "linear", "pair-median")


def small(kind: str = "xgboost") -> Params:
    params = load_params()
    recipe = params.model.model_copy(
        update={
            "kind": kind,
            "rounds": 40,
            "max_depth": 5,
            "trips_per_round": 300,
            "head_max_depth": 5,
            "interval_max_depth": 4,
        }
    )
    return params.model_copy(update={"model": recipe})


def fit(trips: pd.DataFrame, zones: pd.DataFrame, kind: str = "xgboost") -> DurationModel:
    params = small(kind)
    return fit_model(trips, zones, params.model, params.features)


@pytest.fixture(scope="module")
def past(sample_trips: Trips) -> pd.DataFrame:
    return sample_trips("2024-01", 12_000)


@pytest.fixture(scope="module")
def month(sample_trips: Trips) -> pd.DataFrame:
    return sample_trips("2024-02", 4_000)


@pytest.fixture(scope="module")
def model(past: pd.DataFrame, zones: pd.DataFrame) -> DurationModel:
    return fit(past, zones)


@pytest.mark.slow
def test_it_beats_the_zone_pairs_median_and_cannot_beat_the_noise(
    model: DurationModel, past: pd.DataFrame, month: pd.DataFrame, zones: pd.DataFrame
) -> None:
    floor = score(month["duration"], fit(past, zones, "pair-median").predict(month))["rmse"]
    ours = score(month["duration"], model.predict(month))["rmse"]
    inside = month[(month["PULocationID"] <= 263) & (month["DOLocationID"] <= 263)]
    best = expected_minutes("green", inside["pickup"], inside)

    assert ours < 0.9 * floor
    assert ours > 0.9 * score(inside["duration"], pd.Series(best, index=inside.index))["rmse"] > NOISE


def test_predictions_do_not_change_when_dropoff_columns_are_poisoned(model: DurationModel, month: pd.DataFrame) -> None:
    poisoned = month.copy()
    for name in set(month.columns) - set(AT_PICKUP):
        poisoned[name] = pd.NaT if name == "dropoff" else 1e9

    pd.testing.assert_frame_equal(model.predict(month), model.predict(poisoned), check_exact=True)


def test_a_single_trip_gets_the_prediction_it_gets_among_many(model: DurationModel, month: pd.DataFrame) -> None:
    together = model.predict(month)

    for row in range(0, len(month), 701):
        pd.testing.assert_frame_equal(model.predict(month.iloc[[row]]), together.iloc[[row]], check_exact=True)


def test_across_the_city_takes_longer_than_inside_a_zone(model: DurationModel, month: pd.DataFrame) -> None:
    start = month.head(200).assign(PULocationID=1)

    across, inside = (model.predict(start.assign(DOLocationID=zone))["mean"].mean() for zone in (263, 1))

    assert across > 2 * inside


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.slow
def test_quantiles_are_in_order(kind: str, past: pd.DataFrame, month: pd.DataFrame, zones: pd.DataFrame) -> None:
    predicted = fit(past, zones, kind).predict(month)

    for middle in ("mean", "median"):
        assert (predicted["p10"] <= predicted[middle]).all()
        assert (predicted[middle] <= predicted["p90"]).all()
    assert predicted.min().min() >= 1
    assert predicted.max().max() <= 60


def test_the_interval_holds_about_eight_trips_in_ten(model: DurationModel, month: pd.DataFrame) -> None:
    assert 0.74 < score(month["duration"], model.predict(month))["coverage80"] < 0.86


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.slow
def test_a_model_comes_back_from_disk_to_the_last_bit(
    kind: str, past: pd.DataFrame, month: pd.DataFrame, zones: pd.DataFrame, tmp_path: Path
) -> None:
    fitted = fit(past, zones, kind)
    save_model(fitted, tmp_path / "model")

    loaded = load_model(tmp_path / "model")

    pd.testing.assert_frame_equal(loaded.predict(month), fitted.predict(month), check_exact=True)


def test_a_model_of_the_format_before_still_comes_back(
    model: DurationModel, month: pd.DataFrame, tmp_path: Path
) -> None:
    save_model(model, tmp_path / "model")
    dense = {f"sum/{name}": total for name, (total, _) in model.features.sums_.items()}
    dense |= {f"count/{name}": count for name, (_, count) in model.features.sums_.items()}
    np.savez_compressed(tmp_path / "model" / "tables.npz", **dense)
    recipe = tmp_path / "model" / "recipe.json"
    write_json(recipe, read_json(recipe) | {"format": DENSE_FORMAT})

    loaded = load_model(tmp_path / "model")

    pd.testing.assert_frame_equal(loaded.predict(month), model.predict(month), check_exact=True)


@pytest.mark.slow
def test_the_same_trips_give_the_same_bytes(past: pd.DataFrame, zones: pd.DataFrame, tmp_path: Path) -> None:
    for name in ("one", "two"):
        save_model(fit(past, zones), tmp_path / name)

    assert sha256_tree(tmp_path / "one") == sha256_tree(tmp_path / "two")


def test_no_file_of_a_model_needs_pickle(model: DurationModel, tmp_path: Path) -> None:
    save_model(model, tmp_path / "model")

    kinds = {path.suffix for path in (tmp_path / "model").rglob("*") if path.is_file()}

    assert kinds == {".ubj", ".npz", ".parquet", ".json"}


def test_a_folder_without_a_model_and_another_format_are_named(model: DurationModel, tmp_path: Path) -> None:
    with pytest.raises(TaxiError, match=r"there is no recipe\.json"):
        load_model(tmp_path)
    save_model(model, tmp_path / "model")
    recipe = tmp_path / "model" / "recipe.json"
    write_json(recipe, read_json(recipe) | {"format": 99})
    with pytest.raises(TaxiError, match=f"expected a model of format {FORMAT}"):
        load_model(tmp_path / "model")


def test_weights_halve_every_half_life(make_trips: Trips) -> None:
    pickup = pd.Series(pd.to_datetime(["2024-01-01", "2024-01-31", "2024-03-01"]))

    assert np.allclose(recency_weights(pickup, pd.Timestamp("2024-03-01"), 30), [0.25, 0.5, 1.0])
