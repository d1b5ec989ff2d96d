"""Months, as the publisher names them."""

import pandas as pd
import pytest

from taxi.errors import UsageError
from taxi.months import days_in_month, iterate_months, month_bounds, parse_month, shift_month, window_before


@pytest.mark.parametrize("text", ["2023-13", "2023-3", "23-03", "2023/03", "", "2023-03-01", None, 202303])
def test_anything_but_a_month_is_refused_with_an_example(text):
    with pytest.raises(UsageError, match="for example 2023-03"):
        parse_month(text)


@pytest.mark.parametrize(
    ("month", "by", "expected"),
    [("2023-03", 0, "2023-03"), ("2023-12", 1, "2024-01"), ("2023-01", -1, "2022-12"), ("2023-03", -15, "2021-12")],
)
def test_shifting_crosses_years(month, by, expected):
    assert shift_month(month, by) == expected


def test_iterating_includes_both_ends():
    assert list(iterate_months("2022-11", "2023-02")) == ["2022-11", "2022-12", "2023-01", "2023-02"]


def test_swapped_ends_are_refused():
    with pytest.raises(UsageError, match="no later"):
        list(iterate_months("2023-02", "2023-01"))


def test_bounds_are_the_first_moments():
    assert month_bounds("2024-02") == (pd.Timestamp("2024-02-01"), pd.Timestamp("2024-03-01"))
    assert days_in_month("2024-02") == 29


def test_the_window_counts_calendar_months_not_files():
    assert window_before("2023-03", ["2021-01", "2022-03", "2023-02", "2023-03", "2023-04"], 12) == [
        "2022-03",
        "2023-02",
    ]
