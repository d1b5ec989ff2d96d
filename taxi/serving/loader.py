"""Loader of the versions that answer: a champion, perhaps a challenger, each loaded, warmed and tried before it takes over."""

import ctypes
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from taxi.data.schema import AT_PICKUP
from taxi.errors import TaxiError
from taxi.models.calibration import HIGH, LOW
from taxi.models.model import DurationModel, load_model
from taxi.models.single_trip import FastModel
from taxi.months import shift_month
from taxi.outputs import OUTPUTS
from taxi.serving.local_store import Entry
from taxi.serving.schemas import Caveat, Trip

ARMS = ("champion", "challenger")
Minutes = tuple[float, float, float, float]
ALONE = 30  # trips of the rehearsal that are also answered alone
WARMING = 6  # trips that make all that a first request would make
TOLERANCE = 1e-6
FAR = 12  # months from those of the training: by then the city has changed, and by how much nobody knows
MOST_MILES = 60.0  # what a trip of an hour, the longest that is learnt from, covers
AT_CUT_OFF = HIGH - 0.5  # minutes, which are read as ``HIGH``


@dataclass(frozen=True)
class Loaded:
    """A version in memory; ``entry`` is what /model says of it, None before it serves."""

    version: int
    model: DurationModel
    fast: FastModel
    entry: Entry | None

    @cached_property
    def known(self) -> tuple[datetime, datetime]:
        """From when until when pickups are near enough to the training to be known about; TaxiError where its months are none."""
        if self.entry is None:
            return datetime.min, datetime.max
        first, end = shift_month(self.entry.trained_from, -FAR), shift_month(self.entry.trained_to, 1 + FAR)
        return datetime.fromisoformat(f"{first}-01"), datetime.fromisoformat(f"{end}-01")

    def caveats(self, trip: Trip, pickup: datetime, minutes: Minutes) -> list[Caveat]:
        """Return in what an answer goes beyond what the version has learnt."""
        said: list[Caveat] = []
        if not self.known[0] <= pickup < self.known[1]:
            said.append("pickup-far-from-training")
        if trip.planned_distance_miles is not None:
            if self.model.planned is None:
                said.append("distance-not-used")
            elif trip.planned_distance_miles > MOST_MILES:
                said.append("distance-beyond-training")
        if minutes[3] >= AT_CUT_OFF:
            said.append("p90-at-cut-off")
        return said

    def one(self, trip: Trip, pickup: datetime) -> Minutes:
        """Return mean, median, p10 and p90 (minutes) of one trip; a planned distance counts where there is a model for it."""
        return self.fast.predict_one(
            pickup,
            trip.PULocationID,
            trip.DOLocationID,
            _number(trip.passenger_count),
            _number(trip.trip_type),
            _number(trip.vendor),
            trip.planned_distance_miles if self.model.planned else None,
        )

    def many(self, trips: Sequence[Trip], pickups: list[datetime]) -> list[Minutes]:
        """Return mean, median, p10 and p90 (minutes) of several trips, in their order."""
        return list(map(tuple, batch_minutes(self.model, trip_frame(trips, pickups)).tolist()))


@dataclass(frozen=True)
class Slots:
    """What answers now; replaced as a whole, so that a request sees one state from beginning to end."""

    champion: Loaded | None = None
    challenger: Loaded | None = None

    def with_arm(self, arm: str, loaded: Loaded | None) -> "Slots":
        """Return these slots with another version (or none) in ``arm``."""
        return replace(self, champion=loaded) if arm == "champion" else replace(self, challenger=loaded)


def _number(value: int | None) -> float:
    return math.nan if value is None else float(value)


def trip_frame(trips: Sequence[Trip], pickups: list[datetime]) -> pd.DataFrame:
    """Return the trips as the frame that models read: the at-pickup columns and ``planned_distance`` (miles)."""
    columns = {
        "pickup": np.array(pickups, dtype="datetime64[us]"),
        "PULocationID": [trip.PULocationID for trip in trips],
        "DOLocationID": [trip.DOLocationID for trip in trips],
        "passenger_count": [_number(trip.passenger_count) for trip in trips],
        "trip_type": [_number(trip.trip_type) for trip in trips],
        "VendorID": [_number(trip.vendor) for trip in trips],
    }
    planned = [math.nan if trip.planned_distance_miles is None else trip.planned_distance_miles for trip in trips]
    return pd.DataFrame(columns)[AT_PICKUP].assign(planned_distance=planned)


def batch_minutes(model: DurationModel, frame: pd.DataFrame) -> np.ndarray:
    """Return mean, median, p10 and p90, shape (n, 4): by the second model where a planned distance is given."""
    planned = frame["planned_distance"].notna().to_numpy()
    if model.planned is None or not planned.any():
        return model.predict(frame)[OUTPUTS].to_numpy(np.float64)
    minutes = np.empty((len(frame), len(OUTPUTS)))
    for rows, one in ((planned, model.planned), (~planned, model)):
        if rows.any():
            minutes[rows] = one.predict(frame[rows])[OUTPUTS].to_numpy(np.float64)
    return minutes


def check_minutes(minutes: np.ndarray) -> None:
    """Raise TaxiError unless all are finite, within 1..60 and in order: p10 <= median, mean <= p90."""
    mean, median, low, high = minutes.T
    ordered = (low <= np.minimum(mean, median)) & (np.maximum(mean, median) <= high)
    if not (np.isfinite(minutes).all() and (low >= LOW).all() and (high <= HIGH).all() and ordered.all()):
        raise TaxiError("expected minutes within 1..60, P10 <= mean and median <= P90; the model answers otherwise")


@cache
def rehearsal() -> tuple[Trip, ...]:
    """Return trips that every model must answer: all hours, all zones, with and without what is optional."""
    zones = [(1 + 7 * step % 265, 1 + 61 * step % 265) for step in range(265)]
    extras: tuple[dict[str, Any], ...] = (
        {},
        {"passenger_count": 1, "trip_type": 1, "vendor": 2},
        {"planned_distance_miles": 3.5},
    )
    return tuple(
        Trip(
            PULocationID=start,
            DOLocationID=end,
            pickup_datetime=f"2023-0{1 + step % 9}-{1 + step % 28:02}T{step % 24:02}:{step % 60:02}:00",
            **extras[step % 3],
        )
        for step, (start, end) in enumerate(zones)
    )


def warm(loaded: Loaded, trips: Sequence[Trip]) -> None:
    """Answer trips in both ways, so that nothing is made at the first request; raise TaxiError if the two differ."""
    pickups = [trip.pickup or datetime.min for trip in trips]
    together = np.array(loaded.many(trips, pickups))
    check_minutes(together)
    alone = np.array([loaded.one(*pair) for pair in list(zip(trips, pickups, strict=True))[:ALONE]])
    worst = float(np.abs(alone - together[: len(alone)]).max())
    if not worst <= TOLERANCE:
        raise TaxiError(f"expected the same minutes for a trip alone and among others; they differ by {worst:g}")


def load_slot(folder: Path, version: int, entry: Entry | None = None) -> Loaded:
    """Load a checked folder and have it rehearse; TaxiError if it does not answer as a model must.

    One with an ``entry`` has rehearsed for the follower, and is only warmed: beside it, requests wait for every step.
    """
    model = load_model(folder)
    loaded = Loaded(version, model, FastModel(model), entry)
    _ = loaded.known
    warm(loaded, rehearsal()[: WARMING if entry else None])
    return loaded


def give_back() -> None:
    """Hand the memory of versions that nothing holds any more back to the system; only glibc has to be asked."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim:
        trim(0)
