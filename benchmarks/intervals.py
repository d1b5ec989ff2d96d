"""Intervals made to the same coverage, so that their widths compare."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.peers import PairHour

STEPS = 40
NEAR = 5e-5


def level_for_coverage(coverage: Callable[[float], float], wanted: float) -> float | None:
    """Return the level (0..1) whose interval covers the share ``wanted``, by bisection; None where even level 1 covers less.

    ``coverage`` never falls as the level rises. Where it jumps over ``wanted``, the level just after the jump is returned.
    """
    low, high = 0.0, 1.0
    if coverage(high) < wanted:
        return None
    for _ in range(STEPS):
        middle = (low + high) / 2
        found = coverage(middle)
        if abs(found - wanted) <= NEAR:
            return middle
        low, high = (middle, high) if found < wanted else (low, middle)
        if high - low < 1e-6:
            break
    return high


def _edges(cells: PairHour, level: float) -> np.ndarray:
    return cells.quantiles([0.5 - level / 2, 0.5 + level / 2])


def pair_hour_interval(train: pd.DataFrame, trips: pd.DataFrame, wanted: float) -> dict[str, Any]:
    """Return level, coverage and mean width (minutes) of zone pair x hour quantiles that cover ``wanted`` of ``trips``.

    The level is sought on these very trips, which is kinder than any calibration on earlier ones could be.
    """
    cells, minutes = PairHour(train, trips), trips["duration"].to_numpy()

    def coverage(level: float) -> float:
        low, high = _edges(cells, level).T
        return float(((low <= minutes) & (minutes <= high)).mean())

    level = level_for_coverage(coverage, wanted)
    if level is None:
        return {"level": None, "coverage": coverage(1.0), "width": None}
    return {"level": level, "coverage": coverage(level), "width": float(np.ptp(_edges(cells, level), axis=1).mean())}
