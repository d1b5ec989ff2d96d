"""Which published rows are trips to learn from: each refused row gets the first rule that refuses it."""

from collections.abc import Callable

import numpy as np
import pandas as pd

from taxi.config import CleanParams
from taxi.months import month_bounds

REASONS = (
    "missing-time",
    "out-of-month",
    "unknown-zone",
    "collapsed-clock",
    "void",
    "duplicate",
    "not-positive",
    "too-short",
    "too-long",
)
LAST_ZONE = 265
ABSURD_MILES = 100.0
CHANCE_LIMIT = 1e-4
_KEY = ["VendorID", "pickup", "dropoff", "PULocationID", "DOLocationID"]
_HOUR = pd.Timedelta(hours=1)


def clock_changes(year: int) -> tuple[pd.Timestamp, pd.Timestamp]:
    """Return when New York's clocks go forward and back: 02:00 on the second Sunday of March, the first of November.

    Source: Energy Policy Act of 2005, section 110 (15 U.S.C. 260a), in force since 2007.
    """
    march, november = pd.Timestamp(year, 3, 8), pd.Timestamp(year, 11, 1)
    first = [day + pd.Timedelta(days=(6 - day.dayofweek) % 7, hours=2) for day in (march, november)]
    return first[0], first[1]


def elapsed_minutes(pickup: pd.Series, dropoff: pd.Series, month: str) -> pd.Series:
    """Return minutes from pickup to drop-off, corrected where the clocks changed in between.

    The records are wall-clock. A trip across the spring change shows an hour too much. One that ends, on the wall, up to an
    hour before it began inside the autumn hour that happens twice shows an hour too little. What stays ambiguous is left as recorded.
    """
    minutes = (dropoff - pickup) / pd.Timedelta(minutes=1)
    forward, back = clock_changes(int(month[:4]))
    spring = (pickup < forward) & (pickup > forward - 3 * _HOUR) & (dropoff >= forward) & (minutes < 240)
    autumn = pickup.between(back - _HOUR, back) & (dropoff < pickup) & (dropoff >= back - _HOUR)
    return minutes - 60.0 * spring + 60.0 * autumn


def _impossible_zone(rows: pd.DataFrame) -> pd.Series:
    zones = rows[["PULocationID", "DOLocationID"]]
    return ~(zones.ge(1) & zones.le(LAST_ZONE) & (zones == zones.round())).all(axis=1)


def _chance_of_sameness(minute: pd.Series) -> float:
    counts = np.bincount(minute, minlength=60)
    effective = minute.size**2 / float((counts.astype(float) ** 2).sum())
    if minute.size >= 20:
        return 0.0 if effective <= 6 else 1.0
    return 60.0 ** (1 - minute.size) if effective == 1 else 1.0


def collapsed_clock(rows: pd.DataFrame, month: str) -> pd.Series:
    """Mark every row of a vendor whose minute of the hour has collapsed onto few values, at pickup or at drop-off.

    From 20 rows on, a clock has collapsed if its effective number of minutes (inverse Simpson index, of 60) is 6 or less. Fewer rows
    must all show one minute, at odds below 1 in 10,000 for a healthy clock; that the two clocks agree, and on the number of the
    month (the known cause of this fault), counts as further evidence.
    """
    collapsed = pd.Series(False, index=rows.index)
    pickup, dropoff = rows["pickup"].dt.minute, rows["dropoff"].dt.minute
    for index in rows.groupby("VendorID", dropna=False).groups.values():
        known = rows.loc[index, ["pickup", "dropoff"]].notna().all(axis=1)
        index = index[known.to_numpy()]
        if not len(index):
            continue
        start, end = pickup[index].astype(int), dropoff[index].astype(int)
        chances = [_chance_of_sameness(clock) for clock in (start, end)]
        if len(index) < 20 and (start == end).all() and start.nunique() == 1:
            named = start.iloc[0] == int(month[5:])
            chances.append(60.0 ** (1 - 2 * len(index) - named))
        limit = 1e-3 if len(index) == 1 else CHANCE_LIMIT
        collapsed[index] = min(chances) < limit
    return collapsed


def _not_first_of_key(rows: pd.DataFrame) -> pd.Series:
    kept = rows[rows["total_amount"].fillna(0) >= 0]
    return kept.duplicated(_KEY).reindex(rows.index, fill_value=False)


AT_PICKUP_RULES: dict[str, Callable[[pd.DataFrame, str], pd.Series]] = {
    "missing-time": lambda rows, month: rows["pickup"].isna(),
    "out-of-month": lambda rows, month: (rows["pickup"] < month_bounds(month)[0]) | (rows["pickup"] >= month_bounds(month)[1]),
    "unknown-zone": lambda rows, month: _impossible_zone(rows),
}


def _first_reason(rules: dict[str, pd.Series], index: pd.Index) -> pd.Series:
    reason = np.full(len(index), "", dtype=object)
    for name, refused in rules.items():
        reason[refused.to_numpy(dtype=bool) & (reason == "")] = name
    return pd.Series(reason, index=index, dtype="str")


def refuse_trips(rows: pd.DataFrame, month: str, clean: CleanParams) -> pd.Series:
    """Return for each row (``schema.canonical_columns``) the first rule that refuses it, or an empty string if it is kept."""
    minutes = elapsed_minutes(rows["pickup"], rows["dropoff"], month)
    rules = {name: rule(rows, month) for name, rule in AT_PICKUP_RULES.items()} | {
        "collapsed-clock": collapsed_clock(rows, month),
        "void": rows["total_amount"] < 0,
        "duplicate": _not_first_of_key(rows),
        "not-positive": minutes <= 0,
        "too-short": minutes < clean.min_minutes,
        "too-long": minutes > clean.max_minutes,
    }
    rules["missing-time"] |= rows["dropoff"].isna()
    return _first_reason(rules, rows.index)


def predictable_trips(rows: pd.DataFrame, month: str) -> pd.DataFrame:
    """Return the rows that can be predicted: judged by what is known at pickup only, never by drop-off or duration."""
    refused = _first_reason({name: rule(rows, month) for name, rule in AT_PICKUP_RULES.items()}, rows.index)
    return rows[refused == ""]


def describe_trips(rows: pd.DataFrame, month: str) -> pd.DataFrame:
    """Return the rows with ``null_block``, ``distance_suspect`` (0 or over 100 miles) and ``duration`` (minutes) added."""
    miles = rows["trip_distance"]
    return rows.assign(
        null_block=rows[["passenger_count", "RatecodeID", "payment_type"]].isna().any(axis=1) & rows["passenger_count"].isna(),
        distance_suspect=miles.isna() | (miles <= 0) | (miles > ABSURD_MILES),
        duration=elapsed_minutes(rows["pickup"], rows["dropoff"], month),
    )


def split_trips(rows: pd.DataFrame, month: str, clean: CleanParams) -> tuple[pd.DataFrame, pd.Series]:
    """Split canonical rows into kept trips and the reasons (by ``row``) of the refused; together they are all rows."""
    reason = refuse_trips(rows, month, clean)
    refused = reason != ""
    kept = describe_trips(rows[~refused], month).reset_index(drop=True)
    return kept, pd.Series(reason[refused].to_numpy(), index=rows.loc[refused, "row"], name="reason")
