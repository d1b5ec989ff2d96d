"""Target encoding: what earlier trips tell of a new one, smoothed averages by zone pair and time, from sums and counts that add up."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

ZONES = 266  # 0 stands for a zone that is not one of 1..265
HOURS = 168
DAY = 24 * 60
MONDAY = 4 * DAY  # 1970-01-05, in minutes since 1970
DAYS = 366
YEAR_ROUND = 350  # of them seen: a month that has not been seen in any year has no season to go by
BANDS = 12
MILES_BINS = 160
BIN_MILES = 0.25


def zone_pair(pickup: np.ndarray, dropoff: np.ndarray) -> np.ndarray:
    """Return one number for each pair of zones (0..265), as ``features.pair_arrays`` numbers its rows."""
    return pickup * ZONES + dropoff


def day_of_year(dates: np.ndarray) -> np.ndarray:
    """Return the day of the year, 1..366, of each date (days since 1970), shape (n,)."""
    codes, unique = pd.factorize(dates)
    days = unique.astype("datetime64[D]")
    return ((days - days.astype("datetime64[Y]").astype("datetime64[D]")).astype(np.int64) + 1)[codes]


@dataclass(frozen=True)
class HistoryKeys:
    """Integer keys of n trips, each of shape (n,): zones 0..265, minutes since 1970 and distance bin; the rest follows."""

    pickup: np.ndarray
    dropoff: np.ndarray
    minutes: np.ndarray
    miles: np.ndarray

    @cached_property
    def date(self) -> np.ndarray:
        """The date in days since 1970."""
        return self.minutes // DAY

    @cached_property
    def day(self) -> np.ndarray:
        """The day of the year, 1..366."""
        return day_of_year(self.date)

    @cached_property
    def hour(self) -> np.ndarray:
        """The hour of the week, 0..167."""
        return (self.minutes - MONDAY) % (7 * DAY) // 60

    @cached_property
    def pair(self) -> np.ndarray:
        """The zone pair as one number."""
        return zone_pair(self.pickup, self.dropoff)

    @cached_property
    def cells(self) -> dict[str, np.ndarray]:
        """The cell of every trip in each table of sums, but for ``all``, which has one."""
        return {
            "day": self.day,
            "hour": self.hour,
            "miles": self.miles,
            "pair": self.pair,
            "pair_band": self.pair * BANDS + BAND_OF_HOUR[self.hour],
            "pickup_hour": self.pickup * HOURS + self.hour,
            "dropoff_hour": self.dropoff * HOURS + self.hour,
        }


SIZES = {
    "all": 1,
    "day": DAYS + 1,
    "hour": HOURS,
    "miles": MILES_BINS,
    "pair": ZONES * ZONES,
    "pair_band": ZONES * ZONES * BANDS,
    "pickup_hour": ZONES * HOURS,
    "dropoff_hour": ZONES * HOURS,
}
WAYS = ("pair", "pair_band", "pickup_hour", "dropoff_hour")  # by which the pace of a planned way is known
MILES_A_TRIP = 2.0
Sums = dict[str, tuple[np.ndarray, np.ndarray]]
Found = tuple[np.ndarray, np.ndarray]  # a table, and places in it


def time_band(hour_of_week: np.ndarray) -> np.ndarray:
    """Return the band (0..11) of an hour of the week: six of a weekday, six of a weekend day."""
    day, hour = hour_of_week // 24, hour_of_week % 24
    return np.searchsorted([5, 7, 10, 15, 19], hour, side="right") + 6 * (day >= 5)


BAND_OF_HOUR = time_band(np.arange(HOURS))


def _by_fold(
    cells: dict[str, np.ndarray], total: np.ndarray, weight: np.ndarray, fold: np.ndarray, folds: int
) -> list[Sums]:
    sums = [Sums() for _ in range(folds)]
    for name, cell in cells.items():
        size = SIZES[name]
        place = fold * size + cell
        whole = (np.bincount(place, what, folds * size).reshape(folds, size) for what in (total, weight))
        for one, added, counted in zip(sums, *whole, strict=True):
            one[name] = added, counted
    return sums


def add_up(keys: HistoryKeys, minutes: np.ndarray, weight: np.ndarray, fold: np.ndarray, folds: int) -> list[Sums]:
    """Return for each fold (0..folds - 1) and table the weighted sum of minutes and the sum of weights, cell by cell."""
    everywhere = {"all": np.zeros(len(minutes), dtype=np.int64)}
    return _by_fold(keys.cells | everywhere, weight * minutes, weight, fold, folds)


def add_up_ways(
    keys: HistoryKeys, minutes: np.ndarray, miles: np.ndarray, weight: np.ndarray, fold: np.ndarray, folds: int
) -> list[Sums]:
    """Return for each fold and table of ``WAYS`` the weighted sums of minutes and of miles, of trips whose miles are known."""
    known = ~np.isnan(miles)
    cells = {cell: keys.cells[cell] for cell in ("hour", *WAYS)}
    ways = _by_fold(cells, np.where(known, weight * minutes, 0), np.where(known, weight * miles, 0), fold, folds)
    return [{f"way_{name}": both for name, both in one.items()} for one in ways]


def merge(one: Sums, other: Sums) -> Sums:
    """Return the sums of the trips of both."""
    return {name: (one[name][0] + other[name][0], one[name][1] + other[name][1]) for name in one}


def subtract(whole: Sums, part: Sums) -> Sums:
    """Return the sums of all trips but those of ``part``."""
    rest = {name: (whole[name][0] - part[name][0], whole[name][1] - part[name][1]) for name in whole}
    for _, count in rest.values():
        np.maximum(count, 0, out=count)
    return rest


def smooth(sums: tuple[np.ndarray, np.ndarray], prior: np.ndarray | float, strength: float) -> np.ndarray:
    """Return averages pulled towards ``prior`` as if ``strength`` trips of it had been seen; most cells have seen none.

    Source: D. Micci-Barreca, "A preprocessing scheme for high-cardinality categorical attributes" (2001).
    """
    total, count = sums
    average = np.array(np.broadcast_to(prior, total.shape), dtype=np.float64)
    seen = np.flatnonzero(count)
    average[seen] = (total[seen] + strength * average[seen]) / (count[seen] + strength)
    return average


def is_year_round(sums: Sums) -> bool:
    """Say whether trips of (nearly) every day of the year have been seen."""
    return int(np.count_nonzero(sums["day"][1])) >= YEAR_ROUND


def _log_count(sums: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    return np.log1p(sums[1], out=np.zeros_like(sums[1]), where=sums[1] > 0)


class History:
    """Smoothed averages (minutes) made of sums; ``look_up`` gives the columns of any trips, seen pairs or not."""

    CELL = {
        "pair_minutes": "pair",
        "pair_trips": "pair",
        "pair_band_minutes": "pair_band",
        "pickup_hour_minutes": "pickup_hour",
        "dropoff_hour_minutes": "dropoff_hour",
        "pickup_hour_pace": "pickup_hour",
        "dropoff_hour_pace": "dropoff_hour",
    }
    COLUMNS = tuple(CELL)
    PACE_CELL = {f"{cell}_pace_of_way": cell for cell in WAYS}

    def __init__(self, sums: Sums, pair_miles: np.ndarray, strength: float) -> None:
        """Average ``sums``; ``pair_miles`` is the distance bin of every zone pair, shape (266 * 266,)."""
        mean = float(smooth(sums["all"], 12.0, 1.0)[0])
        miles = smooth(sums["miles"], mean, strength)
        hour, pair = smooth(sums["hour"], mean, strength), smooth(sums["pair"], miles[pair_miles], strength)
        self.tables = {
            "pair_minutes": pair,
            "pair_trips": _log_count(sums["pair"]),
            "pair_band_minutes": smooth(sums["pair_band"], np.repeat(pair, BANDS), strength),
        }
        for end in ("pickup_hour", "dropoff_hour"):
            of_zone = smooth(tuple(part.reshape(ZONES, HOURS).sum(axis=1) for part in sums[end]), mean, strength)  # type: ignore[arg-type]
            minutes = smooth(sums[end], np.tile(hour, ZONES), strength)
            self.tables |= {f"{end}_minutes": minutes, f"{end}_pace": minutes / np.repeat(of_zone, HOURS)}
        if "way_hour" in sums:
            self.tables |= self._paces(sums, MILES_A_TRIP * strength)

    def _paces(self, sums: Sums, strength: float) -> dict[str, np.ndarray]:
        mean = float(smooth(tuple(part.sum(keepdims=True) for part in sums["way_hour"]), 5.0, 1.0)[0])  # type: ignore[arg-type]
        hour, pair = (smooth(sums[f"way_{cell}"], mean, strength) for cell in ("hour", "pair"))
        prior = {"pair_band": np.repeat(pair, BANDS)} | dict.fromkeys(
            ("pickup_hour", "dropoff_hour"), np.tile(hour, ZONES)
        )
        finer = {cell: smooth(sums[f"way_{cell}"], one, strength) for cell, one in prior.items()}
        return {f"{cell}_pace_of_way": table for cell, table in ({"pair": pair} | finer).items()}

    def look_up_one(self, pickup: int, dropoff: int, hour: int, planned: bool = False) -> tuple[float, ...]:
        """Return ``COLUMNS`` of one trip, or its paces (``PACE_CELL``, minutes a mile); ``hour`` is that of the week."""
        pair = pickup * ZONES + dropoff
        cells = {
            "pair": pair,
            "pair_band": pair * BANDS + BAND_OF_HOUR[hour],
            "pickup_hour": pickup * HOURS + hour,
            "dropoff_hour": dropoff * HOURS + hour,
        }
        wanted = self.PACE_CELL if planned else self.CELL
        return tuple(self.tables[name][cells[cell]] for name, cell in wanted.items())


def stack(histories: Sequence[History]) -> dict[str, np.ndarray]:
    """Return the tables of several histories, one behind the other, for ``look_up``."""
    names = histories[0].tables
    return {name: np.concatenate([one.tables[name] for one in histories], dtype=np.float32) for name in names}


def look_up(
    tables: dict[str, np.ndarray], keys: HistoryKeys, which: np.ndarray | int = 0, planned: bool = False
) -> Iterator[Found]:
    """Yield one of ``History.COLUMNS`` (or ``PACE_CELL``) after the other, as a table and the cell of every trip in it.

    Trip i looks into the stack's table ``which[i]``.
    """
    columns = History.PACE_CELL if planned else History.CELL
    places = {cell: which * SIZES[cell] + keys.cells[cell] for cell in WAYS}
    yield from ((tables[name], places[cell]) for name, cell in columns.items())
