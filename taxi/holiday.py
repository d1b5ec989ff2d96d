"""Public holidays in New York, and the days next to them, on which the roads are others."""

from datetime import date
from functools import lru_cache

import holidays
import numpy as np
import pandas as pd

EPOCH = date(1970, 1, 1).toordinal()


@lru_cache(maxsize=64)
def _holidays_of(year: int) -> frozenset[date]:
    return frozenset(holidays.country_holidays("US", subdiv="NY", years=year))


def _is_holiday(day: date) -> bool:
    return day in _holidays_of(day.year)


def holiday_flags(dates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return for each date (days since 1970) whether it is a public holiday in New York, and whether it is next to one."""
    codes, unique = pd.factorize(dates)
    free = [[_is_holiday(date.fromordinal(EPOCH + int(day) + by)) for by in (0, -1, 1)] for day in unique]
    flags = np.array(free, dtype=float).reshape(-1, 3)
    return flags[:, 0][codes], flags[:, 1:].max(axis=1)[codes]


@lru_cache(maxsize=4096)
def holiday_flag(day: date) -> tuple[float, float]:
    """Return the same of one day."""
    free, near = holiday_flags(np.array([day.toordinal() - EPOCH]))
    return float(free[0]), float(near[0])
