"""Line charts as geometry: where points, ticks and words stand, for a template to draw as SVG without any library."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 560, 220, 58, 30, 14, 30
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#8a949e")
MOST_LABELS = 8
Values = Sequence[float | None]


@dataclass(frozen=True)
class Dot:
    """One value: where it stands, and what to say of it."""

    x: float
    y: float
    says: str


@dataclass(frozen=True)
class Line:
    """One series: its colour, the runs of points that no gap interrupts, as ``x,y x,y``, and its dots."""

    name: str
    colour: str
    runs: list[str]
    dots: list[Dot]


@dataclass(frozen=True)
class Chart:
    """A chart: its title with unit, lines, ticks (y and words), labels (x and words), and a line to hold them against."""

    title: str
    lines: list[Line]
    ticks: list[tuple[float, str]]
    labels: list[tuple[float, str]]
    target: float | None
    radius: float


def nice_ticks(low: float, high: float, about: int = 4, least: float = 0.0) -> list[float]:
    """Return round numbers that span ``low`` to ``high``: steps of 1, 2 or 5 times a power of ten, none below ``least``."""
    span = (high - low) or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(span / about))
    step = max(least, next(factor * power for factor in (1, 2, 5, 10) if span / (factor * power) <= about))
    first, last = math.floor(low / step), math.ceil(high / step)
    return [round(number * step, 10) for number in range(first, max(last, first + 1) + 1)]


def _words(value: float) -> str:
    if value and abs(value) >= 1e6:
        return f"{value / 1e6:.3g} M"
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.4g}"


def _runs(points: Sequence[tuple[float, float] | None]) -> list[str]:
    """Return the points as polylines, broken where a value is missing."""
    runs: list[list[str]] = [[]]
    for point in points:
        if point is None:
            runs.append([])
        else:
            runs[-1].append(f"{point[0]:.1f},{point[1]:.1f}")
    return [" ".join(run) for run in runs if run]


def line_chart(
    title: str,
    labels: Sequence[str],
    series: Mapping[str, Values],
    target: float | None = None,
    zero: bool = True,
    least: float = 0.0,
) -> Chart | None:
    """Return a chart of ``series`` over ``labels``; None where no series has a value.

    ``zero``: the axis begins at 0; ``least``: the smallest step of its ticks, 1 for what is counted.
    """
    known = [value for values in series.values() for value in values if value is not None and math.isfinite(value)]
    if not known:
        return None
    spanned = [*known, *([target] if target is not None else []), *([0.0] if zero else [])]
    ticks = nice_ticks(min(spanned), max(spanned), least=least)
    step = (WIDTH - LEFT - RIGHT) / max(len(labels) - 1, 1)

    def at(place: int) -> float:
        return LEFT + (place * step if len(labels) > 1 else (WIDTH - LEFT - RIGHT) / 2)

    def up(value: float) -> float:
        return HEIGHT - BOTTOM - (value - ticks[0]) / (ticks[-1] - ticks[0]) * (HEIGHT - TOP - BOTTOM)

    lines = []
    for colour, (name, values) in zip(COLOURS * len(series), series.items(), strict=False):
        points = [None if value is None else (at(place), up(value)) for place, value in enumerate(values)]
        dots = [
            Dot(point[0], point[1], f"{label}, {name}: {_words(value)}")
            for label, point, value in zip(labels, points, values, strict=True)
            if point is not None and value is not None
        ]
        lines.append(Line(name, colour, _runs(points), dots))
    every = math.ceil(len(labels) / MOST_LABELS)
    shown = [(at(place), label) for place, label in enumerate(labels) if place % every == 0]
    return Chart(
        title,
        lines,
        [(up(one), _words(one)) for one in ticks],
        shown,
        None if target is None else up(target),
        3.0 if len(labels) < 60 else 1.5,
    )
