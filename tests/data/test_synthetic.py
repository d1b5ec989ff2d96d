"""The made-up city is made the same way every time, and resembles the real one where it matters."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as parquet
import pytest

from taxi.data.schema import canonical_columns, read_published
from taxi.data.synthetic import SHIFT, make_month, published_schema, write_sample
from taxi.data.trips import split_trips
from taxi.files import sha256_file
from taxi.params import load_params
from tests.support.builders import build_sample_trips

QUANTILES = [0.1, 0.25, 0.5, 0.75, 0.9]


def hour_speed(trips: pd.DataFrame) -> pd.Series:
    """Return speed by hour of pickup (miles per hour): all miles over all minutes."""
    by_hour = trips[trips["trip_distance"].between(0.1, 60)].groupby(trips["pickup"].dt.hour)
    return by_hour["trip_distance"].sum() / by_hour["duration"].sum() * 60


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    one, two, other = (
        write_sample(tmp_path / name, "green", ["2024-01"], rows=500, seed=seed)[0]
        for name, seed in (("one", 7), ("two", 7), ("other", 8))
    )

    assert sha256_file(one) == sha256_file(two) != sha256_file(other)


def test_a_month_does_not_depend_on_the_months_made_with_it(tmp_path: Path) -> None:
    alone = write_sample(tmp_path / "alone", "green", ["2024-02"], rows=500)[0]
    among = write_sample(tmp_path / "among", "green", ["2024-01", "2024-02"], rows=500)[1]

    assert sha256_file(alone) == sha256_file(among)


@pytest.mark.parametrize(
    ("service", "month", "expected"),
    [
        ("green", "2023-01", {"VendorID": "int64", "passenger_count": "double", "ehail_fee": "null"}),
        ("green", "2023-02", {"VendorID": "int32", "passenger_count": "int64", "ehail_fee": "double"}),
        ("green", "2025-01", {"cbd_congestion_fee": "double"}),
        ("yellow", "2023-01", {"tpep_pickup_datetime": "timestamp[us]", "airport_fee": "double"}),
        ("yellow", "2023-02", {"Airport_fee": "double"}),
    ],
)
def test_each_era_has_its_layout(service: str, month: str, expected: dict[str, str]) -> None:
    schema = published_schema(service, month)

    assert {name: str(schema.field(name).type) for name in expected} == expected


def test_every_fault_is_there_and_caught() -> None:
    rows = canonical_columns(make_month("green", "2024-01", 60_000, collapsed_vendor=True), "green")

    reasons = set(split_trips(rows, "2024-01", load_params().clean)[1])

    assert reasons >= {"out-of-month", "not-positive", "too-short", "too-long", "void", "collapsed-clock"}


def test_the_planted_shift_slows_roads_lowers_demand_and_grows_the_null_block() -> None:
    calm, shifted = (build_sample_trips("2024-06", 20_000, shifted=flag) for flag in (False, True))

    assert len(shifted) / len(calm) == pytest.approx(SHIFT["rows"], abs=0.03)
    assert (hour_speed(calm) / hour_speed(shifted)).median() == pytest.approx(SHIFT["pace"], abs=0.08)
    more = shifted["null_block"].mean() - calm["null_block"].mean()
    assert more == pytest.approx(SHIFT["null_share"], abs=0.03)


@pytest.mark.real
@pytest.mark.parametrize(
    ("service", "months"),
    [("green", ["2023-01", "2023-02", "2023-03"]), ("yellow", [f"2019-{number:02d}" for number in range(1, 13)])],
)
def test_speeds_and_durations_are_within_15_percent_of_the_real_city(
    service: str, months: list[str], real_source: Path
) -> None:
    def kept(rows: pd.DataFrame, month: str) -> pd.DataFrame:
        return split_trips(rows, month, load_params().clean)[0]

    files = [real_source / f"trip-data/{service}_tripdata_{month}.parquet" for month in months]
    actual = pd.concat(
        [kept(read_published(path, service), month) for path, month in zip(files, months, strict=True)],
        ignore_index=True,
    )
    ours = kept(canonical_columns(make_month(service, months[-1], 60_000), service), months[-1])

    speed = hour_speed(ours) / hour_speed(actual)
    quantiles = ours["duration"].quantile(QUANTILES) / actual["duration"].quantile(QUANTILES)
    assert np.abs(speed - 1).max() < 0.15, speed.round(2).to_dict()
    assert np.abs(quantiles - 1).max() < 0.15, quantiles.round(2).to_dict()


def test_the_file_says_that_it_is_synthetic(tmp_path: Path) -> None:
    (path,) = write_sample(tmp_path, "green", ["2024-01"], rows=100)

    marks: dict[bytes, Any] = parquet.read_schema(path).metadata

    assert b'"seed": 7' in marks[b"taxi.synthetic"]
