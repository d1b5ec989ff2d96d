"""What the folds say together: means over months, ratios to the peers, and in how many months ours is better."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

Record = dict[str, Any]
RIVALS = ("p3", "zc_xgboost")
METRICS = ("rmse", "mae")


def mean_scores(folds: Sequence[Record]) -> pd.DataFrame:
    """Return each model's scores averaged over the months that it has, one row a model; ``folds`` says how many."""
    rows = [{"model": name} | scores for fold in folds for name, scores in fold["scores"].items()]
    table = pd.DataFrame(rows)
    grouped = table.groupby("model", sort=False)
    return grouped.mean().assign(n=grouped["n"].sum(), folds=grouped.size())


def compare(folds: Sequence[Record], rival: str, metric: str) -> Record | None:
    """Return ours over the rival's mean ``metric`` on the months that both have, and the months where ours is lower."""
    pairs = {
        fold["month"]: (fold["scores"]["ours"][metric], fold["scores"][rival][metric])
        for fold in folds
        if {"ours", rival} <= set(fold["scores"])
    }
    if not pairs:
        return None
    ours, theirs = np.array(list(pairs.values())).T
    better = [month for month, (mine, other) in pairs.items() if mine < other]
    return {"ratio": float(ours.mean() / theirs.mean()), "better_in": better, "folds": len(pairs)}


def summarise(folds: Sequence[Record]) -> Record:
    """Return mean scores, comparisons with ``RIVALS``, and the interval's coverage and width over the folds."""
    scores = mean_scores(folds)
    found = {
        "scores": {name: {key: float(one) for key, one in row.dropna().items()} for name, row in scores.iterrows()},
        "against": {rival: {metric: compare(folds, rival, metric) for metric in METRICS} for rival in RIVALS},
    }
    intervals = [fold["interval"] for fold in folds if "interval" in fold]
    if intervals:
        found["interval"] = summarise_intervals(intervals, [fold.get("worst_slice") for fold in folds])
    return found


def summarise_intervals(intervals: Sequence[Record], worst: Sequence[Record | None]) -> Record:
    """Return the range of coverage over the months, the worst large slice, and our mean width over the peer's."""
    coverage = [one["coverage"] for one in intervals]
    both = [(one["width"], one["pair_hour"]["width"]) for one in intervals if one["pair_hour"]["width"] is not None]
    ours, peer = np.array(both).T if both else (None, None)
    judged = [one for one in worst if one]
    return {
        "coverage": [min(coverage), max(coverage)],
        "worst_slice": max(judged, key=lambda one: abs(one["coverage80"] - 0.8)) if judged else None,
        "width": float(np.mean([one["width"] for one in intervals])),
        "width_ratio": float(ours.mean() / peer.mean()) if both else None,
        "width_ratio_folds": len(both),
    }
