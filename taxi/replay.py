"""A past month as live traffic: which trips, in which order and when, what is asked and told, and how it goes so far."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from taxi.errors import UsageError
from taxi.evaluate import score
from taxi.schema import AT_PICKUP, read_trips

MINUTES = ("mean", "median", "p10", "p90")
ASKED = {"passenger_count": "passenger_count", "trip_type": "trip_type", "VendorID": "vendor"}


def replayed_id(service: str, month: str, row: int) -> str:
    """Return the id of a trip that is replayed: service, month and its row in the published file."""
    return f"{service}-{month}-{row}"


def read_traffic(path: Path, most: int | None = None) -> pd.DataFrame:
    """Return a month's kept trips (row, what is known at pickup, duration in minutes) in true order, the first ``most``."""
    if not path.is_file():
        raise UsageError(f"no kept trips of {path.parent.name} {path.stem} are on hand: `taxi ingest` brings them")
    trips = read_trips(path, ["row", *AT_PICKUP, "duration"]).sort_values(["pickup", "row"], ignore_index=True)
    return trips if most is None else trips.head(most)


def schedule(trips: pd.DataFrame, speed: float) -> pd.DataFrame:
    """Return what happens in order: ``trip`` (position), ``ends`` (False: it begins), ``at`` (seconds after the first pickup).

    ``at`` is in seconds of the replay, ``speed`` times as fast as the trips were; 0 means without waiting. At one moment
    trips begin before others end, so that none ends before it began.
    """
    begins = (trips["pickup"] - trips["pickup"].min()).dt.total_seconds().to_numpy()
    seconds = np.concatenate([begins, begins + trips["duration"].to_numpy() * 60])
    trip, ends = np.tile(np.arange(len(trips)), 2), np.repeat([False, True], len(trips))
    order = np.lexsort((trip, ends, seconds))
    at = seconds / speed if speed else np.zeros_like(seconds)
    return pd.DataFrame({"at": at[order], "trip": trip[order], "ends": ends[order]})


def requests(trips: pd.DataFrame, service: str, month: str) -> list[dict[str, Any]]:
    """Return for each trip what is asked of the service: only what is known at pickup, what is missing left out."""
    return [
        {
            "trip_id": replayed_id(service, month, trip["row"]),
            "pickup_datetime": trip["pickup"].isoformat(),
            **{name: int(trip[name]) for name in ("PULocationID", "DOLocationID")},
            **{asked: int(trip[name]) for name, asked in ASKED.items() if not pd.isna(trip[name])},
        }
        for trip in trips[["row", *AT_PICKUP]].to_dict("records")
    ]


def outcomes(trips: pd.DataFrame, service: str, month: str) -> list[dict[str, Any]]:
    """Return for each trip what the service is told when it ends."""
    told = zip(trips["row"], trips["duration"], strict=True)
    return [{"trip_id": replayed_id(service, month, row), "duration_minutes": minutes} for row, minutes in told]


@dataclass
class Progress:
    """What came back so far, one entry a trip; errors and coverage are of the trips that were answered and have ended."""

    duration: np.ndarray
    predicted: np.ndarray = field(init=False)
    arm: np.ndarray = field(init=False)
    version: np.ndarray = field(init=False)
    ended: np.ndarray = field(init=False)
    latency: list[float] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)
    outcomes: int = 0

    def __post_init__(self) -> None:
        """Begin with nothing answered."""
        trips = len(self.duration)
        self.predicted = np.full((trips, len(MINUTES)), np.nan)
        self.arm, self.version = np.full(trips, "", dtype=object), np.zeros(trips, dtype=int)
        self.ended = np.zeros(trips, dtype=bool)

    def answer(self, trip: int, given: dict[str, Any]) -> None:
        """Take the service's answer about the trip at that position; KeyError, ValueError or TypeError if it is none."""
        minutes = [float(given[f"{name}_minutes"]) for name in MINUTES]
        if not np.isfinite(minutes).all():
            raise ValueError(f"expected finite minutes; got {minutes}")
        self.arm[trip], self.version[trip] = str(given["arm"]), int(given["version"])
        self.predicted[trip] = minutes

    @property
    def answered(self) -> np.ndarray:
        """Which trips were answered."""
        return np.isfinite(self.predicted).all(axis=1)

    def scores(self, among: np.ndarray | None = None) -> dict[str, float] | None:
        """Return ``evaluate.score`` of the trips answered and ended (of those in the mask ``among``), None without any."""
        counted = self.answered & self.ended if among is None else self.answered & self.ended & among
        if not counted.any():
            return None
        return score(pd.Series(self.duration[counted]), pd.DataFrame(self.predicted[counted], columns=list(MINUTES)))


def progress_line(now: str, progress: Progress) -> str:
    """Return one line: the replay's clock, counts, live error (minutes) and the share of trips inside the interval."""
    sent = f"{now}  {int(progress.answered.sum()):,} predicted, {sum(progress.failures.values()):,} failed"
    if (scores := progress.scores()) is None:
        return f"{sent}, none has ended"
    errors = f"RMSE {scores['rmse']:.3f}, MAE {scores['mae']:.3f}, {scores['coverage80']:.1%} inside the 80 % interval"
    return f"{sent}, {scores['n']:,} ended: {errors}"


def replay_result(service: str, month: str, progress: Progress, seconds: float) -> dict[str, Any]:
    """Return what a replay came to: counts, failures by kind, scores overall and by arm, latency and pace."""
    answered = progress.answered
    arms = {str(arm): progress.scores(progress.arm == arm) for arm in sorted(set(progress.arm[answered]))}
    versions, counts = np.unique(progress.version[answered], return_counts=True)
    return {
        "service": service,
        "month": month,
        "trips": len(answered),
        "answered": int(answered.sum()),
        "failed": sum(progress.failures.values()),
        "failures": dict(sorted(progress.failures.items())),
        "outcomes": progress.outcomes,
        "metrics": progress.scores(),
        "arms": arms,
        "versions": {str(version): int(count) for version, count in zip(versions, counts, strict=True)},
        "latency_ms": {f"p{q}": float(np.percentile(progress.latency, q)) for q in (50, 99) if progress.latency},
        "seconds": seconds,
        "per_second": int(answered.sum()) / seconds if seconds else 0.0,
    }
