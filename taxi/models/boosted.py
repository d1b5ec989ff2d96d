"""Gradient boosting: how the trunk and its three heads learn.

The trunk learns the logarithm of the minutes by squared loss. The mean (squared loss) and the median (absolute loss) start
from it; the 10 % and 90 % quantiles start from history, do not see the newest weeks, and are calibrated on them.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import xgboost
from pydantic_core import from_json
from scipy.special import expit

from taxi.errors import UsageError
from taxi.features.trip_features import NAMES
from taxi.models.calibration import Calibration, calibrate
from taxi.params import ModelParams

# --- One trunk, three heads: boosted trees for a trip's whole distribution, as fitted by ``taxi.boosting``.
#
# The trunk gives the logarithm of the minutes; the mean and the median start from it, the 10 % and 90 % quantiles from history.

PARTS = ("trunk", "mean", "median", "interval")  # in the order of learning: heads start from the trunk
TREES_FILE = "trees.npz"  # arrays of another layout need another name
Trees = dict[str, np.ndarray]
MISSING = -999.0  # trees read a number faster, and in an eighth of the memory, than a gap
START = NAMES.index("pair_band_minutes")


def filled(seen: np.ndarray) -> np.ndarray:
    """Return features with ``MISSING`` where there is none."""
    return np.nan_to_num(seen, nan=MISSING)


class Boosted:
    """A fitted trunk with its heads: ``predict`` gives mean, median, p10 and p90 from features."""

    def __init__(self, parts: dict[str, xgboost.Booster], calibration: Calibration) -> None:
        self.parts = parts
        self.calibration = calibration

    def margins(self, seen: np.ndarray) -> np.ndarray:
        """Return mean (minutes), median and both quantiles (log minutes) before calibration, shape (n, 4), float64."""
        full = filled(seen)
        trunk = self._ask("trunk", full, None)
        mean = self._ask("mean", full, np.exp(trunk.astype(np.float64)).astype(np.float32))
        median = self._ask("median", full, trunk)
        start = np.log(full[:, START].astype(np.float64)).astype(np.float32)
        edges = self._ask("interval", full, np.column_stack([start, start]))
        return np.column_stack([mean, median, edges]).astype(np.float64)

    def predict(self, seen: np.ndarray) -> np.ndarray:
        """Return mean, median, p10 and p90 in minutes within 1..60, in order, shape (n, 4)."""
        return self.calibration.finish(self.margins(seen), seen)

    def _ask(self, name: str, full: np.ndarray, start: np.ndarray | None) -> np.ndarray:
        return self.parts[name].inplace_predict(full, predict_type="margin", base_margin=start)

    def gains(self) -> np.ndarray:
        """Return each feature's gain in the trunk and the mean's head, shape (k,)."""
        total = np.zeros(self.parts["trunk"].num_features())
        for name in ("trunk", "mean"):
            for feature, gain in self.parts[name].get_score(importance_type="total_gain").items():
                total[int(feature[1:])] += gain
        return total

    def contributions(self, seen: np.ndarray) -> np.ndarray:
        """Return how much each feature moves the logarithm of the minutes, and the average last, shape (n, k + 1).

        Source: TreeSHAP, Lundberg et al., "From local explanations to global understanding" (2020), as XGBoost computes it.
        """
        return self.parts["trunk"].predict(xgboost.DMatrix(filled(seen)), pred_contribs=True)

    @cached_property
    def trees(self) -> Trees:
        """Every tree grown to a complete one, for single trips: as the model's file has them, or grown now (half a second)."""
        return grow_trees(self.parts)

    def save(self, folder: Path) -> None:
        """Write the boosters as UBJ, the calibration and the grown trees as NPZ."""
        for name, booster in self.parts.items():
            booster.save_model(folder / f"{name}.ubj")
        np.savez_compressed(folder / "calibration.npz", **self.calibration.state())
        np.savez_compressed(folder / TREES_FILE, **self.trees)  # type: ignore[arg-type]

    @classmethod
    def load(cls, folder: Path) -> "Boosted":
        """Read what ``save`` wrote; models of before have no grown trees."""
        with np.load(folder / "calibration.npz", allow_pickle=False) as archive:
            calibration = Calibration(**archive)
        parts = {name: xgboost.Booster(model_file=str(folder / f"{name}.ubj")) for name in PARTS}
        loaded = cls(parts, calibration)
        if (folder / TREES_FILE).is_file():
            with np.load(folder / TREES_FILE, allow_pickle=False) as archive:
                loaded.trees = dict(archive)
        return loaded


def grow_trees(parts: dict[str, xgboost.Booster]) -> Trees:
    """Return every tree grown to a complete one of the same depth, in the order of ``PARTS``.

    Of d levels and t trees, ``feature`` and ``threshold``, shape (t * (2^d - 1),), have the nodes of one level after those
    of another, within a level tree by tree; ``leaf``, shape (t * 2^d,), is tree by tree.
    """
    models = {name: from_json(parts[name].save_raw("json"))["learner"] for name in PARTS}
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
    made = {"feature": np.concatenate(features).astype(np.int16), "threshold": np.concatenate(thresholds)}
    base = np.ravel(from_json(models["trunk"]["learner_model_param"]["base_score"]))[0]
    return made | {"leaf": value[nodes], "ends": np.cumsum([len(part) for part in grown]), "base": np.asarray(base)}


XGBOOST = xgboost.__version__
Booster = xgboost.Booster
Objective = Callable[[np.ndarray, xgboost.DMatrix], tuple[np.ndarray, np.ndarray]]
ALPHAS = (0.1, 0.9)
FEWEST_ROUNDS = 60
LARGEST_STEP = 0.3
CUT_TRIPS = 100_000  # enough of them to cut the bins by
SMOOTH = np.float32(0.1)  # of the logarithm of the minutes


@dataclass(frozen=True)
class Rows:
    """Trips to learn from: features (n, k) float32, minutes, weights, and whether a trip is among the newest weeks."""

    seen: np.ndarray
    minutes: np.ndarray
    weight: np.ndarray
    newest: np.ndarray

    def take(self, which: np.ndarray | slice) -> "Rows":
        """Return some of the trips, by their places."""
        return Rows(self.seen[which], self.minutes[which], self.weight[which], self.newest[which])

    def older(self, step: int) -> "Rows":
        """Return the trips that the interval learns from: those of the newest weeks calibrate it; of the others every ``step``-th."""
        return self.take(np.flatnonzero(~self.newest)[::step])

    def narrow(self, columns: int) -> "Rows":
        """Return the same trips with the first ``columns`` features."""
        return Rows(self.seen[:, :columns], self.minutes, self.weight, self.newest)


def schedule(rounds: int, step: float, trips: int, trips_per_round: int) -> tuple[int, float]:
    """Return rounds and learning rate for so many trips: fewer trips, fewer and larger steps."""
    wanted = min(rounds, max(FEWEST_ROUNDS, trips // trips_per_round))
    return wanted, min(step * rounds / wanted, LARGEST_STEP)


class _Months(xgboost.DataIter):
    """Hands trips to XGBoost part by part, so that they never lie in one array."""

    def __init__(self, parts: Sequence[Rows]) -> None:
        super().__init__()
        self.parts, self.at = parts, 0

    def next(self, input_data: Any) -> bool:
        if self.at == len(self.parts):
            return False
        one = self.parts[self.at]
        input_data(data=filled(one.seen), label=np.log(one.minutes), weight=one.weight)
        self.at += 1
        return True

    def reset(self) -> None:
        self.at = 0


def require_device(device: str) -> None:
    """Raise UsageError unless XGBoost computes on ``device``: where there is no such, it warns and goes on on the CPU."""
    if device == "cpu":
        return
    asked = {"device": device, "verbosity": 0}
    probe = xgboost.train(asked, xgboost.DMatrix(np.zeros((2, 1)), label=np.zeros(2)), num_boost_round=1)
    found = json.loads(probe.save_config())["learner"]["generic_param"]["device"]
    if not found.startswith(device):
        built = "was built for it" if xgboost.build_info()["USE_CUDA"] else "was built without it (package xgboost-cpu)"
        raise UsageError(
            f"expected a GPU for `device: {device}` in params.yaml; XGBoost {XGBOOST} {built} and finds none: "
            "install the package xgboost where there is one, or set `device: cpu`"
        )


def settings_of(params: ModelParams, **changes: Any) -> dict[str, Any]:
    """Return XGBoost's settings for the trunk, with ``changes``."""
    return {
        "tree_method": "hist",
        "objective": "reg:squarederror",
        "max_depth": params.max_depth,
        "min_child_weight": params.min_child_weight,
        "subsample": params.subsample,
        "colsample_bytree": params.colsample_bytree,
        "reg_lambda": params.reg_lambda,
        "max_bin": params.max_bin,
        "device": params.device,
        "nthread": params.threads,
        "seed": params.seed,
    } | changes


def plan_parts(params: ModelParams, trips: int) -> dict[str, tuple[dict[str, Any], int]]:
    """Return settings and rounds of each part for so many training trips."""
    wide: dict[str, Any] = {"colsample_bytree": params.head_colsample_bytree, "max_depth": params.head_max_depth}
    trunk = schedule(params.rounds, params.learning_rate, trips, params.trips_per_round)
    head = schedule(params.head_rounds, params.head_learning_rate, trips, params.trips_per_round)
    edges = schedule(params.interval_rounds, params.interval_learning_rate, trips, params.trips_per_round)
    plans: dict[str, tuple[dict[str, Any], tuple[int, float]]] = {
        "trunk": ({}, trunk),
        "mean": (wide, head),
        "median": (wide, head),
        "interval": (wide | {"max_depth": params.interval_max_depth}, edges),
    }
    return {
        name: (settings_of(params, learning_rate=step, **changes), rounds)
        for name, (changes, (rounds, step)) in plans.items()
    }


def quantile_loss(*levels: float) -> Objective:
    """Return XGBoost's objective for quantiles of the log minutes, one output each: the pinball loss, smoothed over ``SMOOTH``.

    XGBoost's own quantile and absolute losses sort the residuals of every leaf in every round: no better, and three times as long.
    Source: Fernandes, Guerre & Horta, "Smoothing quantile regressions" (2021), with a logistic kernel.
    """

    def gradients(margin: np.ndarray, matrix: xgboost.DMatrix) -> tuple[np.ndarray, np.ndarray]:
        weight = matrix.get_weight().reshape(-1, *(1 for _ in margin.shape[1:]))
        above = expit((margin - matrix.get_label().reshape(margin.shape)) / SMOOTH)
        return (above - np.array(levels, dtype=np.float32)) * weight, above * (1 - above) / SMOOTH * weight

    return gradients


OBJECTIVES: dict[str, Objective] = {"median": quantile_loss(0.5), "interval": quantile_loss(*ALPHAS)}


def lesson(name: str, rows: Rows, trunk: np.ndarray | None) -> dict[str, np.ndarray]:
    """Return what part ``name`` learns from these trips: label, weight and base margin; ``trunk`` is the trunk's margin, (n,)."""
    log_minutes = np.log(rows.minutes)
    if name == "mean":
        return {"label": rows.minutes, "weight": rows.weight, "base_margin": np.exp(_given(trunk).astype(np.float64))}
    if name == "median":
        return {"label": log_minutes, "weight": rows.weight, "base_margin": _given(trunk)}
    if name == "interval":
        start = np.log(filled(rows.seen[:, START]).astype(np.float64))
        twice = {"label": log_minutes, "base_margin": start}
        return {"weight": rows.weight} | {name: np.column_stack([one, one]) for name, one in twice.items()}
    return {"label": log_minutes, "weight": rows.weight}


def _given(trunk: np.ndarray | None) -> np.ndarray:
    if trunk is None:
        raise ValueError("expected the trunk's margin, from which a head starts; got none")
    return trunk


def calibrated(parts: dict[str, xgboost.Booster], seen: np.ndarray, minutes: np.ndarray) -> Boosted:
    """Return the model of these parts, its interval calibrated on the newest trips, which the interval has not learnt from."""
    fitted = Boosted(parts, Calibration.none())
    fitted.calibration = calibrate(np.log(minutes), fitted.margins(seen)[:, 2:], seen)
    return fitted


def quick_minutes(learnt: Rows, seen: np.ndarray, params: ModelParams) -> np.ndarray:
    """Fit the minutes themselves on any columns, and return those of other trips, shape (n,): enough to compare sets of features."""
    matrix = xgboost.DMatrix(filled(learnt.seen), label=learnt.minutes, weight=learnt.weight)
    settings = settings_of(params, learning_rate=params.learning_rate)
    return xgboost.train(settings, matrix, params.rounds).inplace_predict(filled(seen)).astype(np.float64)


def step_to(most: int, trips: int) -> int:
    """Return k, so that every k-th of so many trips are ``most`` at most."""
    return -(-trips // most)


def binned(
    rows: Sequence[Rows], params: ModelParams, like: xgboost.QuantileDMatrix | None = None
) -> xgboost.QuantileDMatrix:
    """Return the trips' binned matrix, its bins cut as ``like``'s."""
    return xgboost.QuantileDMatrix(_Months(rows), max_bin=params.max_bin, ref=like)


def fit_boosted(rows: Sequence[Rows], params: ModelParams) -> Boosted:
    """Fit trunk, heads and calibration on the parts' rows; a sample of them cuts the bins."""
    require_device(params.device)
    trips = sum(len(one.minutes) for one in rows)
    cuts = binned([one.take(slice(None, None, step_to(CUT_TRIPS, trips))) for one in rows], params)
    plans, parts = plan_parts(params, trips), {}

    def train(name: str, matrix: xgboost.QuantileDMatrix, lessons: Sequence[dict[str, np.ndarray]]) -> None:
        matrix.set_info(**{field: np.concatenate([one[field] for one in lessons]) for field in lessons[0]})
        settings, rounds = plans[name]
        parts[name] = xgboost.train(settings, matrix, num_boost_round=rounds, obj=OBJECTIVES.get(name))

    matrix = binned(rows, params, cuts)
    train("trunk", matrix, [lesson("trunk", one, None) for one in rows])
    margin = parts["trunk"].predict(matrix, output_margin=True)
    margins = np.split(margin, np.cumsum([len(one.minutes) for one in rows])[:-1])
    for name in ("mean", "median"):
        train(name, matrix, [lesson(name, one, trunk) for one, trunk in zip(rows, margins, strict=True)])
    del matrix
    older = [one.older(step_to(params.interval_rows, trips)) for one in rows]
    train("interval", binned(older, params, cuts), [lesson("interval", one, None) for one in older])
    newest = [(one.seen[one.newest], one.minutes[one.newest]) for one in rows]
    return calibrated(parts, *(np.concatenate(both) for both in zip(*newest, strict=True)))
