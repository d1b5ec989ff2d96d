"""Calibration of the interval: by how much its edges must move, group by group, to hold eight trips in ten.

Source: Romano, Patterson & Candès, "Conformalized quantile regression" (2019), each edge on its own, in log minutes.
"""

import math
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from taxi.features.trip_features import NAMES
from taxi.models.evaluate import HOURS

LOW, HIGH = 1.0, 60.0  # minutes: what is kept, and so what can be predicted
TAIL = 0.1
LEAST = 400  # trips of a group behind a shift of its own; fewer lean on the coarser group
_HOUR = NAMES.index("hour_of_week")
_PASSENGERS = NAMES.index("passenger_count")  # missing where the whole null block is
_AIRPORTS = [NAMES.index(f"{end}_airport") for end in ("pickup", "dropoff")]
_BOROUGH = NAMES.index("pickup_borough")
BOROUGHS = 10
BANDS = len(HOURS)
KINDS = 4
GROUPS = KINDS * BOROUGHS * BANDS
_BAND_OF_HOUR = np.array([next(i for i, (low, high) in enumerate(HOURS) if low <= hour < high) for hour in range(24)])


def groups(seen: np.ndarray) -> np.ndarray:
    """Return each trip's group 0..199, shape (n,): null block or not, airport or not, pickup borough or none, hour band."""
    airport = np.nan_to_num(seen[:, _AIRPORTS]).max(axis=1) > 0
    kind = 2 * np.isnan(seen[:, _PASSENGERS]).astype(np.int64) + airport
    place = np.clip(np.nan_to_num(seen[:, _BOROUGH], nan=-1).astype(np.int64) + 1, 0, BOROUGHS - 1)
    return (kind * BOROUGHS + place) * BANDS + _BAND_OF_HOUR[seen[:, _HOUR].astype(np.int64) % 24]


def group_one(row: np.ndarray) -> int:
    """Return the group of one row of features, shape (k,)."""
    kind = 2 * math.isnan(row[_PASSENGERS]) + bool(row[_AIRPORTS[0]] > 0 or row[_AIRPORTS[1]] > 0)
    borough = -1 if math.isnan(row[_BOROUGH]) else int(row[_BOROUGH])
    place = min(borough + 1, BOROUGHS - 1)
    return int((kind * BOROUGHS + place) * BANDS + _BAND_OF_HOUR[int(row[_HOUR]) % 24])


@dataclass(frozen=True)
class Calibration:
    """How far each group's edges move (log minutes): ``low`` and ``high``, shape (groups,)."""

    low: np.ndarray
    high: np.ndarray

    @classmethod
    def none(cls) -> "Calibration":
        """Return a calibration that moves nothing."""
        return cls(np.zeros(GROUPS), np.zeros(GROUPS))

    def state(self) -> dict[str, Any]:
        """Return the arrays that make it."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def finish(self, margins: np.ndarray, seen: np.ndarray) -> np.ndarray:
        """Turn mean (minutes), median and edges (log minutes) into minutes within 1..60, edges moved and in order."""
        group = groups(seen)
        mean, median = margins[:, 0], np.exp(margins[:, 1])
        low, high = np.exp(margins[:, 2] + self.low[group]), np.exp(margins[:, 3] + self.high[group])
        least, most = np.minimum(mean, median), np.maximum(mean, median)
        ordered = np.column_stack([mean, median, np.minimum(low, least), np.maximum(high, most)])
        return np.clip(ordered, LOW, HIGH)


def _shift(score: np.ndarray, level: float, prior: float) -> float:
    """Return the quantile of ``score``, drawn towards ``prior`` where there are few."""
    if not score.size:
        return prior
    share = score.size / (score.size + LEAST)
    return float(share * np.quantile(score, level) + (1 - share) * prior)


def _shifts(score: np.ndarray, group: np.ndarray, level: float) -> np.ndarray:
    """Return one shift a group; a small group leans on its kind and hour band, that on its kind, that on all."""
    everything = _shift(score, level, 0.0) if score.size else 0.0
    kind, band = group // (BOROUGHS * BANDS), group % BANDS
    found = np.empty(GROUPS)
    for one in range(KINDS):
        by_kind = _shift(score[kind == one], level, everything)
        for hours in range(BANDS):
            rows = (kind == one) & (band == hours)
            by_band = _shift(score[rows], level, by_kind)
            for place in range(BOROUGHS):
                cell = (one * BOROUGHS + place) * BANDS + hours
                found[cell] = _shift(score[group == cell], level, by_band)
    return found


def calibrate(log_minutes: np.ndarray, edges: np.ndarray, seen: np.ndarray) -> Calibration:
    """Return the shifts that make the edges (log minutes, shape (n, 2)) hold on trips that they were not fitted on."""
    group = groups(seen)
    return Calibration(
        _shifts(log_minutes - edges[:, 0], group, TAIL), _shifts(log_minutes - edges[:, 1], group, 1 - TAIL)
    )
