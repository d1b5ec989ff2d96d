"""What the model sees of a trip: only what is known when it starts, and what earlier trips taught."""

import math
from collections.abc import Sequence
from datetime import date, datetime
from functools import lru_cache, reduce
from typing import NamedTuple

import holidays
import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from taxi.history import (
    BIN_MILES,
    MILES_BINS,
    ZONES,
    History,
    Keys,
    Sums,
    add_up,
    merge,
    subtract,
    time_band,
    zone_pair,
)
from taxi.schema import AT_PICKUP

GRID_ANGLE = np.deg2rad(29.0)  # Manhattan's avenues run 29 degrees east of north
GEOMETRY = ("x", "y", "area", "airport", "borough")
PAIR = ("dx", "dy", "miles", "grid_miles", "bearing")
CALENDAR = ("minute_of_day", "weekday", "hour_of_week", "holiday", "next_to_holiday")
RIDE = ("passenger_count", "trip_type", "VendorID", "null_block")
GROUPS = {
    "zones": ("pickup_zone", "dropoff_zone", *(f"{end}_{name}" for end in ("pickup", "dropoff") for name in GEOMETRY)),
    "pair geometry": PAIR,
    "calendar": CALENDAR,
    "ride": RIDE,
    "history": History.COLUMNS,
}
NAMES = [name for group in GROUPS.values() for name in group]
PLANNED = ("planned_miles", "planned_detour")


@lru_cache(maxsize=64)
def _holidays_of(year: int) -> frozenset[date]:
    return frozenset(holidays.country_holidays("US", subdiv="NY", years=year))


def holiday_flags(days: pd.DatetimeIndex) -> tuple[np.ndarray, np.ndarray]:
    """Return for each day whether it is a public holiday in New York, and whether it is next to one."""
    wanted = {day.date() for day in days.unique()}
    near = {day: [(pd.Timestamp(day) + pd.Timedelta(days=by)).date() for by in (-1, 1)] for day in wanted}
    is_free = {day: day in _holidays_of(day.year) for day in wanted | {one for two in near.values() for one in two}}
    codes, unique = pd.factorize(days)
    flags = np.array(
        [[is_free[day.date()], any(is_free[one] for one in near[day.date()])] for day in unique], dtype=float
    )
    flags = flags.reshape(-1, 2)
    return flags[codes, 0], flags[codes, 1]


@lru_cache(maxsize=4096)
def holiday_flag(day: date) -> tuple[float, float]:
    """Return the same of one day."""
    free, near = holiday_flags(pd.DatetimeIndex([day]))
    return float(free[0]), float(near[0])


def zone_arrays(zones: pd.DataFrame) -> np.ndarray:
    """Return x, y, area, airport and a borough's number for zones 0..265, shape (266, 5); NaN where there is no shape."""
    table = zones.reindex(range(ZONES))
    borough = pd.Categorical(table["borough"], categories=sorted(zones["borough"].dropna().unique())).codes
    columns = [table["x"], table["y"], table["area"], table["airport"].astype(float), borough]
    return np.column_stack([np.asarray(column, dtype=np.float64) for column in columns])


def pair_arrays(places: np.ndarray) -> np.ndarray:
    """Return dx, dy, straight and street-grid distance (miles) and bearing (radians) of every pair, shape (266 * 266, 5)."""
    dx, dy = (places[None, :, axis] - places[:, None, axis] for axis in (0, 1))
    along = dx * np.sin(GRID_ANGLE) + dy * np.cos(GRID_ANGLE)
    across = dx * np.cos(GRID_ANGLE) - dy * np.sin(GRID_ANGLE)
    parts = [dx, dy, np.hypot(dx, dy), np.abs(along) + np.abs(across), np.arctan2(dy, dx)]
    return np.stack(parts, axis=-1).reshape(-1, len(parts))


def _codes(zone: pd.Series) -> np.ndarray:
    number = pd.to_numeric(zone, errors="coerce").to_numpy(dtype=float, na_value=np.nan)
    valid = (number >= 1) & (number < ZONES) & (number == np.floor(number))
    return np.where(valid, number, 0).astype(np.int64)


class Trip(NamedTuple):
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
        if not len(trips):
            raise ValueError("expected at least one trip to learn from; got none")
        weight = np.ones(len(trips)) if sample_weight is None else np.asarray(sample_weight, dtype=float)
        return self.restore(self.tally(trips, np.asarray(duration, dtype=float), weight))

    def fit_transform(
        self, trips: pd.DataFrame, duration: pd.Series, sample_weight: np.ndarray | None = None
    ) -> np.ndarray:
        """Learn, and return what each trip looks like to a model that has not seen its week's fold."""
        return self.fit(trips, duration, sample_weight).look_back(trips)

    def tally(self, trips: pd.DataFrame, minutes: np.ndarray, weight: np.ndarray) -> list[Sums]:
        """Return what these trips add to history, one set of sums a fold; sums of several months ``merge``."""
        self._set_places()
        keys, fold = self._keys(trips), self._fold(trips)
        rows = [np.flatnonzero(fold == number) for number in range(self.folds)]
        return [add_up(keys.take(one), minutes[one], weight[one]) for one in rows]

    def restore(self, tallies: Sequence[Sums]) -> "TripFeatures":
        """Take up tallies, one a fold, as if just fitted; a single one serves ``transform`` only."""
        self._set_places()
        self.sums_ = reduce(merge, tallies)
        self.history_ = History(self.sums_, self.pair_bin_, self.smoothing)
        rest = [subtract(self.sums_, one) for one in tallies] if len(tallies) > 1 else []
        self.others_ = [History(one, self.pair_bin_, self.smoothing) for one in rest]
        return self

    def with_planned(self, planned: bool) -> "TripFeatures":
        """Return the same fitted features with or without the columns ``PLANNED``."""
        other = TripFeatures(self.zones, self.smoothing, self.folds, planned)
        other.__dict__ |= {name: value for name, value in vars(self).items() if name.endswith("_")}
        return other

    def look_back(self, trips: pd.DataFrame) -> np.ndarray:
        """Return the matrix of trips that were learnt from, each without what its own fold of weeks taught."""
        if len(getattr(self, "others_", ())) != self.folds:
            raise ValueError("expected features fitted here; those read from a model keep no folds")
        keys, fold = self._keys(trips), self._fold(trips)
        learnt = np.empty((len(trips), len(History.COLUMNS)), dtype=np.float32)
        for number, others in enumerate(self.others_):
            rows = np.flatnonzero(fold == number)
            learnt[rows] = others.look_up(keys.take(rows))
        return self._assemble(trips, keys, learnt)

    def transform(self, trips: pd.DataFrame) -> np.ndarray:
        """Return the matrix of ``NAMES`` (and ``PLANNED``), shape (n, 35 or 37), float32."""
        check_is_fitted(self, "sums_")
        keys = self._keys(trips)
        return self._assemble(trips, keys, self.history_.look_up(keys))

    def transform_one(self, trip: Trip) -> np.ndarray:
        """Return what ``transform`` returns for one trip, shape (35 or 37,), without a frame."""
        pickup, dropoff = (zone if 0 < zone < ZONES else 0 for zone in (trip.PULocationID, trip.DOLocationID))
        pair, when = pickup * ZONES + dropoff, trip.pickup
        hour = when.weekday() * 24 + when.hour
        row = np.empty(len(NAMES) + len(PLANNED) * self.planned, dtype=np.float32)
        row[0], row[1] = pickup, dropoff
        row[2:7], row[7:12], row[12:17] = self.places_[pickup], self.places_[dropoff], self.pairs_[pair]
        row[17:22] = when.hour * 60 + when.minute, when.weekday(), hour, *holiday_flag(when.date())
        row[22:26] = trip.passenger_count, trip.trip_type, trip.VendorID, math.isnan(trip.passenger_count)
        row[26:35] = self.history_.look_up_one(pickup, dropoff, hour)
        if self.planned:
            miles = math.nan if trip.planned_distance is None else trip.planned_distance
            row[35:] = miles, miles / np.fmax(self.pairs_[pair, 3], BIN_MILES)
        return row

    def get_feature_names_out(self, input_features: object = None) -> np.ndarray:
        """Return ``NAMES``, and ``PLANNED`` where the distance is planned."""
        return np.array([*NAMES, *(PLANNED if self.planned else ())], dtype=object)

    def _set_places(self) -> None:
        if hasattr(self, "pair_bin_"):
            return
        self.places_ = zone_arrays(self.zones)
        self.pairs_ = pair_arrays(self.places_)
        miles = self.pairs_[:, 2]
        binned = np.clip(np.nan_to_num(miles / BIN_MILES, nan=MILES_BINS - 1), 0, MILES_BINS - 1)
        self.pair_bin_ = binned.astype(np.int64)

    def _fold(self, trips: pd.DataFrame) -> np.ndarray:
        return (trips["pickup"].to_numpy().astype("datetime64[D]").astype(np.int64) // 7) % self.folds

    def _assemble(self, trips: pd.DataFrame, keys: Keys, learnt: np.ndarray) -> np.ndarray:
        parts = [self._plain(trips, keys), learnt]
        if self.planned:
            miles = trips["planned_distance"].to_numpy(dtype=float, na_value=np.nan)
            detour = miles / np.fmax(self.pairs_[keys.pair, 3], BIN_MILES)
            parts.append(np.column_stack([miles, detour]).astype(np.float32))
        return np.hstack(parts)

    def _keys(self, trips: pd.DataFrame) -> Keys:
        pickup, dropoff = _codes(trips["PULocationID"]), _codes(trips["DOLocationID"])
        hour = (trips["pickup"].dt.dayofweek * 24 + trips["pickup"].dt.hour).to_numpy(np.int64)
        return Keys(pickup, dropoff, hour, time_band(hour), self.pair_bin_[zone_pair(pickup, dropoff)])

    def _plain(self, trips: pd.DataFrame, keys: Keys) -> np.ndarray:
        when = trips["pickup"].dt
        free, near = holiday_flags(pd.DatetimeIndex(when.normalize()))
        ride = [pd.to_numeric(trips[name], errors="coerce").to_numpy(float, na_value=np.nan) for name in RIDE[:-1]]
        columns = [
            keys.pickup,
            keys.dropoff,
            *self.places_[keys.pickup].T,
            *self.places_[keys.dropoff].T,
            *self.pairs_[keys.pair].T,
            when.hour * 60 + when.minute,
            when.dayofweek,
            keys.hour,
            free,
            near,
            *ride,
            np.isnan(ride[0]),
        ]
        return np.column_stack([np.asarray(column, dtype=np.float32) for column in columns])


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
