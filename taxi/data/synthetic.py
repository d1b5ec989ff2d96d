"""A synthetic source in the publisher's layout: trips of a made-up city, faults included, the same bytes for the same seed.

Nothing of the real records is here but the figures of ``taxi.profiles``.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as arrow
import pyarrow.parquet as parquet
from scipy.stats import norm

from taxi.data.schema import PREFIX, SYNTHETIC_KEY
from taxi.data.synthetic_city import build_city, write_lookup, write_shapes
from taxi.files import staged
from taxi.months import days_in_month, month_bounds

# --- The publisher's layout of a month, by its edition.

_MONEY = ("fare_amount", "extra", "mta_tax", "tip_amount", "tolls_amount")
_LAYOUT = {
    "green": ("VendorID", "lpep_pickup_datetime", "lpep_dropoff_datetime", "store_and_fwd_flag", "RatecodeID", "PULocationID",
              "DOLocationID", "passenger_count", "trip_distance", *_MONEY, "ehail_fee", "improvement_surcharge",
              "total_amount", "payment_type", "trip_type", "congestion_surcharge"),
    "yellow": ("VendorID", "tpep_pickup_datetime", "tpep_dropoff_datetime", "passenger_count", "trip_distance", "RatecodeID",
               "store_and_fwd_flag", "PULocationID", "DOLocationID", "payment_type", *_MONEY, "improvement_surcharge",
               "total_amount", "congestion_surcharge", "airport_fee"),
}  # fmt: skip


def published_schema(service: str, month: str) -> arrow.Schema:
    """Return the columns and types of the edition of that month: to 2023-01, from 2023-02, from 2025-01."""
    new = month >= "2023-02"
    identity, counted = (arrow.int32(), arrow.int64()) if new else (arrow.int64(), arrow.float64())
    kinds = dict.fromkeys(("VendorID", "PULocationID", "DOLocationID"), identity)
    kinds |= dict.fromkeys(("RatecodeID", "passenger_count", "payment_type", "trip_type"), counted)
    kinds["store_and_fwd_flag"] = arrow.large_string() if new else arrow.string()
    kinds["ehail_fee"] = arrow.float64() if new else arrow.null()
    names = [("Airport_fee" if new and name == "airport_fee" else name) for name in _LAYOUT[service]]
    names += ["cbd_congestion_fee"] if month >= "2025-01" else []
    clock = arrow.timestamp("us")
    return arrow.schema(
        [(name, clock if name.endswith("datetime") else kinds.get(name, arrow.float64())) for name in names]
    )


# --- What a service's trips are like: figures of real green months of 2023 and yellow months of 2019, for the synthetic source.


@dataclass(frozen=True)
class Profile:
    """What a service's trips are like. Speeds in miles per hour, distances in miles, shares of 1."""

    overhead: float  # minutes of a trip that do not depend on its length
    speed: tuple[float, ...]
    by_hour: tuple[float, ...]
    by_weekday: tuple[float, ...]
    miles: tuple[float, float]
    null_miles: tuple[float, float]
    null_share: float
    too_long: float
    not_positive: float
    too_short: float
    zero_distance: float
    void: float
    outside: float


PROFILES = {
    "green": Profile(
        3.2,
        (15.3, 15.4, 15.7, 16.5, 18.5, 20.5, 17.1, 13.3, 12.2, 12.5, 12.6, 12.3,
         12.2, 12.0, 11.1, 10.5, 10.4, 10.7, 11.4, 12.5, 13.3, 14.4, 14.7, 15.0),
        (1.8, 1.2, 0.9, 0.7, 0.6, 0.6, 1.6, 3.8, 4.8, 5.3, 5.2, 5.5, 5.6, 5.5, 6.3, 7.0, 7.5, 7.7, 7.8, 6.1, 4.7, 4.0, 3.2, 2.5),
        (13.9, 14.7, 15.5, 16.0, 15.8, 12.7, 11.4),
        (1.95, 0.78), (3.8, 0.78), 0.075, 0.0045, 0.0013, 0.022, 0.031, 0.0026, 0.0046,
    ),
    "yellow": Profile(
        2.2,
        (16.2, 17.0, 17.2, 18.6, 20.5, 23.6, 18.6, 13.7, 11.3, 10.9, 11.2, 10.7,
         10.8, 11.1, 10.9, 10.3, 10.3, 10.3, 10.8, 11.9, 13.6, 14.0, 14.4, 15.4),
        (3.0, 2.0, 1.4, 0.9, 0.8, 0.9, 2.1, 3.7, 4.5, 4.7, 4.8, 4.9, 5.3, 5.2, 5.6, 5.5, 5.1, 5.9, 6.6, 6.3, 5.8, 5.6, 5.2, 4.1),
        (13.1, 14.8, 14.9, 15.3, 15.3, 14.4, 12.3),
        (1.98, 0.80), (8.8, 0.55), 0.004, 0.003, 0.0009, 0.009, 0.0024, 0.0015, 0.0084,
    ),
}  # fmt: skip
SHIFT = {"pace": 1.18, "rows": 0.65, "null_share": 0.15}


NOISE = 0.29  # sigma of the logarithm of each duration: what nobody can know at pickup


def _rake(miles: tuple[float, float]) -> np.ndarray:
    """Return the cumulative share of every zone pair, such that road miles follow a log-normal of ``miles`` (median, sigma)."""
    city = build_city()
    route = city.route_miles.ravel()
    weight = np.outer(city.demand, city.demand).ravel()
    edges = np.quantile(route, np.linspace(0, 1, 61))
    edges[0], edges[-1] = 0, np.inf
    place = np.clip(np.searchsorted(edges, route, side="right") - 1, 0, 59)
    with np.errstate(divide="ignore"):
        wanted = np.diff(norm.cdf((np.log(edges) - np.log(miles[0])) / miles[1]))
    weight *= (wanted / np.bincount(place, weight, 60))[place]
    total = np.cumsum(weight)
    return total / total[-1]


@lru_cache(maxsize=4)
def _pairs(service: str, null: bool) -> np.ndarray:
    profile = PROFILES[service]
    return _rake(profile.null_miles if null else profile.miles)


def minutes_per_mile(service: str) -> np.ndarray:
    """Return the pace by hour of the day, shape (24,), that gives the profile's speeds at its mean distance."""
    profile = PROFILES[service]
    mean = profile.miles[0] * np.exp(profile.miles[1] ** 2 / 2)
    return 57 / np.array(profile.speed) - profile.overhead / mean


def expected_minutes(service: str, pickup: pd.Series, zones: pd.DataFrame, shifted: bool = False) -> np.ndarray:
    """Return what a trip takes on average, in minutes, shape (n,): the best that any model can predict.

    ``zones`` has the columns PULocationID and DOLocationID, both 1..263.
    """
    city = build_city()
    start, end = zones["PULocationID"].to_numpy(np.int64) - 1, zones["DOLocationID"].to_numpy(np.int64) - 1
    weekend = np.where(pickup.dt.dayofweek >= 5, 0.92, 1.03)
    pace = minutes_per_mile(service)[pickup.dt.hour] * weekend * np.sqrt(city.pace[start] * city.pace[end])
    slow = SHIFT["pace"] if shifted else 1.0
    return (PROFILES[service].overhead + city.route_miles[start, end] * pace) * slow


def _times(draw: np.random.Generator, profile: Profile, month: str, rows: int) -> pd.Series:
    days = pd.date_range(month_bounds(month)[0], periods=days_in_month(month))
    daily = np.array(profile.by_weekday)[days.dayofweek] * draw.lognormal(0, 0.05, len(days))
    share = np.outer(daily, profile.by_hour).ravel()
    cell = draw.choice(share.size, rows, p=share / share.sum())
    seconds = np.sort(cell * 3600 + draw.integers(0, 3600, rows))
    return pd.Series(days[0] + pd.to_timedelta(seconds, unit="s")).astype("datetime64[us]")


def _trips(draw: np.random.Generator, service: str, month: str, rows: int, shifted: bool) -> pd.DataFrame:
    profile = PROFILES[service]
    null_rows = int(rows * (profile.null_share + (SHIFT["null_share"] if shifted else 0)))
    null = np.arange(rows) >= rows - null_rows
    pair = np.where(
        null,
        np.searchsorted(_pairs(service, True), draw.random(rows)),
        np.searchsorted(_pairs(service, False), draw.random(rows)),
    )
    trips = pd.DataFrame(
        {
            "pickup": pd.concat(
                [_times(draw, profile, month, n) for n in (rows - null_rows, null_rows)], ignore_index=True
            )
        }
    )
    trips["PULocationID"], trips["DOLocationID"] = pair // 263 + 1, pair % 263 + 1
    expected = expected_minutes(service, trips["pickup"], trips, shifted)
    minutes = expected * np.exp(draw.normal(0, NOISE, rows) - NOISE**2 / 2)
    trips["minutes"] = minutes
    trips["miles"] = np.round(build_city().route_miles.ravel()[pair] * draw.lognormal(0, 0.1, rows), 2)
    trips["null"] = null
    return trips


def _plant_faults(draw: np.random.Generator, trips: pd.DataFrame, profile: Profile) -> pd.DataFrame:
    luck = draw.random((6, len(trips)), dtype=np.float32)
    faulty = trips.copy()
    faulty.loc[luck[0] < profile.too_long, "minutes"] = 60 * draw.uniform(23, 24)
    faulty.loc[luck[1] < profile.not_positive, "minutes"] = 0.0
    quick = luck[2] < profile.too_short
    faulty.loc[quick, "minutes"] = luck[3][quick]
    faulty.loc[luck[3] < profile.zero_distance, "miles"] = 0.0
    absurd = faulty["null"] & (luck[4] < 0.004)
    faulty.loc[absurd, "miles"] = np.round(draw.uniform(1_000, 300_000, int(absurd.sum())), 2)
    for end in ("PULocationID", "DOLocationID"):
        unknown = draw.random(len(trips)) < profile.outside
        faulty.loc[unknown, end] = draw.choice([264, 265], int(unknown.sum()))
    stray = luck[5] < 0.0002
    years = pd.to_timedelta(draw.choice([-365, -31, 31, 5_478], int(stray.sum())), unit="D")
    faulty.loc[stray, "pickup"] = faulty.loc[stray, "pickup"] + years
    return faulty


def _published(draw: np.random.Generator, service: str, trips: pd.DataFrame) -> pd.DataFrame:
    rows, prefix = len(trips), PREFIX[service]
    filled = ~trips["null"].to_numpy()
    fare = np.round(3 + 2.5 * np.clip(trips["miles"], 0, 60) + 0.5 * np.clip(trips["minutes"], 0, 120), 2)

    def pick(values: Sequence[float], shares: Sequence[float]) -> np.ndarray:
        chosen = draw.choice(values, rows, p=np.array(shares) / sum(shares)).astype(float)
        return np.where(filled, chosen, np.nan)

    tip = np.round(np.where(draw.random(rows) < 0.6, fare * 0.2, 0), 2)
    columns: dict[str, Any] = {
        "VendorID": np.where(draw.random(rows) < (0.132 if service == "green" else 0.36), 1, 2),
        f"{prefix}_pickup_datetime": trips["pickup"],
        f"{prefix}_dropoff_datetime": trips["pickup"] + pd.to_timedelta(np.round(trips["minutes"] * 60), unit="s"),
        "store_and_fwd_flag": pd.Series("N", index=trips.index).where(filled),
        "RatecodeID": pick([1, 2, 3, 4, 5, 99], [97.7, 0.2, 0.04, 0.09, 1.95, 0.01]),
        "PULocationID": trips["PULocationID"],
        "DOLocationID": trips["DOLocationID"],
        "passenger_count": pick([1, 2, 3, 4, 5, 6, 0], [85.2, 8.3, 1.4, 0.5, 2.5, 1.4, 0.7]),
        "trip_distance": trips["miles"],
        "fare_amount": fare,
        "extra": 0.5,
        "mta_tax": 0.5,
        "tip_amount": tip,
        "tolls_amount": 0.0,
        "ehail_fee": np.nan,
        "improvement_surcharge": 0.3,
        "total_amount": np.round(fare + tip + 1.3, 2),
        "payment_type": pick([1, 2, 3, 4], [65.4, 34.2, 0.3, 0.1]),
        "trip_type": pick([1, 2], [98.3, 1.7]),
        "congestion_surcharge": np.where(filled, 0.0, np.nan),
        "airport_fee": np.where(filled, 0.0, np.nan),
        "cbd_congestion_fee": 0.75,
    }
    columns["VendorID"] = np.where(draw.random(rows) < 0.0003, draw.choice([5, 6], rows), columns["VendorID"])
    table = pd.DataFrame(columns)
    del columns  # as large as the table
    voided = table[(draw.random(rows) < PROFILES[service].void) & filled]
    money = ["fare_amount", "extra", "mta_tax", "improvement_surcharge", "total_amount"]
    voids = voided.assign(**{name: -voided[name].abs() for name in money}, tip_amount=0.0)
    merged = pd.concat([table[filled], voids]).sort_values(f"{prefix}_pickup_datetime", kind="stable")
    return pd.concat([merged, table[~filled]], ignore_index=True)


def make_month(
    service: str, month: str, rows: int, seed: int = 7, shifted: bool = False, collapsed_vendor: bool = False
) -> arrow.Table:
    """Return one published month of about ``rows`` trips; ``collapsed_vendor`` gives vendor 6 the collapsed clock of 2020."""
    parts = [seed, sorted(PROFILES).index(service), int(month[:4]), int(month[5:])]
    draw = np.random.default_rng(np.random.SeedSequence(parts))
    wanted = max(1, round(rows * (SHIFT["rows"] if shifted else 1.0)))
    trips = _plant_faults(draw, _trips(draw, service, month, wanted, shifted), PROFILES[service])
    frame = _published(draw, service, trips).rename(
        columns={"airport_fee": "Airport_fee"} if month >= "2023-02" else {}
    )
    if collapsed_vendor:
        broken = draw.random(len(frame)) < 0.005
        frame.loc[broken, "VendorID"] = 6
        for end in ("pickup", "dropoff"):
            name = f"{PREFIX[service]}_{end}_datetime"
            frame.loc[broken, name] = frame.loc[broken, name].dt.floor("h") + pd.Timedelta(minutes=int(month[5:]))
    schema = published_schema(service, month)
    mark = {"seed": seed, "service": service, "month": month, "shifted": shifted, "noise_sigma": NOISE}
    columns = [
        arrow.nulls(len(frame))
        if field.type == arrow.null()
        else arrow.Array.from_pandas(frame[field.name], type=field.type)
        for field in schema
    ]
    return arrow.Table.from_arrays(columns, schema=schema).replace_schema_metadata({SYNTHETIC_KEY: json.dumps(mark)})


def write_sample(
    out: Path, service: str, months: Sequence[str], rows: int = 20_000, seed: int = 7, shift_month: str | None = None
) -> list[Path]:
    """Write months and zone files in the publisher's layout under ``out``; returns the months' paths.

    From ``shift_month`` on roads are slower (18 %), demand is lower (35 %) and the null block larger (by 15 % of the trips).
    """
    city = build_city()
    write_lookup(city, out / "misc" / "taxi_zone_lookup.csv")
    write_shapes(city, out / "misc" / "taxi_zones.zip")
    paths = []
    for month in months:
        path = out / "trip-data" / f"{service}_tripdata_{month}.parquet"
        shifted = shift_month is not None and month >= shift_month
        with staged(path) as part:
            parquet.write_table(make_month(service, month, rows, seed, shifted), part)
        paths.append(path)
    return paths
