"""What each group of features buys: the error on a later month without it, by a small and quick recipe."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd

from taxi.boosting import Rows, quick_minutes
from taxi.features import GROUPS, NAMES, TripFeatures
from taxi.folds import thin
from taxi.params import ModelParams
from taxi.schema import AT_PICKUP

ROWS = 50_000  # trips to learn from at most; the same number judges
QUICK = {"rounds": 60, "learning_rate": 0.2, "max_depth": 6, "colsample_bytree": 1.0, "subsample": 1.0}
LEAST = 0.001  # a smaller share of the error is nothing to name


def without(groups: Mapping[str, tuple[str, ...]], group: str) -> list[int]:
    """Return the numbers of the features that are not in ``group``."""
    return [number for number, name in enumerate(NAMES) if name not in groups[group]]


def ablate(
    features: TripFeatures, past: pd.DataFrame, trips: pd.DataFrame, params: ModelParams, rows: int = ROWS
) -> pd.DataFrame:
    """Return, by group left out, the number of its features, rmse (minutes) on ``trips`` and its ``change`` (share) against all.

    ``features`` were fitted on ``past`` (both frames with durations), which ends before ``trips``; the first row leaves nothing out.
    """
    drawn, judging = (thin(one, rows, params.seed) for one in (past, trips))
    learnt = features.look_back(drawn[AT_PICKUP])[:, : len(NAMES)]
    seen, truth = features.transform(judging[AT_PICKUP])[:, : len(NAMES)], judging["duration"].to_numpy()
    minutes, recipe = drawn["duration"].to_numpy(), params.model_copy(update=QUICK | {"threads": 1})

    def rmse(columns: list[int]) -> float:
        part = Rows(learnt[:, columns], minutes, np.ones(len(minutes)), np.zeros(len(minutes), dtype=bool))
        return float(np.sqrt(np.mean((quick_minutes(part, seen[:, columns], recipe) - truth) ** 2)))

    columns = {"nothing": list(range(len(NAMES)))} | {group: without(GROUPS, group) for group in GROUPS}
    with ThreadPoolExecutor(params.threads) as pool:  # threads within a small fit mostly wait for each other
        errors = dict(zip(columns, pool.map(rmse, columns.values()), strict=True))
    table = pd.DataFrame({"features": {"nothing": 0} | {group: len(names) for group, names in GROUPS.items()}})
    table["rmse"] = pd.Series(errors)
    table["change"] = table["rmse"] / errors["nothing"] - 1
    return table.rename_axis("left out")


def ablation_table(found: pd.DataFrame) -> pd.DataFrame:
    """Return ``ablate``'s table for a reader: minutes with two decimals, changes in percent with one."""
    return pd.DataFrame(
        {
            "features": found["features"],
            "RMSE (minutes)": found["rmse"].map("{:.2f}".format),
            "RMSE change": [signed_percent(change) for change in found["change"]],
        }
    )


def signed_percent(share: float) -> str:
    """Return a share as a signed percentage with one decimal; what rounds to nothing has no sign."""
    return f"{share:+.1%}" if abs(share) >= 0.0005 else "0.0%"


def ablation_answer(found: pd.DataFrame) -> str:
    """Return in a sentence which group buys most, and which buy nothing."""
    change = found["change"].drop("nothing").sort_values(ascending=False)
    idle = [group for group, value in change.items() if value < LEAST]
    said = f"Without the group *{change.index[0]}* the RMSE changes by {signed_percent(change.iloc[0])}, and rises less without any other"
    others = (
        f"; without {', '.join(f'*{group}*' for group in idle)} it rises by less than {LEAST:.1%}, or falls"
        if idle
        else ""
    )
    return f"{said}{others}."
