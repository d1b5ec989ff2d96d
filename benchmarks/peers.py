"""What others do with this data, written anew from their published settings: predictions in minutes for the same trips."""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import xgboost
from scipy import sparse
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import LinearRegression
from sklearn.preprocessing import OneHotEncoder

from taxi.features.history import zone_pair
from taxi.features.lookups import pair_arrays, zone_arrays

Recipe = Callable[[pd.DataFrame, pd.DataFrame, pd.DataFrame], np.ndarray]
ZC_SETTINGS = {
    "learning_rate": 0.09585355369315604,
    "max_depth": 30,
    "min_child_weight": 1.060597050922164,
    "objective": "reg:squarederror",
    "reg_alpha": 0.018060244040060163,
    "reg_lambda": 0.011658731377413597,
    "seed": 42,
    "nthread": 2,
}


def _pair(trips: pd.DataFrame) -> np.ndarray:
    return zone_pair(*trips[["PULocationID", "DOLocationID"]].to_numpy(np.int64).T)


Encoder = Callable[[pd.DataFrame], sparse.csr_matrix]


def zc_inputs(train: pd.DataFrame) -> tuple[Encoder, sparse.csr_matrix]:
    """Return how mlops-zoomcamp sees trips (one-hot zone pair, metered miles), learnt from ``train``, and ``train`` seen so."""
    encoder = OneHotEncoder(handle_unknown="ignore").fit(_pair(train)[:, None])

    def encode(trips: pd.DataFrame) -> sparse.csr_matrix:
        miles = trips[["trip_distance"]].fillna(0).to_numpy()
        return sparse.hstack([encoder.transform(_pair(trips)[:, None]), miles]).tocsr()

    return encode, encode(train)


def zc_linear(train: pd.DataFrame, trips: pd.DataFrame, zones: pd.DataFrame) -> np.ndarray:
    """mlops-zoomcamp: least squares on the one-hot zone pair and the metered distance (a leak)."""
    encode, seen = zc_inputs(train)
    return LinearRegression().fit(seen, train["duration"]).predict(encode(trips))


def zc_xgboost_fit(seen: sparse.csr_matrix, minutes: pd.Series) -> xgboost.Booster:
    """mlops-zoomcamp: XGBoost of depth 30, 100 rounds."""
    return xgboost.train(ZC_SETTINGS, xgboost.DMatrix(seen, label=minutes), num_boost_round=100)


def zc_xgboost(train: pd.DataFrame, trips: pd.DataFrame, zones: pd.DataFrame) -> np.ndarray:
    """mlops-zoomcamp: that XGBoost on the same inputs (a leak)."""
    encode, seen = zc_inputs(train)
    return zc_xgboost_fit(seen, train["duration"]).predict(xgboost.DMatrix(encode(trips)))


def _at_pickup_inputs(trips: pd.DataFrame, zones: pd.DataFrame) -> np.ndarray:
    places = zone_arrays(zones)
    when, ends = trips["pickup"].dt, [trips[name].to_numpy() for name in ("PULocationID", "DOLocationID")]
    dx, dy, miles, _, bearing = pair_arrays(places)[_pair(trips), :5].T
    columns = [
        *ends,
        when.hour * 60 + when.minute,
        when.dayofweek,
        *(places[end, axis] for end in ends for axis in (0, 1)),
        dx,
        dy,
        miles,
        bearing,
        *(places[end, 4] for end in ends),
        *(trips[name] for name in ("passenger_count", "trip_type", "VendorID")),
    ]
    return np.column_stack([np.asarray(column, dtype=np.float64) for column in columns])


def p3(train: pd.DataFrame, trips: pd.DataFrame, zones: pd.DataFrame) -> np.ndarray:
    """professor3333: gradient boosting for the absolute error on what is known at pickup; no leak."""
    regressor = HistGradientBoostingRegressor(
        loss="absolute_error",
        max_iter=300,
        learning_rate=0.1,
        max_leaf_nodes=63,
        min_samples_leaf=200,
        l2_regularization=1,
        random_state=42,
    )
    seen, asked = _at_pickup_inputs(train, zones), _at_pickup_inputs(trips, zones)
    known = ~np.isnan(seen).all(axis=0)  # yellow has no trip_type; scikit-learn has no bins for a column of gaps
    return regressor.fit(seen[:, known], train["duration"]).predict(asked[:, known])


def _coarse_to_fine(trips: pd.DataFrame) -> tuple[np.ndarray, ...]:
    pair = _pair(trips)
    return np.zeros_like(pair), pair, pair * 24 + trips["pickup"].dt.hour.to_numpy()


class PairHour:
    """The durations seen of each trip's zone pair at that hour; of the pair, then of all, where none was seen."""

    def __init__(self, train: pd.DataFrame, trips: pd.DataFrame) -> None:
        """Sort the durations of ``train`` cell by cell, and find for each of ``trips`` its cell."""
        minutes, parts = train["duration"].to_numpy(), []
        self.first, self.last = np.empty((2, len(trips)), dtype=np.int64)
        for level, (known, wanted) in enumerate(zip(_coarse_to_fine(train), _coarse_to_fine(trips), strict=True)):
            order = np.lexsort((minutes, known))
            start, end = (np.searchsorted(known[order], wanted, side=side) for side in ("left", "right"))
            seen = end > start
            self.first[seen], self.last[seen] = level * len(train) + start[seen], level * len(train) + end[seen] - 1
            parts.append(minutes[order])
        self.minutes = np.concatenate(parts)

    def quantiles(self, levels: Sequence[float]) -> np.ndarray:
        """Return the quantiles (minutes, linear between neighbours as numpy's) of each trip's cell, shape (n, levels)."""
        place = self.first[:, None] + (self.last - self.first)[:, None] * np.asarray(levels)
        below = np.floor(place).astype(np.int64)
        above = np.minimum(below + 1, self.last[:, None])
        return self.minutes[below] + (place - below) * (self.minutes[above] - self.minutes[below])


def pair_hour_quantiles(train: pd.DataFrame, trips: pd.DataFrame, levels: Sequence[float]) -> np.ndarray:
    """Return quantiles of the zone pair at that hour, shape (n, levels); of the pair, then of all, where none was seen."""
    return PairHour(train, trips).quantiles(levels)


def pair_hour_median(train: pd.DataFrame, trips: pd.DataFrame, zones: pd.DataFrame) -> np.ndarray:
    """The median of the zone pair at that hour of the day; no leak."""
    return pair_hour_quantiles(train, trips, [0.5])[:, 0]


ONE_MONTH: dict[str, Recipe] = {"zc_linear": zc_linear, "zc_xgboost": zc_xgboost}
WHOLE_WINDOW: dict[str, Recipe] = {"p3": p3, "pair_hour_median": pair_hour_median}
