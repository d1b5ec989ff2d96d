"""Fast inference for one trip, without XGBoost's overhead: the trees of all parts walked together, level by level.

Indexing by ``[]`` and not by ``take``: on a few hundred trees it keeps the interpreter, where ``take`` lets go of it at every
step, so that a version being loaded beside the requests would make one request wait dozens of times.
The same float32 comparisons and the same order of additions as XGBoost's, so that the numbers are the same.
"""

import math
from datetime import datetime
from itertools import pairwise

import numpy as np

from taxi.errors import TaxiError
from taxi.features.trip_features import TripAtPickup
from taxi.models.boosted import MISSING, PARTS, START, Boosted, Trees
from taxi.models.calibration import HIGH, LOW, Calibration, group_one
from taxi.models.model import DurationModel


def _sum(start: float, leaves: np.ndarray) -> float:
    """Add in float32, one after the other, as XGBoost does."""
    added = leaves.copy()
    added[0] += np.float32(start)
    return float(np.add.accumulate(added)[-1])


class Forest:
    """Every tree of a ``Boosted`` (its ``trees``); ``predict_one`` gives what ``Boosted.predict`` gives, for one row of features."""

    def __init__(self, trees: Trees, calibration: Calibration) -> None:
        self.calibration = calibration
        self.leaf, self.base = trees["leaf"], float(trees["base"])
        ends = trees["ends"].tolist()
        self.part = {name: slice(*both) for name, both in zip(PARTS, pairwise([0, *ends]), strict=True)}
        self.roots = np.arange(ends[-1])
        feature, threshold = trees["feature"].astype(np.intp), trees["threshold"]
        depth = (len(feature) // ends[-1]).bit_length()
        levels = [slice(ends[-1] * (2**level - 1), ends[-1] * (2 ** (level + 1) - 1)) for level in range(depth)]
        self.levels = [(feature[level], threshold[level]) for level in levels]

    def leaves(self, row: np.ndarray) -> np.ndarray:
        """Return the value of the leaf that a row (float32, no NaN) reaches in each tree, shape (trees,)."""
        place = self.roots.copy()
        for feature, threshold in self.levels:  # the children of a level's node i are the next level's 2i and 2i + 1
            right = row[feature[place]] >= threshold[place]
            place += place
            place += right
        return self.leaf[place]

    def predict_one(self, row: np.ndarray) -> tuple[float, float, float, float]:
        """Return mean, median, p10 and p90 (minutes) of one row of features, shape (k,), float32."""
        full = np.where(np.isnan(row), np.float32(MISSING), row)
        leaves = self.leaves(full)
        trunk = _sum(self.base, leaves[self.part["trunk"]])
        mean = _sum(math.exp(trunk), leaves[self.part["mean"]])
        median = math.exp(_sum(trunk, leaves[self.part["median"]]))
        edges, start = leaves[self.part["interval"]], math.log(float(full[START]))
        group = group_one(row)
        low = math.exp(_sum(start, edges[0::2]) + self.calibration.low[group])
        high = math.exp(_sum(start, edges[1::2]) + self.calibration.high[group])
        ordered = (mean, median, min(low, mean, median), max(high, mean, median))
        return tuple(min(max(one, LOW), HIGH) for one in ordered)  # type: ignore[return-value]


class FastModel:
    """The same model for one trip at a time: no frame, no batch; well under a millisecond."""

    def __init__(self, model: DurationModel) -> None:
        """Prepare a boosted ``model``; raise TaxiError for another kind."""
        if not isinstance(model.distribution, Boosted):
            raise TaxiError(f"expected a model of kind xgboost for single trips; got {model.recipe['kind']}")
        self.features = model.features
        self.forest = Forest(model.distribution.trees, model.distribution.calibration)
        self.planned = FastModel(model.planned) if model.planned else None

    def predict_one(
        self,
        pickup: datetime,
        PULocationID: int,
        DOLocationID: int,
        passenger_count: float = math.nan,
        trip_type: float = math.nan,
        VendorID: float = math.nan,
        planned_distance: float | None = None,
    ) -> tuple[float, float, float, float]:
        """Return mean, median, p10 and p90 (minutes), as ``DurationModel.predict`` does; by ``planned`` if a distance is given.

        ``pickup`` is New York wall-clock. Raises TaxiError if a distance is given and there is no model for it.
        """
        one = self
        if planned_distance is not None and not self.features.planned:
            if self.planned is None:
                raise TaxiError("expected a trip without planned_distance; this version has no model for it")
            one = self.planned
        trip = TripAtPickup(pickup, PULocationID, DOLocationID, passenger_count, trip_type, VendorID, planned_distance)
        return one.forest.predict_one(one.features.transform_one(trip))
