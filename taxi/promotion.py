"""Whether to train and whether to promote: pure functions that return their reason."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from taxi.config import PromoteParams, RetrainParams
from taxi.months import shift_month

LEAST_DAYS = 3


@dataclass(frozen=True)
class Decision:
    """Promote or not, and why; ``gain`` and ``interval`` are shares of the champion's RMSE, ``draws`` the bootstrap's gains."""

    promote: bool
    reason: str
    gain: float
    interval: tuple[float, float]
    slices: pd.DataFrame
    draws: np.ndarray


def should_train(
    alarms: Sequence[str], incumbent: Mapping[str, Any] | None, month: str, retrain: RetrainParams
) -> tuple[bool, str]:
    """Decide whether a challenger is trained in ``month``: without a champion, on an alarm, or when its turn has come."""
    if incumbent is None:
        return True, "no champion yet"
    if alarms and retrain.on_alarm:
        return True, f"alarm: {', '.join(alarms)}"
    age = next(by for by in range(1, 10_000) if shift_month(month, -by) <= incumbent["trained_to"])
    if retrain.every_months and age >= retrain.every_months:
        return True, f"the champion was trained to {incumbent['trained_to']}; a new one is due every {retrain.every_months} months"
    return False, f"no alarm, and the champion was trained to {incumbent['trained_to']}"


def bootstrap_gain(
    day: pd.Series, old_error: np.ndarray, new_error: np.ndarray, params: PromoteParams
) -> tuple[float, tuple[float, float], np.ndarray]:
    """Return the relative fall of RMSE, its interval, and the draws, from resampling whole days with replacement.

    Trips of one day share weather and traffic, so the day is the unit. Source: Efron & Tibshirani (1993), chapter 8 (blocks).
    """
    code, days = pd.factorize(day)
    sums = np.column_stack([np.bincount(code, error**2, len(days)) for error in (old_error, new_error)])
    drawn = np.random.default_rng(params.seed).multinomial(len(days), np.full(len(days), 1 / len(days)), params.resamples)
    squared = drawn @ sums
    draws = 1 - np.sqrt(squared[:, 1] / squared[:, 0])
    tail = (1 - params.confidence) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    total = sums.sum(axis=0)
    return float(1 - np.sqrt(total[1] / total[0])), (float(low), float(high)), draws


def compare_slices(
    masks: Mapping[str, np.ndarray], old_error: np.ndarray, new_error: np.ndarray, params: PromoteParams
) -> pd.DataFrame:
    """Return both RMSE of each slice with enough trips, the relative change, and whether it is within the limit."""
    rows = {}
    for name, mask in masks.items():
        if mask.sum() >= params.slice_min_trips:
            old, new = (float(np.sqrt(np.mean(error[mask] ** 2))) for error in (old_error, new_error))
            change = new / old - 1 if old else float(new > 0)
            rows[name] = {"trips": int(mask.sum()), "before": old, "challenger": new, "change": change}
    table = pd.DataFrame.from_dict(rows, orient="index", columns=["trips", "before", "challenger", "change"])
    return table.assign(ok=table["change"] <= params.slice_loss).rename_axis("slice")


def decide_promotion(
    trips: pd.DataFrame,
    before: pd.Series,
    challenger: pd.Series,
    masks: Mapping[str, np.ndarray],
    params: PromoteParams,
    against: str = "the champion",
) -> Decision:
    """Decide by the same trips, which neither model has seen: ``before`` predicts as the champion does (or the floor, for a first model).

    Promoted only if the gain's interval is above 0 and no slice loses more than ``params.slice_loss``. Raises ValueError if a
    prediction is not finite.
    """
    truth = trips["duration"].to_numpy()
    old_error, new_error = before.to_numpy() - truth, challenger.to_numpy() - truth
    for name, error in ((against, old_error), ("the challenger", new_error)):
        if not np.isfinite(error).all():
            raise ValueError(f"expected finite predictions of {name}; {int((~np.isfinite(error)).sum())} are not")
    day = trips["pickup"].dt.normalize()
    gain, (low, high), draws = bootstrap_gain(day, old_error, new_error, params)
    slices = compare_slices(masks, old_error, new_error, params)
    said = f"RMSE {abs(gain):.1%} {'lower' if gain > 0 else 'higher'} than {against}'s, {params.confidence:.0%} interval {low:.1%} to {high:.1%}"
    worse = slices[~slices["ok"]]
    if day.nunique() < LEAST_DAYS:
        promote, reason = False, f"{said}; not promoted: {day.nunique()} days are too few to tell (expected {LEAST_DAYS} or more)"
    elif low <= 0:
        promote, reason = False, f"{said}; not promoted: the interval is not above 0"
    elif len(worse):
        name, change = worse["change"].idxmax(), worse["change"].max()
        promote, reason = False, f"{said}; not promoted: slice '{name}' is {change:.1%} worse (limit {params.slice_loss:.0%})"
    else:
        promote, reason = True, f"{said}; no slice is more than {params.slice_loss:.0%} worse"
    return Decision(promote, reason, gain, (low, high), slices, draws)
