"""Trips and published months made for tests: deterministic, plausible enough to pass every rule."""

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from taxi.data.clock import elapsed_minutes
from taxi.data.schema import PREFIX, canonical_columns, check_trips
from taxi.data.synthetic import make_month
from taxi.data.trips import split_trips
from taxi.months import days_in_month
from taxi.params import load_params

BY_HOUR = np.array([3, 2, 1.2, 1, 0.8, 1, 2, 4, 5, 5, 5, 5.2, 5.4, 5.6, 6, 6.4, 6.8, 7.4, 7.6, 6.6, 5.4, 4.6, 4.4, 3.8])
PICKUP_ZONES = {74: 20, 75: 18, 41: 10, 42: 8, 95: 8, 97: 6, 82: 6, 166: 6, 43: 4, 244: 4, 116: 3, 65: 3, 7: 2, 264: 1}
DROPOFF_ZONES = {236: 12, 238: 12, 141: 8, 74: 6, 75: 6, 42: 6, 138: 5, 132: 4, 161: 4, 162: 4, 7: 4, 25: 3, 265: 1}


def _drawn(rng: np.random.Generator, weights: dict[int, float], n: int) -> np.ndarray:
    shares = np.array(list(weights.values()), dtype=float)
    return rng.choice(list(weights), n, p=shares / shares.sum())


def build_published(service: str = "green", month: str = "2023-03", n: int = 6000, **columns: Any) -> pd.DataFrame:
    """Return ``n`` rows of a month as the publisher lays them out; ``columns`` replace or add published columns."""
    rng = np.random.default_rng([int(month.replace("-", "")), len(service)])
    hours = rng.choice(24, n, p=BY_HOUR / BY_HOUR.sum())
    seconds = rng.integers(0, 3600, n) + hours * 3600 + rng.integers(0, days_in_month(month), n) * 86400
    pickup = pd.Series(pd.Timestamp(f"{month}-01") + pd.to_timedelta(np.sort(seconds), unit="s")).astype(
        "datetime64[us]"
    )
    minutes = np.clip(rng.lognormal(np.log(12), 0.55, n), 2, 55)
    miles = np.round(minutes / 60 * rng.uniform(8, 14, n), 2)
    block = np.arange(n) >= n * 0.93
    frame = pd.DataFrame(
        {
            "VendorID": rng.choice([1, 2], n, p=[0.15, 0.85]),
            f"{PREFIX[service]}_pickup_datetime": pickup,
            f"{PREFIX[service]}_dropoff_datetime": pickup + pd.to_timedelta(np.round(minutes * 60), unit="s"),
            "store_and_fwd_flag": np.where(block, None, "N"),
            "RatecodeID": np.where(block, np.nan, 1.0),
            "PULocationID": _drawn(rng, PICKUP_ZONES, n),
            "DOLocationID": _drawn(rng, DROPOFF_ZONES, n),
            "passenger_count": np.where(block, np.nan, rng.integers(1, 5, n)),
            "trip_distance": miles,
            "fare_amount": np.round(3 + 2.5 * miles + 0.3 * minutes, 2),
            "tip_amount": 0.0,
            "ehail_fee": None,
            "total_amount": np.round(4 + 2.5 * miles + 0.3 * minutes, 2),
            "payment_type": np.where(block, np.nan, 1.0),
        }
    )
    if service == "green":
        frame["trip_type"] = np.where(block, np.nan, 1.0)
    return frame.assign(**columns)


def build_rows(n: int = 400, month: str = "2023-03", **columns: Any) -> pd.DataFrame:
    """Return ``n`` published green rows under their canonical names, before any rule; ``columns`` replace some."""
    table = pa.Table.from_pandas(build_published("green", month, n), preserve_index=False)
    return canonical_columns(table, "green").assign(**columns)


def build_trips(n: int = 200, month: str = "2023-03", **columns: Any) -> pd.DataFrame:
    """Return ``n`` kept trips in the canonical schema; ``columns`` replace columns, duration follows the times."""
    rows = build_rows(n, month).astype({"PULocationID": "int32", "DOLocationID": "int32"})
    trips = rows.assign(null_block=rows["RatecodeID"].isna(), distance_suspect=False).assign(**columns)
    duration = columns.get("duration", elapsed_minutes(trips["pickup"], trips["dropoff"], month))
    return trips.assign(duration=duration)


def build_sample_trips(month: str = "2024-01", rows: int = 4000, **options: Any) -> pd.DataFrame:
    """Return the kept green trips of a month of the sample city."""
    rows_read = canonical_columns(make_month("green", month, rows, **options), "green")
    return check_trips(split_trips(rows_read, month, load_params().clean)[0])
