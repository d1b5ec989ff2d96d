"""Boosted trees for one trip at a time, without XGBoost's overhead: the trees of all parts walked together, level by level.

Indexing by ``[]`` and not by ``take``: on a few hundred trees it keeps the interpreter, where ``take`` lets go of it at every
step, so that a version being loaded beside the requests would make one request wait dozens of times.
The same float32 comparisons and the same order of additions as XGBoost's, so that the numbers are the same.
"""

import math
from itertools import chain, pairwise
from typing import Any

import numpy as np
from pydantic_core import from_json

from taxi.boosted import MISSING, PARTS, START, Boosted
from taxi.calibration import HIGH, LOW, Calibration, group_one

Tree = dict[str, Any]
Arrays = dict[str, np.ndarray]


def _depth(tree: Tree) -> int:
    depth = [0] * len(tree["left_children"])
    for node, (left, right) in enumerate(zip(tree["left_children"], tree["right_children"], strict=True)):
        if left != -1:
            depth[left] = depth[right] = depth[node] + 1
    return max(depth)


def _complete(tree: Tree, depth: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return features, thresholds and leaves of a tree grown to a complete one, shapes (2^d - 1), (2^d - 1), (2^d)."""
    inner = 2**depth - 1
    feature, threshold = np.zeros(inner, dtype=np.intp), np.full(inner, np.inf, dtype=np.float32)
    leaf = np.zeros(inner + 1, dtype=np.float32)
    waiting = [(0, 0, 0)]
    while waiting:
        node, place, level = waiting.pop()
        left, value = tree["left_children"][node], tree["split_conditions"][node]
        if left == -1:
            leaf[(place + 1) * 2 ** (depth - level) - 1 - inner] = value  # leftmost below it: no feature is >= inf
            continue
        feature[place], threshold[place] = tree["split_indices"][node], value
        waiting += [(left, 2 * place + 1, level + 1), (tree["right_children"][node], 2 * place + 2, level + 1)]
    return feature, threshold, leaf


def _sum(start: float, leaves: np.ndarray) -> float:
    """Add in float32, one after the other, as XGBoost does."""
    added = leaves.copy()
    added[0] += np.float32(start)
    return float(np.add.accumulate(added)[-1])


class Forest:
    """Every tree of a ``Boosted``; ``predict_one`` gives what ``Boosted.predict`` gives, for one row of features.

    ``trees`` is what ``grow`` returns: arrays that a file can hold, since growing them takes a second of Python.
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
        depth = max(map(_depth, trees))
        *inner, leaf = (np.array(one) for one in zip(*(_complete(tree, depth) for tree in trees), strict=True))
        feature, threshold = (
            np.concatenate([one[:, 2**level - 1 : 2 ** (level + 1) - 1].ravel() for level in range(depth)])
            for one in inner
        )
        base = np.ravel(from_json(models["trunk"]["learner_model_param"]["base_score"]))[0]
        made = {"feature": feature, "threshold": threshold, "leaf": leaf.ravel()}
        return made | {"ends": np.cumsum([len(part) for part in grown]), "base": np.asarray(base)}

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
