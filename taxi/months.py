"""Month arithmetic on the publisher's names: ``"2023-03"``, the month of pickup."""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from taxi.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd

_MONTH = re.compile(r"(19|20|21)\d\d-(0[1-9]|1[0-2])")


def parse_month(text: str) -> str:
    """Return ``text`` if it names a month as YYYY-MM; raise UsageError otherwise."""
    if not isinstance(text, str) or not _MONTH.fullmatch(text):
        raise UsageError(f"expected a month as YYYY-MM, for example 2023-03; got {text!r}")
    return text


def shift_month(month: str, by: int) -> str:
    """Return the month ``by`` months after ``month`` (before it where negative)."""
    year, number = map(int, parse_month(month).split("-"))
    index = year * 12 + number - 1 + by
    return f"{index // 12:04d}-{index % 12 + 1:02d}"


def months_apart(first: str, last: str) -> int:
    """Return how many months after ``first`` the month ``last`` is; negative if it lies before."""
    return (int(last[:4]) - int(first[:4])) * 12 + int(last[5:]) - int(first[5:])


def iterate_months(first: str, last: str) -> Iterator[str]:
    """Yield the months from ``first`` to ``last``, both included; raise UsageError if they are swapped."""
    if parse_month(first) > parse_month(last):
        raise UsageError(f"expected the first month to be no later than the last; got {first} .. {last}")
    while first <= last:
        yield first
        first = shift_month(first, 1)


def month_bounds(month: str) -> "tuple[pd.Timestamp, pd.Timestamp]":
    """Return the month's first moment and the next month's first moment, as New York wall-clock times."""
    import pandas as pd  # the command line checks months without it

    return pd.Timestamp(f"{parse_month(month)}-01"), pd.Timestamp(f"{shift_month(month, 1)}-01")


def days_in_month(month: str) -> int:
    """Return the number of days in ``month``."""
    start, end = month_bounds(month)
    return (end - start).days


def window_before(month: str, available: list[str], length: int) -> list[str]:
    """Return those of ``available`` that lie in the ``length`` calendar months before ``month``, oldest first."""
    oldest = shift_month(month, -length)
    return sorted(m for m in set(available) if oldest <= m < month)
