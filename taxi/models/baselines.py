"""Baselines, simple regressors that the model is measured against, as scikit-learn estimators over the feature matrix."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.linear_model import Ridge
from sklearn.utils.validation import check_is_fitted

from taxi.features.history import ZONES, zone_pair
from taxi.models.calibration import HIGH, LOW


class PairMedian(RegressorMixin, BaseEstimator):
    """The floor: the median duration of the zone pair; of all trips where the pair was never seen. Columns 0 and 1 are the zones."""

    def fit(self, seen: np.ndarray, duration: np.ndarray, sample_weight: np.ndarray | None = None) -> "PairMedian":
        """Learn the medians; weights do not count."""
        medians = pd.Series(np.asarray(duration)).groupby(self._pair(seen)).median()
        self.table_ = np.full(ZONES * ZONES, float(np.median(duration)))
        self.table_[medians.index] = medians.to_numpy()
        return self

    @staticmethod
    def _pair(seen: np.ndarray) -> np.ndarray:
        return zone_pair(*seen[:, :2].astype(np.int64).T)

    def predict(self, seen: np.ndarray) -> np.ndarray:
        """Return minutes, shape (n,)."""
        check_is_fitted(self, "table_")
        return self.table_[self._pair(seen)]

    def state(self) -> dict[str, Any]:
        """Return what ``restore`` needs."""
        return {"table": self.table_}

    def restore(self, state: dict[str, np.ndarray]) -> "PairMedian":
        """Take up a table learnt before."""
        self.table_ = state["table"]
        return self


class LinearMinutes(RegressorMixin, BaseEstimator):
    """Ridge regression on standardised features; a missing value counts as the column's average."""

    def __init__(self, alpha: float = 1.0) -> None:
        self.alpha = alpha

    def fit(self, seen: np.ndarray, duration: np.ndarray, sample_weight: np.ndarray | None = None) -> "LinearMinutes":
        """Learn the weights."""
        known = ~np.isnan(seen).all(axis=0)
        self.mean_, self.scale_ = np.zeros(seen.shape[1]), np.ones(seen.shape[1])
        self.mean_[known] = np.nanmean(seen[:, known], axis=0, dtype=np.float64)
        spread = np.nanstd(seen[:, known], axis=0, dtype=np.float64)
        self.scale_[known] = np.where(spread > 0, spread, 1.0)
        ridge = Ridge(alpha=self.alpha).fit(self._standard(seen), duration, sample_weight=sample_weight)
        self.coef_, self.intercept_ = ridge.coef_, float(ridge.intercept_)
        return self

    def _standard(self, seen: np.ndarray) -> np.ndarray:
        return np.nan_to_num((seen - self.mean_) / self.scale_)

    def predict(self, seen: np.ndarray) -> np.ndarray:
        """Return minutes, shape (n,)."""
        check_is_fitted(self, "coef_")
        return (self._standard(seen) * self.coef_).sum(axis=1) + self.intercept_

    def state(self) -> dict[str, Any]:
        """Return what ``restore`` needs."""
        return {"mean": self.mean_, "scale": self.scale_, "coef": self.coef_, "intercept": np.array(self.intercept_)}

    def restore(self, state: dict[str, np.ndarray]) -> "LinearMinutes":
        """Take up weights learnt before."""
        self.mean_, self.scale_, self.coef_ = state["mean"], state["scale"], state["coef"]
        self.intercept_ = float(state["intercept"])
        return self


BANDS = 12


def _band(mean: np.ndarray) -> np.ndarray:
    return np.clip(mean // 5, 0, BANDS - 1).astype(int)


def residual_quantiles(residual: np.ndarray, band: np.ndarray, alphas: Sequence[float], bands: int) -> np.ndarray:
    """Return the residuals' quantiles (minutes) by band, shape (bands, alphas); those of all trips where a band has few."""
    everywhere = np.quantile(residual, alphas)
    rows = [residual[band == number] for number in range(bands)]
    return np.array([np.quantile(row, alphas) if row.size >= 50 else everywhere for row in rows])


class SimpleDistribution:
    """A simple regressor as the mean, with the quantiles of its residuals by band of the prediction around it."""

    def __init__(self, kind: str, regressor: PairMedian | LinearMinutes, spread: np.ndarray) -> None:
        self.kind = kind
        self.regressor = regressor
        self.spread = spread

    @classmethod
    def fit(cls, kind: str, seen: np.ndarray, minutes: np.ndarray, weight: np.ndarray) -> "SimpleDistribution":
        """Fit the regressor of that kind, and then its residuals."""
        regressor = SIMPLE[kind]().fit(seen, minutes, sample_weight=weight)
        mean = np.clip(regressor.predict(seen), LOW, HIGH)
        return cls(kind, regressor, residual_quantiles(minutes - mean, _band(mean), (0.5, 0.1, 0.9), BANDS))

    def predict(self, seen: np.ndarray) -> np.ndarray:
        """Return mean, median, p10 and p90 in minutes within 1..60, in order, shape (n, 4)."""
        mean = np.clip(self.regressor.predict(seen), LOW, HIGH)
        median, low, high = np.clip(mean[:, None] + self.spread[_band(mean)], LOW, HIGH).T
        return np.column_stack(
            [mean, median, np.minimum(low, np.minimum(mean, median)), np.maximum(high, np.maximum(mean, median))]
        )

    def gains(self) -> np.ndarray:
        """Return each feature's absolute weight (standardised); the pair median looks at the two zones alone."""
        if isinstance(self.regressor, LinearMinutes):
            return np.abs(self.regressor.coef_)
        return np.array([1.0, 1.0])

    def save(self, folder: Path) -> None:
        """Write the regressor's state as NPZ."""
        np.savez_compressed(folder / f"{self.kind}.npz", spread=self.spread, **self.regressor.state())

    @classmethod
    def load(cls, folder: Path, kind: str) -> "SimpleDistribution":
        """Read what ``save`` wrote."""
        with np.load(folder / f"{kind}.npz", allow_pickle=False) as archive:
            state = dict(archive)
        spread = state.pop("spread")
        return cls(kind, SIMPLE[kind]().restore(state), spread)


SIMPLE = {"linear": LinearMinutes, "pair-median": PairMedian}
