"""Lookup tables of features: where zones lie, how their pairs lie to each other, and public holidays."""

from datetime import date
from functools import lru_cache

import holidays
import numpy as np
import pandas as pd

from taxi.features.history import ZONES

GRID_ANGLE = np.deg2rad(29.0)  # Manhattan's avenues run 29 degrees east of north
TURNS = (30, 60, 120, 150)  # degrees from east towards north
ZONE = ("x", "y", "area", "airport", "borough", *(f"along_{turn}" for turn in TURNS))
PAIR = (
    *("dx", "dy", "miles", "grid_miles", "bearing"),
    *(f"{what}_along_{turn}" for what in ("way", "middle") for turn in TURNS),
)


def turned(x: np.ndarray, y: np.ndarray) -> list[np.ndarray]:
    """Return how far along each axis of ``TURNS`` points lie, same shapes: a tree cuts across an axis, so more of them cut finer."""
    return [x * np.cos(angle) + y * np.sin(angle) for angle in np.deg2rad(TURNS)]


def zone_arrays(zones: pd.DataFrame) -> np.ndarray:
    """Return ``ZONE`` (miles, square miles, flag, number) of zones 0..265, shape (266, 9); NaN where there is no shape."""
    table = zones.reindex(range(ZONES))
    borough = pd.Categorical(table["borough"], categories=sorted(zones["borough"].dropna().unique())).codes
    x, y = (table[name].to_numpy(dtype=np.float64) for name in ("x", "y"))
    columns = [x, y, table["area"], table["airport"].astype(float), borough, *turned(x, y)]
    return np.column_stack([np.asarray(column, dtype=np.float64) for column in columns])


def pair_arrays(places: np.ndarray) -> np.ndarray:
    """Return ``PAIR`` (miles; bearing in radians) of every pair of zones, shape (266 * 266, 13)."""
    x, y = places[:, 0], places[:, 1]
    dx, dy = x[None, :] - x[:, None], y[None, :] - y[:, None]
    along = dx * np.sin(GRID_ANGLE) + dy * np.cos(GRID_ANGLE)
    across = dx * np.cos(GRID_ANGLE) - dy * np.sin(GRID_ANGLE)
    middle = turned((x[None, :] + x[:, None]) / 2, (y[None, :] + y[:, None]) / 2)
    parts = [dx, dy, np.hypot(dx, dy), np.abs(along) + np.abs(across), np.arctan2(dy, dx), *turned(dx, dy), *middle]
    return np.stack(parts, axis=-1).reshape(-1, len(parts))


# --- Public holidays in New York, and the days next to them, on which the roads are others.

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
