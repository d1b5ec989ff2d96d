"""Clock rules: daylight-saving hours that are added and taken, and recorders' clocks that have collapsed onto few values."""

from datetime import datetime, timedelta

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import bdtrc

CHANCE_LIMIT = 1e-4
NAMED_MONTH_LIMIT = 1e-3
MOST_VENDORS = 20
_MINUTE = np.timedelta64(1, "m")
_HOUR = np.timedelta64(1, "h")
_DAY = np.timedelta64(1, "D")


def clock_changes(year: int) -> tuple[datetime, datetime]:
    """Return when New York's clocks go forward and back: 02:00 on the second Sunday of March, the first of November.

    Source: Energy Policy Act of 2005, section 110 (15 U.S.C. 260a), in force since 2007.
    """
    first, second = (
        day + timedelta(days=(6 - day.weekday()) % 7, hours=2) for day in (datetime(year, 3, 8), datetime(year, 11, 1))
    )
    return first, second


def elapsed_minutes(pickup: pd.Series, dropoff: pd.Series, month: str) -> pd.Series:
    """Return minutes from pickup to drop-off (New York wall-clock), corrected where the clocks changed in between.

    Spring: a trip from before 02:00 to 03:00 or later shows an hour too much. Times between 02:00 and 03:00 come from
    clocks that were not put forward, and are left as they are. Autumn: a trip from the first 01:xx to the second shows
    an hour too little where the drop-off seems to be before the pickup; many recorders then write the next day's date,
    which shows 23 hours too much (2020-11-01: 9 of the 49 green trips of that hour). What else is ambiguous stays.
    """
    start, end = pickup.to_numpy(), dropoff.to_numpy()
    minutes = (end - start) / _MINUTE
    forward, back = (np.datetime64(change) for change in clock_changes(int(month[:4])))
    spring = (start < forward) & (end >= forward + _HOUR)
    twice = (start >= back - _HOUR) & (start < back)
    turned = twice & (end < start) & (end >= back - _HOUR)
    rolled = twice & (end >= back - _HOUR + _DAY) & (end < back + _DAY) & (minutes < 24 * 60)
    return pd.Series(minutes - 60.0 * spring + 60.0 * turned - 23 * 60.0 * rolled, index=pickup.index)


def _minute(when: np.ndarray) -> NDArray[np.int64]:
    return when.astype("datetime64[m]").astype(np.int64) % 60


def _piled(values: NDArray[np.int64], cells: int, chance: float, least_share: float) -> NDArray[np.bool_]:
    """Mark the values that a healthy clock, which shows each with at most ``chance``, would not repeat so often."""
    counts = np.bincount(values, minlength=cells)
    often = np.flatnonzero((counts > 0) & (counts >= least_share * values.size))
    piled = np.zeros(cells, dtype=bool)
    piled[often] = bdtrc(counts[often] - 1.0, values.size, chance) * cells < CHANCE_LIMIT
    return piled[values] if piled.any() else np.zeros(values.size, dtype=bool)


def _names_month(start: NDArray[np.int64], end: NDArray[np.int64], number: int) -> NDArray[np.bool_]:
    both = (start == number) & (end == number)
    odds = bdtrc(both.sum() - 1.0, both.size, 1 / 3600) if both.any() else 1.0
    return both if odds < NAMED_MONTH_LIMIT and both.mean() >= 20 / 3600 else np.zeros_like(both)


def _collapsed(start: NDArray[np.int64], end: NDArray[np.int64], number: int) -> NDArray[np.bool_]:
    piled = (
        _piled(start, 60, 1 / 60, 3 / 60)
        | _piled(end, 60, 1 / 60, 3 / 60)
        | _piled(60 * start + end, 3600, 1 / 1000, 20 / 1000)
        | _names_month(start, end, number)
    )
    return np.full_like(piled, True) if piled.mean() > 0.5 else piled


def collapsed_clock(rows: pd.DataFrame, month: str) -> pd.Series:
    """Mark the rows of each vendor whose minute of the hour has piled up on few values, at pickup, drop-off or both.

    A minute has piled up if it is three times as frequent as it should be and a healthy clock would do so at odds below
    1 in 10,000; a pair of minutes (pickup, drop-off) likewise at 2 % of the rows. Where both minutes are the number of
    the month, the known cause of this fault, one row is evidence enough. A clock that is wrong in more than half of a
    vendor's rows is not believed in the others. Rows without both times are never marked.
    """
    known = (rows["pickup"].notna() & rows["dropoff"].notna()).to_numpy()
    start, end = (_minute(rows[name].to_numpy()[known]) for name in ("pickup", "dropoff"))
    vendors, names = pd.factorize(rows["VendorID"].to_numpy()[known], use_na_sentinel=False)
    biggest = np.argsort(-np.bincount(vendors, minlength=len(names)), kind="stable")
    rank = np.empty(len(names), dtype=np.int64)
    rank[biggest] = np.minimum(np.arange(len(names)), MOST_VENDORS)
    marked, group = np.zeros(vendors.size, dtype=bool), rank[vendors]
    for one in range(min(len(names), MOST_VENDORS + 1)):
        mine = np.flatnonzero(group == one)  # places are followed faster than marks: vendors come in no order
        marked[mine] = _collapsed(start[mine], end[mine], int(month[5:]))
    collapsed = np.zeros(len(rows), dtype=bool)
    collapsed[known] = marked
    return pd.Series(collapsed, index=rows.index)
