"""What earlier trips tell of a new one: smoothed averages by zone pair and time, from sums and counts that add up."""

from dataclasses import dataclass, fields

import numpy as np

ZONES = 266  # 0 stands for a zone that is not one of 1..265
HOURS = 168
BANDS = 12
MILES_BINS = 160
BIN_MILES = 0.25


def zone_pair(pickup: np.ndarray, dropoff: np.ndarray) -> np.ndarray:
    """Return one number for each pair of zones (0..265), as ``features.pair_arrays`` numbers its rows."""
    return pickup * ZONES + dropoff


@dataclass(frozen=True)
class Keys:
    """Integer keys of n trips, each of shape (n,): zones 0..265, hour of the week 0..167, time band, distance bin."""

    pickup: np.ndarray
    dropoff: np.ndarray
    hour: np.ndarray
    band: np.ndarray
    miles: np.ndarray

    @property
    def pair(self) -> np.ndarray:
        """The zone pair as one number."""
        return zone_pair(self.pickup, self.dropoff)

    def take(self, rows: np.ndarray) -> "Keys":
        """Return the keys of some trips."""
        return Keys(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})

    def tables(self) -> dict[str, tuple[np.ndarray, int]]:
        """Return for each table of sums the cell of every trip, and the number of cells."""
        return {
            "all": (np.zeros_like(self.hour), 1),
            "hour": (self.hour, HOURS),
            "miles": (self.miles, MILES_BINS),
            "pair": (self.pair, ZONES * ZONES),
            "pair_band": (self.pair * BANDS + self.band, ZONES * ZONES * BANDS),
            "pickup_hour": (self.pickup * HOURS + self.hour, ZONES * HOURS),
            "dropoff_hour": (self.dropoff * HOURS + self.hour, ZONES * HOURS),
        }


Sums = dict[str, tuple[np.ndarray, np.ndarray]]


def time_band(hour_of_week: np.ndarray) -> np.ndarray:
    """Return the band (0..11) of an hour of the week: six of a weekday, six of a weekend day."""
    day, hour = hour_of_week // 24, hour_of_week % 24
    return np.searchsorted([5, 7, 10, 15, 19], hour, side="right") + 6 * (day >= 5)


BAND_OF_HOUR = time_band(np.arange(HOURS)).tolist()


def add_up(keys: Keys, minutes: np.ndarray, weight: np.ndarray) -> Sums:
    """Return for each table the weighted sum of minutes and the sum of weights, cell by cell."""
    return {
        name: (np.bincount(cell, weight * minutes, size), np.bincount(cell, weight, size))
        for name, (cell, size) in keys.tables().items()
    }


def merge(one: Sums, other: Sums) -> Sums:
    """Return the sums of the trips of both."""
    return {name: (one[name][0] + other[name][0], one[name][1] + other[name][1]) for name in one}


def subtract(whole: Sums, part: Sums) -> Sums:
    """Return the sums of all trips but those of ``part``."""
    return {name: (whole[name][0] - part[name][0], np.maximum(whole[name][1] - part[name][1], 0)) for name in whole}


def smooth(sums: tuple[np.ndarray, np.ndarray], prior: np.ndarray | float, strength: float) -> np.ndarray:
    """Return averages pulled towards ``prior`` as if ``strength`` trips of it had been seen.

    Source: D. Micci-Barreca, "A preprocessing scheme for high-cardinality categorical attributes" (2001).
    """
    total, count = sums
    return (total + strength * prior) / (count + strength)


class History:
    """Smoothed averages (minutes) made of sums; ``look_up`` gives the columns of any trips, seen pairs or not."""

    COLUMNS = (
        "pair_minutes",
        "pair_trips",
        "pair_band_minutes",
        "pair_band_trips",
        "pickup_hour_minutes",
        "dropoff_hour_minutes",
        "pickup_hour_pace",
        "dropoff_hour_pace",
        "hour_minutes",
    )

    def __init__(self, sums: Sums, pair_miles: np.ndarray, strength: float) -> None:
        """Average ``sums``; ``pair_miles`` is the distance bin of every zone pair, shape (266 * 266,)."""
        mean = float(smooth(sums["all"], 12.0, 1.0)[0])
        miles = smooth(sums["miles"], mean, strength)
        self.hour = smooth(sums["hour"], mean, strength)
        self.pair = smooth(sums["pair"], miles[pair_miles], strength)
        self.pair_trips = np.log1p(sums["pair"][1])
        self.pair_band = smooth(sums["pair_band"], np.repeat(self.pair, BANDS), strength)
        self.band_trips = np.log1p(sums["pair_band"][1])
        by_hour = np.tile(self.hour, ZONES)
        self.pickup_hour = smooth(sums["pickup_hour"], by_hour, strength)
        self.dropoff_hour = smooth(sums["dropoff_hour"], by_hour, strength)
        self.pickup_mean, self.dropoff_mean = (
            smooth(tuple(part.reshape(ZONES, HOURS).sum(axis=1) for part in sums[name]), mean, strength)  # type: ignore[arg-type]
            for name in ("pickup_hour", "dropoff_hour")
        )

    def look_up(self, keys: Keys) -> np.ndarray:
        """Return one row of ``COLUMNS`` a trip, shape (n, 9), float32."""
        tables = keys.tables()
        start, end = self.pickup_hour[tables["pickup_hour"][0]], self.dropoff_hour[tables["dropoff_hour"][0]]
        band = tables["pair_band"][0]
        columns = (
            self.pair[keys.pair],
            self.pair_trips[keys.pair],
            self.pair_band[band],
            self.band_trips[band],
            start,
            end,
            start / self.pickup_mean[keys.pickup],
            end / self.dropoff_mean[keys.dropoff],
            self.hour[keys.hour],
        )
        return np.column_stack(columns).astype(np.float32)

    def look_up_one(self, pickup: int, dropoff: int, hour: int) -> tuple[float, ...]:
        """Return ``COLUMNS`` of one trip; ``hour`` is that of the week."""
        pair = pickup * ZONES + dropoff
        band = pair * BANDS + BAND_OF_HOUR[hour]
        start, end = self.pickup_hour[pickup * HOURS + hour], self.dropoff_hour[dropoff * HOURS + hour]
        return (
            self.pair[pair],
            self.pair_trips[pair],
            self.pair_band[band],
            self.band_trips[band],
            start,
            end,
            start / self.pickup_mean[pickup],
            end / self.dropoff_mean[dropoff],
            self.hour[hour],
        )
