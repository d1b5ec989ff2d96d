import re
from datetime import datetime

import numpy as np
import pandas as pd
import pytest

from taxi.data.clock import clock_changes, collapsed_clock, elapsed_minutes
from taxi.data.schema import read_published
from tests.support.builders import build_rows

MONTH = "2023-03"
FAULTY = {"2020-03": 129, "2020-04": 32, "2020-05": 1, "2020-06": 1, "2020-07": 3, "2020-08": 5}


def minutes(pickup: str, dropoff: str) -> float:
    return elapsed_minutes(pd.Series([pd.Timestamp(pickup)]), pd.Series([pd.Timestamp(dropoff)]), pickup[:7]).iloc[0]


@pytest.mark.parametrize(
    ("year", "forward", "back"),
    [(2020, (3, 8), (11, 1)), (2022, (3, 13), (11, 6)), (2023, (3, 12), (11, 5)), (2026, (3, 8), (11, 1))],
)
def test_clocks_change_at_two_on_the_days_of_the_law(year, forward, back):
    assert clock_changes(year) == (datetime(year, *forward, 2), datetime(year, *back, 2))


@pytest.mark.parametrize(
    ("pickup", "dropoff", "expected"),
    [
        ("2022-03-13 01:54:20", "2022-03-13 03:02:10", 7 + 50 / 60),
        ("2020-03-08 01:49:00", "2020-03-08 02:10:00", 21),
        ("2020-03-08 02:42:28", "2020-03-08 03:04:28", 22),
        ("2022-03-13 03:10:00", "2022-03-13 03:40:00", 30),
        ("2022-03-12 01:50:00", "2022-03-12 03:10:00", 80),
    ],
    ids=["across", "clock not put forward", "picked up in an hour that never was", "after", "another night"],
)
def test_the_spring_hour_that_never_was_is_not_counted(pickup, dropoff, expected):
    assert minutes(pickup, dropoff) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("pickup", "dropoff", "expected"),
    [
        ("2022-11-06 01:58:21", "2022-11-06 01:04:20", 5 + 59 / 60),
        ("2020-11-01 01:57:31", "2020-11-02 01:04:42", 7 + 11 / 60),
        ("2020-11-01 01:12:00", "2020-11-01 01:29:00", 17),
        ("2020-11-01 01:50:13", "2020-11-01 02:47:40", 57.45),
        ("2020-11-02 01:57:31", "2020-11-03 01:04:42", 1387 + 11 / 60),
    ],
    ids=["first to second pass", "with the next day's date", "within a pass", "out of the hour", "another night"],
)
def test_the_autumn_hour_that_happens_twice_is_counted_where_the_records_show_it(pickup, dropoff, expected):
    assert minutes(pickup, dropoff) == pytest.approx(expected)


def stopped(rows: pd.DataFrame, ends: list[str], shown: list[int], chosen: np.ndarray) -> pd.DataFrame:
    at = pd.to_timedelta(np.resize(shown, len(rows)), unit="min").to_numpy()
    return rows.assign(**{end: rows[end].where(~chosen, rows[end].dt.floor("h") + at) for end in ends})


def test_a_healthy_clock_is_left_alone_however_few_rows_it_has():
    for n in (1, 2, 3, 5, 10, 30, 100, 1000, 20_000):
        assert not collapsed_clock(build_rows(n), MONTH).any()


@pytest.mark.parametrize("end", ["pickup", "dropoff"])
@pytest.mark.parametrize("shown", [[0], [17], [0, 30], [0, 15, 30, 45], list(range(0, 60, 5))])
def test_a_clock_that_shows_a_few_minutes_only_has_collapsed(end, shown):
    rows = build_rows(4000)
    chosen = (rows["VendorID"] == 1).to_numpy()

    marked = collapsed_clock(stopped(rows, [end], shown, chosen), MONTH)

    assert (marked == chosen).all()


@pytest.mark.parametrize("n", [1, 2, 3, 5, 32, 129])
def test_the_month_in_place_of_the_minute_is_found_in_one_row_and_in_many(n):
    rows = build_rows(n)

    assert collapsed_clock(stopped(rows, ["pickup", "dropoff"], [3], np.full(n, True)), MONTH).all()


def test_of_a_clock_that_fails_for_some_rows_only_those_rows_are_refused():
    rows = build_rows(8000, VendorID=2.0)
    chosen = np.arange(8000) % 10 == 0

    marked = collapsed_clock(stopped(rows, ["pickup", "dropoff"], [41], chosen), MONTH)

    assert marked[chosen].all()
    assert marked[~chosen].mean() < 0.04


def test_a_clock_that_is_wrong_in_most_rows_is_not_believed_in_the_others():
    rows = build_rows(8000, VendorID=2.0)

    assert collapsed_clock(stopped(rows, ["dropoff"], [41], np.arange(8000) % 10 < 7), MONTH).all()


def test_rows_without_a_time_neither_break_the_rule_nor_are_marked():
    rows = build_rows(50, dropoff=pd.NaT)

    assert not collapsed_clock(rows.astype({"dropoff": "datetime64[us]"}), MONTH).any()


@pytest.mark.real
def test_all_of_the_real_faulty_rows_are_found_and_no_other(real_source):
    for path in sorted((real_source / "trip-data").glob("*.parquet")):
        service, month = re.match(r"(\w+)_tripdata_(.*)", path.stem).groups()
        rows = read_published(path, service)

        marked = collapsed_clock(rows, month)

        assert marked.equals((rows["VendorID"] == 6) & (month in FAULTY and service == "green")), path.name
        assert marked.sum() == FAULTY.get(month, 0)
