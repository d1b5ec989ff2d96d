"""Row rules: which published rows are trips to learn from; each refused row gets the first rule that refuses it."""

from collections.abc import Callable

import numpy as np
import pandas as pd

from taxi.data.clock import collapsed_clock, elapsed_minutes
from taxi.months import month_bounds
from taxi.params import CleanParams

LAST_ZONE = 265
ABSURD_MILES = 100.0
_ODD = np.int64(0x9E3779B97F4A7C15 - (1 << 64))  # spreads times over all numbers: 2**64 over the golden ratio
_KEY = ["VendorID", "pickup", "dropoff", "PULocationID", "DOLocationID"]


def _out_of_month(rows: pd.DataFrame, month: str) -> pd.Series:
    first, after = month_bounds(month)
    pickup = rows["pickup"].to_numpy()
    return pd.Series((pickup < np.datetime64(first)) | (pickup >= np.datetime64(after)), index=rows.index)


def _impossible_zone(rows: pd.DataFrame, month: str) -> pd.Series:
    zones = (rows[name].to_numpy() for name in ("PULocationID", "DOLocationID"))
    first, second = ((zone >= 1) & (zone <= LAST_ZONE) & (zone == np.floor(zone)) for zone in zones)
    return pd.Series(~(first & second), index=rows.index)


AT_PICKUP_RULES: dict[str, Callable[[pd.DataFrame, str], pd.Series]] = {
    "missing-time": lambda rows, month: rows["pickup"].isna(),
    "out-of-month": _out_of_month,
    "unknown-zone": _impossible_zone,
}


def _repeats(rows: pd.DataFrame) -> pd.Series:
    """Mark all but the first row of one vendor, both times and both zones; a void never hides its original."""
    place = np.flatnonzero(~(rows["total_amount"] < 0).to_numpy())
    start, end = (rows[time].to_numpy().astype(np.int64)[place] for time in ("pickup", "dropoff"))
    both = start * _ODD + end  # wraps around; two trips of other times that meet here are told apart below
    ordered = np.sort(both)
    shared = ordered[1:][ordered[1:] == ordered[:-1]]  # most rows share their times with none
    place = place[pd.Series(both).isin(shared).to_numpy()]
    repeated = np.zeros(len(rows), dtype=bool)
    repeated[place] = rows.iloc[place].duplicated(_KEY)
    return pd.Series(repeated, index=rows.index)


def _first_rule(rules: dict[str, pd.Series], rows: int) -> np.ndarray:
    """Return the number of the first rule that refuses each row, from 1; 0 where none does."""
    codes = np.zeros(rows, dtype=np.int8)
    for code, refused in enumerate(rules.values(), 1):
        codes[(codes == 0) & refused.to_numpy(dtype=bool)] = code
    return codes


def _rules(rows: pd.DataFrame, month: str, clean: CleanParams, minutes: pd.Series) -> dict[str, pd.Series]:
    return {
        "missing-time": rows["pickup"].isna() | rows["dropoff"].isna(),
        "collapsed-clock": collapsed_clock(rows, month),
        "out-of-month": _out_of_month(rows, month),
        "unknown-zone": _impossible_zone(rows, month),
        "void": rows["total_amount"] < 0,
        "duplicate": _repeats(rows),
        "not-positive": minutes <= 0,
        "too-short": minutes < clean.min_minutes,
        "too-long": minutes > clean.max_minutes,
    }


def refuse_at_pickup(rows: pd.DataFrame, month: str) -> pd.Series:
    """Return for each row the first rule on what is known at pickup that refuses it, or "" where it can be predicted."""
    code = _first_rule({name: rule(rows, month) for name, rule in AT_PICKUP_RULES.items()}, len(rows))
    return pd.Series(np.array(["", *AT_PICKUP_RULES], dtype=object)[code], index=rows.index, dtype="str")


def describe_trips(rows: pd.DataFrame, minutes: np.ndarray) -> pd.DataFrame:
    """Return the rows with ``null_block``, ``distance_suspect`` (0 or over 100 miles) and ``duration`` (``minutes``)."""
    miles, passengers, rate = (rows[name].to_numpy() for name in ("trip_distance", "passenger_count", "RatecodeID"))
    return rows.assign(
        null_block=np.isnan(passengers) & np.isnan(rate),
        distance_suspect=~((miles > 0) & (miles <= ABSURD_MILES)),
        duration=minutes,
    )


def split_trips(rows: pd.DataFrame, month: str, clean: CleanParams) -> tuple[pd.DataFrame, pd.Series]:
    """Split rows into kept trips and the reasons (indexed by ``row``) of the refused; together they are all rows."""
    minutes = elapsed_minutes(rows["pickup"], rows["dropoff"], month)
    rules = _rules(rows, month, clean, minutes)
    code = _first_rule(rules, len(rows))
    kept, refused = code == 0, code > 0
    reason = np.array([*rules], dtype=object)[code[refused] - 1]
    trips = describe_trips(rows[kept].reset_index(drop=True), minutes.to_numpy()[kept])
    return trips, pd.Series(reason, index=rows.loc[refused, "row"], name="reason", dtype="str")
