"""The simple regressors that the model is measured against, as scikit-learn estimators over the feature matrix."""

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.linear_model import Ridge
from sklearn.utils.validation import check_is_fitted

from taxi.history import ZONES, zone_pair


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

    def state(self) -> dict[str, np.ndarray]:
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
        self.mean_ = np.nan_to_num(np.nanmean(seen, axis=0, dtype=np.float64))
        spread = np.nanstd(seen, axis=0, dtype=np.float64)
        self.scale_ = np.where(np.nan_to_num(spread) > 0, spread, 1.0)
        ridge = Ridge(alpha=self.alpha).fit(self._standard(seen), duration, sample_weight=sample_weight)
        self.coef_, self.intercept_ = ridge.coef_, float(ridge.intercept_)
        return self

    def _standard(self, seen: np.ndarray) -> np.ndarray:
        return np.nan_to_num((seen - self.mean_) / self.scale_)

    def predict(self, seen: np.ndarray) -> np.ndarray:
        """Return minutes, shape (n,)."""
        check_is_fitted(self, "coef_")
        return (self._standard(seen) * self.coef_).sum(axis=1) + self.intercept_

    def state(self) -> dict[str, np.ndarray]:
        """Return what ``restore`` needs."""
        return {"mean": self.mean_, "scale": self.scale_, "coef": self.coef_, "intercept": np.array(self.intercept_)}

    def restore(self, state: dict[str, np.ndarray]) -> "LinearMinutes":
        """Take up weights learnt before."""
        self.mean_, self.scale_, self.coef_ = state["mean"], state["scale"], state["coef"]
        self.intercept_ = float(state["intercept"])
        return self


def residual_quantiles(residual: np.ndarray, band: np.ndarray, alphas: tuple[float, float], bands: int) -> np.ndarray:
    """Return the residuals' quantiles (minutes) by band, shape (bands, 2); those of all trips where a band has few."""
    everywhere = np.quantile(residual, alphas)
    rows = [residual[band == number] for number in range(bands)]
    return np.array([np.quantile(row, alphas) if row.size >= 50 else everywhere for row in rows])
