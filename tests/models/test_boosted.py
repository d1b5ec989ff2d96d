"""The quantiles' loss is the smoothed pinball loss, and finds the quantiles; the interval never sees the newest weeks."""

import numpy as np
import pytest
import xgboost

from taxi.errors import UsageError
from taxi.models.boosted import SMOOTH, Rows, fit_boosted, quantile_loss, step_to
from taxi.params import load_params
from tests.support.worlds import ROOT


def smoothed_pinball(margin: np.ndarray, truth: np.ndarray, level: float) -> np.ndarray:
    over = (margin - truth) / float(SMOOTH)
    return float(SMOOTH) * np.logaddexp(0, over) - level * (margin - truth)


def test_its_gradients_are_those_of_the_smoothed_pinball_loss() -> None:
    rng = np.random.default_rng(1)
    truth, margin, weight = rng.normal(size=(2, 500)), rng.normal(size=(2, 500)), rng.random(500)
    levels, step = (0.1, 0.9), 1e-4
    matrix = xgboost.DMatrix(np.zeros((500, 1)), label=truth.T, weight=weight)

    slope, curve = quantile_loss(*levels)(margin.T.astype(np.float32), matrix)

    for place, level in enumerate(levels):
        at = [smoothed_pinball(margin[place] + by, truth[place], level) for by in (-step, 0, step)]
        assert slope[:, place] == pytest.approx(weight * (at[2] - at[0]) / (2 * step), abs=1e-3)
        assert curve[:, place] == pytest.approx(weight * (at[2] - 2 * at[1] + at[0]) / step**2, abs=2e-2)


def test_boosting_with_it_finds_the_quantiles() -> None:
    truth = np.random.default_rng(2).normal(size=20_000).astype(np.float32)
    seen = np.zeros((len(truth), 1), dtype=np.float32)
    both = np.column_stack([truth, truth])
    matrix = xgboost.QuantileDMatrix(seen, label=both, base_margin=np.zeros_like(both), weight=np.ones(len(truth)))

    booster = xgboost.train({"learning_rate": 0.3, "max_depth": 1}, matrix, 60, obj=quantile_loss(0.1, 0.9))

    found = booster.predict(matrix, output_margin=True)[0]
    assert found == pytest.approx(np.quantile(truth, [0.1, 0.9]), abs=0.03)


def test_the_interval_learns_from_older_trips_only_and_from_fewer_where_there_are_many() -> None:
    newest = np.arange(100) >= 80
    rows = Rows(np.arange(100.0).reshape(-1, 1), np.arange(100.0), np.ones(100), newest)

    assert rows.older(1).minutes.tolist() == list(range(80))
    assert rows.older(3).minutes.tolist() == list(range(0, 80, 3))
    assert [step_to(40, trips) for trips in (1, 40, 41, 100)] == [1, 1, 2, 3]


@pytest.mark.skipif(xgboost.build_info()["USE_CUDA"], reason="this XGBoost may find a GPU")
def test_a_gpu_that_is_asked_for_and_not_there_is_an_error_and_not_a_cpu() -> None:
    params = load_params(ROOT / "params.yaml").model.model_copy(update={"device": "cuda"})

    with pytest.raises(UsageError, match=r"expected a GPU for `device: cuda`.*without it \(package xgboost-cpu\)"):
        fit_boosted([], params)
