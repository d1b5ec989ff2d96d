"""Boosted trees for one trip at a time, without XGBoost's overhead: the trees of all parts walked together, level by level.

Indexing by ``[]`` and not by ``take``: on a few hundred trees it keeps the interpreter, where ``take`` lets go of it at every
step, so that a version being loaded beside the requests would make one request wait dozens of times.
The same float32 comparisons and the same order of additions as XGBoost's, so that the numbers are the same.
"""

import math
from datetime import datetime
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from pydantic_core import from_json

from taxi.errors import TaxiError
from taxi.features.trip_features import Trip
from taxi.files import staged
from taxi.models.boosted import MISSING, PARTS, START, Boosted
from taxi.models.calibration import HIGH, LOW, Calibration, group_one
from taxi.models.model import DurationModel

Arrays = dict[str, np.ndarray]


def _sum(start: float, leaves: np.ndarray) -> float:
    """Add in float32, one after the other, as XGBoost does."""
    added = leaves.copy()
    added[0] += np.float32(start)
    return float(np.add.accumulate(added)[-1])


class Forest:
    """Every tree of a ``Boosted``; ``predict_one`` gives what ``Boosted.predict`` gives, for one row of features.

    ``trees`` is what ``grow`` returns: arrays that a file can hold, since growing them takes half a second.
    """

    def __init__(self, trees: Arrays, calibration: Calibration) -> None:
        self.trees, self.calibration = trees, calibration
        self.leaf, self.base = trees["leaf"], float(trees["base"])
        ends = trees["ends"].tolist()
        self.part = {name: slice(*both) for name, both in zip(PARTS, pairwise([0, *ends]), strict=True)}
        self.roots = np.arange(ends[-1])
        depth = (len(trees["feature"]) // ends[-1]).bit_length()
        levels = [slice(ends[-1] * (2**level - 1), ends[-1] * (2 ** (level + 1) - 1)) for level in range(depth)]
        self.levels = [(trees["feature"][level], trees["threshold"][level]) for level in levels]

    @staticmethod
    def grow(boosted: Boosted) -> Arrays:
        """Return every tree grown to a complete one of the same depth, in the order of ``PARTS``.

        Of d levels and t trees, ``feature`` and ``threshold``, shape (t * (2^d - 1),), have the nodes of one level after those
        of another, within a level tree by tree; ``leaf``, shape (t * 2^d,), is tree by tree.
        """
        models = {name: from_json(boosted.parts[name].save_raw("json"))["learner"] for name in PARTS}
        grown = [model["gradient_booster"]["model"]["trees"] for model in models.values()]
        trees = list(chain.from_iterable(grown))
        sizes = [len(tree["left_children"]) for tree in trees]
        roots = np.cumsum([0, *sizes[:-1]], dtype=np.int32)
        first = np.repeat(roots, sizes)
        whole = ("left_children", "right_children", "split_indices")
        left, right, feature = (np.concatenate([tree[name] for tree in trees], dtype=np.int32) for name in whole)
        value = np.concatenate([tree["split_conditions"] for tree in trees], dtype=np.float32)  # a leaf's is its own
        splits, left, right = left >= 0, left + first, right + first
        nodes, features, thresholds = roots, [], []
        while (split := splits[nodes]).any():
            features.append(np.where(split, feature[nodes], 0))
            thresholds.append(np.where(split, value[nodes], np.float32(np.inf)))
            below = np.where(split, left[nodes], nodes), np.where(split, right[nodes], nodes)  # a leaf stays what it is
            nodes = np.column_stack(below).ravel()
        made = {"feature": np.concatenate(features, dtype=np.intp), "threshold": np.concatenate(thresholds)}
        base = np.ravel(from_json(models["trunk"]["learner_model_param"]["base_score"]))[0]
        return made | {"leaf": value[nodes], "ends": np.cumsum([len(part) for part in grown]), "base": np.asarray(base)}

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

    def __init__(self, model: DurationModel, trees: dict[str, np.ndarray] | None = None, under: str = "trip") -> None:
        """Prepare a boosted ``model``, which takes a second without its ``trees``; raise TaxiError for another kind."""
        if not isinstance(model.distribution, Boosted):
            raise TaxiError(f"expected a model of kind xgboost for single trips; got {model.recipe['kind']}")
        self.features = model.features
        own = Forest.grow(model.distribution) if trees is None else _within(trees, under)
        self.forest = Forest(own, model.distribution.calibration)
        self.planned = FastModel(model.planned, trees, "planned") if model.planned else None

    def save_trees(self, path: Path) -> None:
        """Write the trees as NPZ, whole or not at all; reading them takes a hundredth of the time of growing them."""
        both = {"trip": self.forest.trees} | ({"planned": self.planned.forest.trees} if self.planned else {})
        arrays: dict[str, Any] = {f"{under}/{name}": one for under, own in both.items() for name, one in own.items()}
        with staged(path) as part:
            np.savez(part, **arrays)

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
        trip = Trip(pickup, PULocationID, DOLocationID, passenger_count, trip_type, VendorID, planned_distance)
        return one.forest.predict_one(one.features.transform_one(trip))


def _within(arrays: dict[str, np.ndarray], folder: str) -> dict[str, np.ndarray]:
    return {name.split("/")[1]: one for name, one in arrays.items() if name.split("/")[0] == folder}


def fast_model(model: DurationModel, trees: Path | None = None) -> FastModel:
    """Return the same model for one trip at a time; ``trees``: what its ``save_trees`` wrote, if that was done before."""
    if trees is None:
        return FastModel(model)
    with np.load(trees, allow_pickle=False) as archive:
        return FastModel(model, dict(archive))
