"""Contributions multiply up to what the trunk predicts, and kinds without trees say that they have none."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from taxi.models.boosted import Boosted, filled
from taxi.models.fitting import fit_model
from taxi.models.model import DurationModel
from taxi.params import load_params
from taxi.reporting import plots
from taxi.reporting.feature_tables import Explained, effect_table, explain, explanation, trip_table, typical_trip

pytestmark = pytest.mark.slow

Trips = Callable[..., pd.DataFrame]


def fit(trips: pd.DataFrame, zones: pd.DataFrame, kind: str) -> DurationModel:
    params = load_params()
    small = {"kind": kind, "rounds": 30, "max_depth": 5, "trips_per_round": 300, "head_rounds": 5}
    return fit_model(trips, zones, params.model.model_copy(update=small), params.features)


@pytest.fixture(scope="module")
def past(sample_trips: Trips) -> pd.DataFrame:
    return sample_trips("2024-01", 4_000)


@pytest.fixture(scope="module")
def model(past: pd.DataFrame, zones: pd.DataFrame) -> DurationModel:
    return fit(past, zones, "xgboost")


@pytest.fixture(scope="module")
def found(model: DurationModel, past: pd.DataFrame) -> Explained:
    explained = explain(model, past, seed=1, rows=100)
    assert explained is not None
    return explained


@pytest.mark.parametrize("which", ["plain", "planned"])
def test_contributions_add_up_to_the_trunks_margin(which: str, model: DurationModel, past: pd.DataFrame) -> None:
    one = model if which == "plain" else model.planned
    found = explain(one, past, seed=1, rows=100)

    assert isinstance(one.distribution, Boosted)
    margin = one.distribution.parts["trunk"].inplace_predict(filled(found.seen.to_numpy()), predict_type="margin")
    assert len(found.trips) == 100
    assert np.allclose(found.base + found.effect.sum(axis=1), margin, atol=1e-4)
    assert np.allclose(found.minutes, np.exp(margin), rtol=1e-4)


def test_the_same_seed_explains_the_same_trips(found: Explained, model: DurationModel, past: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(explain(model, past, seed=1, rows=100).effect, found.effect, check_exact=True)
    assert not explain(model, past, seed=2, rows=100).trips.index.equals(found.trips.index)


def test_the_strongest_feature_comes_first_in_percent(found: Explained) -> None:
    table = effect_table(found)

    first = table.index[0]
    assert first == found.effect.abs().mean().idxmax()
    assert table.loc[first, "mean effect"] == pytest.approx(100 * np.expm1(found.effect[first].abs().mean()))
    assert (table["largest down"] <= table["largest up"]).all()


def test_one_trips_steps_end_at_the_trunks_minutes(found: Explained) -> None:
    steps = trip_table(found, most=5)

    assert list(steps.index[[0, -1]]) == ["average trip", "all others"]
    assert len(steps) == 7
    assert steps["minutes"].iloc[0] == pytest.approx(np.exp(found.base))
    assert steps["minutes"].iloc[-1] == pytest.approx(found.minutes[typical_trip(found)])
    assert np.allclose(
        steps["minutes"].iloc[1:] / steps["minutes"].shift().iloc[1:], 1 + steps["effect"].iloc[1:] / 100
    )


def test_kinds_without_trees_say_so_and_leave_empty_tables(past: pd.DataFrame, zones: pd.DataFrame) -> None:
    found = explain(fit(past, zones, "linear"), past, seed=1)

    assert found is None
    assert explanation(found, "linear").startswith("A model of kind linear has no trees")
    assert effect_table(found)["mean effect"].head(12).round(1).to_dict() == {}
    assert trip_table(found).round(1).empty


def test_the_pictures_take_full_and_empty_tables(found: Explained) -> None:
    for one in (found, None):
        assert plots.mean_effects(effect_table(one)["mean effect"]).axes
        assert plots.one_trip(trip_table(one)).axes
