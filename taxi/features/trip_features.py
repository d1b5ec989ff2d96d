"""Features of a trip: only what is known when it starts, and what earlier trips taught."""

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import reduce
from itertools import accumulate, chain, pairwise
from typing import NamedTuple

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from taxi.data.schema import AT_PICKUP
from taxi.features.history import (
    BIN_MILES,
    DAY,
    MILES_BINS,
    WAYS,
    ZONES,
    Found,
    History,
    HistoryKeys,
    Sums,
    add_up,
    add_up_ways,
    is_year_round,
    look_up,
    merge,
    stack,
    subtract,
    zone_pair,
)
from taxi.features.lookups import PAIR, ZONE, holiday_flag, holiday_flags, pair_arrays, zone_arrays

# --- A matrix of features, made column by column, on every core where there are many rows.

MANY = 10_000  # rows; the columns of fewer are not worth threads


def _fill(column: np.ndarray, part: np.ndarray | Found) -> None:
    if not isinstance(part, tuple):
        column[:] = part
    elif part[0].dtype == column.dtype:  # every place is within: "clip" only spares numpy a buffer
        np.take(*part, out=column, mode="clip")
    else:
        column[:] = part[0][part[1]]


def matrix_of(parts: Iterable[np.ndarray | Found], rows: int, width: int) -> np.ndarray:
    """Return a float32 matrix, shape (rows, width), of columns that are values, or a table and the place of every row in it.

    It lies column by column in memory: twice as fast to make as row by row.
    """
    columns = np.empty((width, rows), dtype=np.float32)
    if rows < MANY:
        for column, part in zip(columns, parts, strict=True):
            _fill(column, part)
    else:
        with ThreadPoolExecutor(os.cpu_count()) as pool:  # numpy lets go of the interpreter while it copies
            list(pool.map(_fill, columns, parts))
    return columns.T


CALENDAR = ("minute_of_day", "hour_of_week", "holiday", "next_to_holiday", "day_of_year")
RIDE = ("passenger_count", "trip_type", "VendorID")
GROUPS = {
    "zones": ("pickup_zone", "dropoff_zone", *(f"{end}_{name}" for end in ("pickup", "dropoff") for name in ZONE)),
    "pair geometry": PAIR,
    "calendar": CALENDAR,
    "ride": RIDE,
    "history": History.COLUMNS,
}
NAMES = [name for group in GROUPS.values() for name in group]
PLANNED = ("planned_miles", "planned_detour", *(f"planned_minutes_by_{cell}" for cell in WAYS))
_SIZES = (2, len(ZONE), len(ZONE), len(PAIR), len(CALENDAR), len(RIDE), len(History.COLUMNS), len(PLANNED))
_ENDS, _FROM, _TO, _BETWEEN, _WHEN, _RIDE, _LEARNT, _WAY = (slice(*ends) for ends in pairwise([0, *accumulate(_SIZES)]))


def minutes_of(pickup: pd.Series) -> np.ndarray:
    """Return minutes since 1970, shape (n,); raise ValueError where a time is missing."""
    when = pickup.to_numpy()
    if np.isnat(when).any():
        raise ValueError(f"expected a pickup time for every trip; {int(np.isnat(when).sum())} have none")
    return when.astype("datetime64[m]").astype(np.int64)


def _codes(zone: pd.Series) -> np.ndarray:
    number = pd.to_numeric(zone, errors="coerce").to_numpy(dtype=float, na_value=np.nan)
    valid = (number >= 1) & (number < ZONES) & (number == np.floor(number))
    return np.where(valid, number, 0).astype(np.int64)


def _miles(trips: pd.DataFrame) -> np.ndarray:
    return trips["planned_distance"].to_numpy(dtype=float, na_value=np.nan)


class TripAtPickup(NamedTuple):
    """One trip as it is known when it starts; ``pickup`` is New York wall-clock, ``planned_distance`` is in miles."""

    pickup: datetime
    PULocationID: int
    DOLocationID: int
    passenger_count: float = math.nan
    trip_type: float = math.nan
    VendorID: float = math.nan
    planned_distance: float | None = None


class TripFeatures(TransformerMixin, BaseEstimator):
    """Turn trips (columns ``schema.AT_PICKUP``) into a float32 matrix with the columns ``NAMES``.

    ``zones`` is the table of ``zones.read_zones``. ``fit_transform`` learns history out of fold, in blocks of whole weeks,
    so that no trip sees its own duration; ``transform`` uses all that was learnt. Unknown zones and unseen pairs are fine.
    ``day_of_year`` is a gap unless a whole year was learnt: it would only say which month a trip is from (ADR 8).
    With ``planned`` the trips also have ``planned_distance`` (miles, NaN where unknown), and the matrix the columns ``PLANNED``.
    Months can be learnt one by one: ``tally`` each, ``restore`` the merged tallies, ``look_back`` at each.
    """

    def __init__(self, zones: pd.DataFrame, smoothing: float = 20.0, folds: int = 5, planned: bool = False) -> None:
        self.zones = zones
        self.smoothing = smoothing
        self.folds = folds
        self.planned = planned

    def fit(self, trips: pd.DataFrame, duration: pd.Series, sample_weight: np.ndarray | None = None) -> "TripFeatures":
        """Learn from trips and their durations (minutes); raise ValueError without trips."""
        self._learn(trips, duration, sample_weight)
        return self

    def fit_transform(
        self, trips: pd.DataFrame, duration: pd.Series, sample_weight: np.ndarray | None = None
    ) -> np.ndarray:
        """Learn, and return what each trip looks like to a model that has not seen its week's fold."""
        return self.look_back(trips, self._learn(trips, duration, sample_weight))

    def tally(
        self, trips: pd.DataFrame, minutes: np.ndarray, weight: np.ndarray, keys: HistoryKeys | None = None
    ) -> list[Sums]:
        """Return what these trips add to history, one set of sums a fold; sums of several months ``merge``.

        ``keys`` are theirs, where they have been made.
        """
        self._set_places()
        keys = keys or self._keys(trips)
        fold = self._fold(keys)
        sums = add_up(keys, minutes, weight, fold, self.folds)
        if not self.planned:
            return sums
        ways = add_up_ways(keys, minutes, _miles(trips), weight, fold, self.folds)
        return [one | way for one, way in zip(sums, ways, strict=True)]

    def restore(self, tallies: Sequence[Sums]) -> "TripFeatures":
        """Take up tallies, one a fold, as if just fitted; a single one serves ``transform`` only."""
        self._set_places()
        self.sums_ = reduce(merge, tallies)
        self.year_round_ = is_year_round(self.sums_)
        self.history_ = History(self.sums_, self.pair_bin_, self.smoothing)
        apart = len(tallies) == self.folds > 1
        rest = (subtract(self.sums_, one) for one in tallies)
        self.others_ = stack([History(one, self.pair_bin_, self.smoothing) for one in rest]) if apart else {}
        return self

    def with_planned(self, planned: bool) -> "TripFeatures":
        """Return the same fitted features with or without the columns ``PLANNED``."""
        other = TripFeatures(self.zones, self.smoothing, self.folds, planned)
        other.__dict__ |= {name: value for name, value in vars(self).items() if name.endswith("_")}
        return other

    def look_back(self, trips: pd.DataFrame, keys: HistoryKeys | None = None) -> np.ndarray:
        """Return the matrix of trips that were learnt from, each without what its own fold of weeks taught."""
        if not getattr(self, "others_", {}):
            raise ValueError("expected features fitted here; those read from a model keep no folds")
        keys = keys or self._keys(trips)
        return self._assemble(trips, keys, self.others_, self._fold(keys))

    def transform(self, trips: pd.DataFrame) -> np.ndarray:
        """Return the matrix of ``NAMES`` (and ``PLANNED``), shape (n, 48 or 54), float32."""
        check_is_fitted(self, "sums_")
        keys = self._keys(trips)
        return self._assemble(trips, keys, self.history_.tables, 0)

    def transform_one(self, trip: TripAtPickup) -> np.ndarray:
        """Return what ``transform`` returns for one trip, shape (48 or 54,), without a frame."""
        pickup, dropoff = (zone if 0 < zone < ZONES else 0 for zone in (trip.PULocationID, trip.DOLocationID))
        pair, when = pickup * ZONES + dropoff, trip.pickup
        hour = when.weekday() * 24 + when.hour
        row = np.empty(len(NAMES) + len(PLANNED) * self.planned, dtype=np.float32)
        row[_ENDS] = pickup, dropoff
        row[_FROM], row[_TO], row[_BETWEEN] = self.places_[pickup], self.places_[dropoff], self.pairs_[pair]
        day = when.timetuple().tm_yday if self.year_round_ else math.nan
        row[_WHEN] = when.hour * 60 + when.minute, hour, *holiday_flag(when.date()), day
        row[_RIDE] = trip.passenger_count, trip.trip_type, trip.VendorID
        row[_LEARNT] = self.history_.look_up_one(pickup, dropoff, hour)
        if self.planned:
            miles = math.nan if trip.planned_distance is None else trip.planned_distance
            paces = self.history_.look_up_one(pickup, dropoff, hour, planned=True)
            row[_WAY] = miles, miles / self.least_miles_[pair], *(miles * pace for pace in paces)
        return row

    def get_feature_names_out(self, input_features: object = None) -> np.ndarray:
        """Return ``NAMES``, and ``PLANNED`` where the distance is planned."""
        return np.array([*NAMES, *(PLANNED if self.planned else ())], dtype=object)

    def _learn(self, trips: pd.DataFrame, duration: pd.Series, sample_weight: np.ndarray | None) -> HistoryKeys:
        if not len(trips):
            raise ValueError("expected at least one trip to learn from; got none")
        self._set_places()
        keys = self._keys(trips)
        weight = np.ones(len(trips)) if sample_weight is None else np.asarray(sample_weight, dtype=float)
        self.restore(self.tally(trips, np.asarray(duration, dtype=float), weight, keys))
        return keys

    def _set_places(self) -> None:
        if hasattr(self, "pair_bin_"):
            return
        places = zone_arrays(self.zones)
        pairs = pair_arrays(places)
        miles = pairs[:, PAIR.index("miles")]
        self.least_miles_ = np.fmax(pairs[:, PAIR.index("grid_miles")], BIN_MILES)
        self.places_, self.pairs_ = (np.asfortranarray(table, dtype=np.float32) for table in (places, pairs))
        binned = np.clip(np.nan_to_num(miles / BIN_MILES, nan=MILES_BINS - 1), 0, MILES_BINS - 1)
        self.pair_bin_ = binned.astype(np.int64)

    def _fold(self, keys: HistoryKeys) -> np.ndarray:
        return keys.date // 7 % self.folds

    def _assemble(
        self, trips: pd.DataFrame, keys: HistoryKeys, tables: dict[str, np.ndarray], which: np.ndarray | int
    ) -> np.ndarray:
        parts = chain(self._plain(trips, keys), look_up(tables, keys, which))
        if self.planned:
            parts = chain(parts, self._planned(_miles(trips), keys, look_up(tables, keys, which, planned=True)))
        return matrix_of(parts, len(trips), len(self.get_feature_names_out()))

    def _planned(self, miles: np.ndarray, keys: HistoryKeys, paces: Iterator[Found]) -> Iterator[np.ndarray]:
        yield miles
        yield miles / self.least_miles_[keys.pair]
        yield from (miles * pace[cell] for pace, cell in paces)

    def _keys(self, trips: pd.DataFrame) -> HistoryKeys:
        pickup, dropoff = _codes(trips["PULocationID"]), _codes(trips["DOLocationID"])
        miles = self.pair_bin_[zone_pair(pickup, dropoff)]
        return HistoryKeys(pickup, dropoff, minutes_of(trips["pickup"]), miles)

    def _plain(self, trips: pd.DataFrame, keys: HistoryKeys) -> Iterator[np.ndarray | Found]:
        yield keys.pickup
        yield keys.dropoff
        for table, cell in ((self.places_, keys.pickup), (self.places_, keys.dropoff), (self.pairs_, keys.pair)):
            yield from ((column, cell) for column in table.T)
        yield keys.minutes % DAY
        yield keys.hour
        yield from holiday_flags(keys.date)
        yield keys.day if self.year_round_ else np.full(len(trips), np.nan)
        for name in RIDE:
            yield pd.to_numeric(trips[name], errors="coerce").to_numpy(float, na_value=np.nan)


def at_pickup(trips: pd.DataFrame, planned: bool = False) -> pd.DataFrame:
    """Return only the columns known when the trip starts (``planned``: its distance too); ValueError names a missing one."""
    wanted = [*AT_PICKUP, *(["planned_distance"] if planned else [])]
    missing = [name for name in wanted if name not in trips.columns]
    if missing:
        raise ValueError(f"expected the columns {wanted}; {missing} are missing")
    return trips[wanted]


def planned_distance(trips: pd.DataFrame) -> pd.DataFrame:
    """Return trips with ``planned_distance`` (miles): the metered distance stands in for a router's, NaN where it is suspect."""
    return trips.assign(planned_distance=trips["trip_distance"].where(~trips["distance_suspect"]))
