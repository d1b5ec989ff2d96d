"""What the month rules look at: a month's figures, and those of the accepted months before it."""

from typing import Any

import pandas as pd

from taxi.config import MonthPaths
from taxi.files import read_json
from taxi.months import days_in_month, shift_month

Figures = dict[str, Any]
FORMAT = 2
WATCHED = ("VendorID", "trip_distance", "total_amount", "fare_amount", "passenger_count", "trip_type")


def _or_none(value: float) -> float | None:
    return None if pd.isna(value) else float(value)


def _spread(values: pd.Series) -> dict[str, float]:
    shares = values.dropna().astype("int64").value_counts(normalize=True).sort_index()
    return {str(value): round(float(share), 6) for value, share in shares.items()}


def _counts(values: pd.Series, of: range) -> list[int]:
    counts = values.value_counts()
    return [int(counts.get(value, 0)) for value in of]


def _medians(kept: pd.DataFrame) -> Figures:
    trusted = kept[~kept["distance_suspect"]]
    speed = trusted["trip_distance"] / trusted["duration"] * 60
    return {
        "median_minutes": _or_none(kept["duration"].median()),
        "median_miles": _or_none(kept["trip_distance"].median()),
        "median_mph": _or_none(speed.median()),
        "median_dollars": _or_none(kept["total_amount"].median()),
    }


def month_figures(rows: pd.DataFrame, kept: pd.DataFrame, reasons: pd.Series, month: str) -> Figures:
    """Return shares of 1, medians (minutes, miles, miles per hour, dollars), trips by day, and spreads over values."""
    raw, counts = len(rows), reasons.value_counts().sort_index()
    by_hour = _counts(kept["pickup"].dt.hour, range(24))
    return _medians(kept) | {
        "raw": raw,
        "kept": len(kept),
        "kept_share": len(kept) / raw if raw else 0.0,
        "reason_shares": {str(name): int(count) / raw for name, count in counts.items()},
        "null_share": _or_none(kept["null_block"].mean()),
        "missing_shares": {name: float(kept[name].isna().mean()) for name in WATCHED} if len(kept) else {},
        "by_day": _counts(kept["pickup"].dt.day, range(1, days_in_month(month) + 1)),
        "by_hour": [round(count / max(len(kept), 1), 6) for count in by_hour],
        "pickup_zones": _spread(kept["PULocationID"]),
        "dropoff_zones": _spread(kept["DOLocationID"]),
        "vendors": _spread(kept["VendorID"]),
    }


def read_history(paths: MonthPaths, months: int, synthetic: bool) -> list[Figures]:
    """Return the figures of accepted months among the ``months`` calendar months before this one, oldest first.

    Synthetic months are compared with synthetic ones only. ``adjoins`` says that a month is the one just before.
    """
    earlier = [shift_month(paths.month, -back) for back in range(months, 0, -1)]
    files = [paths.acceptance.with_name(f"{month}.json") for month in earlier]
    judged = [read_json(path) for path in files if path.is_file()]
    return [
        one["figures"] | {"columns": one["columns"], "adjoins": one["month"] == earlier[-1]}
        for one in judged
        if one["status"] != "refused" and one.get("format") == FORMAT and (one["synthetic"] is not None) == synthetic
    ]
