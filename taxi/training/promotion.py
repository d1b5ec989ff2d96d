"""Promotion gate: champion and challenger on the same trips, pure functions that return their reason."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from taxi.config import Settings
from taxi.data.zones import read_zones
from taxi.models.evaluate import score_models, slices
from taxi.models.model import DurationModel
from taxi.params import Params, PromoteParams
from taxi.training.plan import Plan
from taxi.training.train import judging_trips, load_challenger, load_incumbent, train_challenger

LEAST_DAYS = 3


@dataclass(frozen=True)
class PromotionDecision:
    """Promote or not, and why; ``gain``, ``interval`` and the bootstrap's ``draws`` are shares of the old RMSE."""

    promote: bool
    reason: str
    gain: float
    interval: tuple[float, float]
    slices: pd.DataFrame
    draws: np.ndarray


def bootstrap_gain(
    day: pd.Series, old_error: np.ndarray, new_error: np.ndarray, params: PromoteParams
) -> tuple[float, tuple[float, float], np.ndarray]:
    """Return the relative fall of RMSE, its interval, and the draws, from resampling whole days with replacement.

    Trips of one day share weather and traffic, so the day is the unit. Source: Efron & Tibshirani (1993), chapter 8.
    An old model without any error cannot be beaten: then all are 0 or minus infinity.
    """
    code, days = pd.factorize(day)
    sums = np.column_stack([np.bincount(code, error**2, len(days)) for error in (old_error, new_error)])
    share = np.full(len(days), 1 / len(days))
    drawn = np.random.default_rng(params.seed).multinomial(len(days), share, params.resamples)
    draws = _gain(drawn @ sums)
    tail = (1 - params.confidence) / 2
    low, high = np.quantile(draws, [tail, 1 - tail], method="nearest")
    return float(_gain(sums.sum(axis=0, keepdims=True))[0]), (float(low), float(high)), draws


def _gain(squared: np.ndarray) -> np.ndarray:
    old, new = squared[:, 0], squared[:, 1]
    without = np.where(new > 0, -np.inf, 0.0)
    return np.where(old > 0, 1 - np.sqrt(new / np.where(old > 0, old, 1.0)), without)


def compare_slices(
    masks: Mapping[str, np.ndarray], old_error: np.ndarray, new_error: np.ndarray, params: PromoteParams
) -> pd.DataFrame:
    """Return both RMSE of each slice with enough trips, the relative change, and whether it is within the limit."""
    rows = {}
    for name, mask in masks.items():
        if mask.sum() >= params.slice_min_trips:
            squared = np.array([[np.mean(error[mask] ** 2) for error in (old_error, new_error)]])
            old, new = np.sqrt(squared[0])
            rows[name] = {"trips": int(mask.sum()), "before": old, "challenger": new, "change": -_gain(squared)[0]}
    table = pd.DataFrame.from_dict(rows, orient="index", columns=["trips", "before", "challenger", "change"])
    return table.assign(ok=table["change"] <= params.slice_loss).rename_axis("slice")


def _errors(trips: pd.DataFrame, predicted: pd.Series, whose: str) -> np.ndarray:
    if not predicted.index.equals(trips.index):
        raise ValueError(f"expected predictions of {whose} for the same {len(trips):,} trips, in order; got others")
    error = predicted.to_numpy(dtype=float) - trips["duration"].to_numpy(dtype=float)
    if not np.isfinite(error).all():
        raise ValueError(f"expected finite predictions of {whose}; {int((~np.isfinite(error)).sum())} are not")
    return error


def _objection(days: int, low: float, slices: pd.DataFrame, params: PromoteParams) -> str | None:
    if days < LEAST_DAYS:
        return f"{days} days are too few to tell (expected {LEAST_DAYS} or more)"
    if not low > 0:
        return "the interval is not above 0"
    worse = slices[~slices["ok"]]
    if len(worse):
        change = worse["change"].max()
        return f"slice '{worse['change'].idxmax()}' is {change:.1%} worse (limit {params.slice_loss:.0%})"
    return None


def decide_promotion(
    trips: pd.DataFrame,
    before: pd.Series,
    challenger: pd.Series,
    masks: Mapping[str, np.ndarray],
    params: PromoteParams,
    against: str = "the champion",
    by_slice: bool = True,
) -> PromotionDecision:
    """Decide by the same trips, which neither model has seen: ``before`` are the champion's predictions.

    For a first model they are the floor's, with ``against="the floor"`` and ``by_slice=False``. Promoted only if the
    gain's interval is above 0 and (``by_slice``) no slice loses more than ``params.slice_loss``. Raises ValueError if
    predictions are not finite or not of these trips.
    """
    old_error, new_error = _errors(trips, before, against), _errors(trips, challenger, "the challenger")
    day = trips["pickup"].dt.normalize()
    if not len(day):
        none = compare_slices({}, old_error, new_error, params)
        return PromotionDecision(
            False, "not promoted: there are no trips to judge by", 0.0, (0.0, 0.0), none, np.zeros(0)
        )
    gain, (low, high), draws = bootstrap_gain(day, old_error, new_error, params)
    slices = compare_slices(masks, old_error, new_error, params)
    way = "lower" if gain > 0 else "higher"
    said = f"RMSE {abs(gain):.1%} {way} than {against}'s, {params.confidence:.0%} interval {low:.1%} to {high:.1%}"
    objection = _objection(day.nunique(), low, slices if by_slice else slices[:0], params)
    if objection:
        return PromotionDecision(False, f"{said}; not promoted: {objection}", gain, (low, high), slices, draws)
    held = f"; no slice is more than {params.slice_loss:.0%} worse" if by_slice else ""
    return PromotionDecision(True, said + held, gain, (low, high), slices, draws)


# --- Champion and challenger on the same trips: everything that the comparison's notebook shows.


@dataclass(frozen=True)
class Compared:
    """The scores, the decision, and where the two models differ most."""

    note: str
    scores: pd.DataFrame
    decision: PromotionDecision
    disagreement: pd.DataFrame

    @property
    def gain_table(self) -> pd.DataFrame:
        """The gain and its interval, in percent of the RMSE before."""
        low, high = self.decision.interval
        return pd.DataFrame({"%": {"gain": self.decision.gain, "from": low, "to": high}}).mul(100).round(2)

    @property
    def decision_text(self) -> str:
        """The decision as Markdown."""
        return f"**{'Promoted' if self.decision.promote else 'Not promoted'}.** {self.decision.reason}"

    @property
    def result(self) -> dict[str, Any]:
        """What the notebook records."""
        return {
            "promote": self.decision.promote,
            "reason": self.decision.reason,
            "gain": self.decision.gain,
            "interval": list(self.decision.interval),
            "challenger": self.scores.loc["challenger"].to_dict(),
            "before": self.scores.iloc[0].to_dict(),
        }


def compare_models(settings: Settings, plan: Plan, params: Params) -> Compared:
    """Judge the challenger that 04-train left, by ``judge_challenger``."""
    return judge_challenger(settings, plan, params, load_incumbent(settings, plan), load_challenger(settings, plan))


def judge_challenger(
    settings: Settings, plan: Plan, params: Params, incumbent: DurationModel | None, challenger: DurationModel
) -> Compared:
    """Judge the challenger by trips that neither model has seen; against the floor where there is no champion."""
    trips, zones = judging_trips(settings, plan), read_zones(settings.zones)
    other = incumbent or train_challenger(settings, plan, params, kind="pair-median")
    against = "the champion" if incumbent else "the floor"
    before, after = other.predict(trips), challenger.predict(trips)
    decision = decide_promotion(
        trips,
        before["mean"],
        after["mean"],
        slices(trips, zones),
        params.promote,
        against=against,
        by_slice=incumbent is not None,
    )
    note = f"Judged on {plan.judged}: {len(trips):,} trips. The challenger was trained on {plan.trained}."
    if incumbent is None:
        note += " There is no champion yet, so it is held against the floor: the median of the zone pair."
    apart = (after["mean"] - before["mean"]).abs()
    shown = trips.loc[apart.nlargest(8).index, ["pickup", "PULocationID", "DOLocationID", "duration"]]
    minutes = {"duration": shown["duration"], "before": before["mean"], "challenger": after["mean"]}
    rounded = {name: values[shown.index].round(1) for name, values in minutes.items()}
    disagreement = shown.assign(**rounded).reset_index(drop=True)
    return Compared(
        note, score_models(trips["duration"], {against: before, "challenger": after}), decision, disagreement
    )
