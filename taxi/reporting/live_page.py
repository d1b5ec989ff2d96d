"""``reports/live.html``: the metrics store as one page that needs no Grafana and no network."""

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from taxi.config import SERVICES, Settings
from taxi.database import StoreDown
from taxi.files import locked
from taxi.monitoring.collect import collect_month
from taxi.monitoring.metric_store import MetricStore, open_metrics
from taxi.months import iterate_months
from taxi.reporting.pages import write_page
from taxi.runs.month_result import read_result, result_file

_LOG = logging.getLogger(__name__)

# --- Line charts as geometry: where points, ticks and words stand, for a template to draw as SVG without any library.

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


HOURS = 168  # of live traffic on the page: a week
ROWS = 24  # months in the table
ARMS = {"champion": "champion", "challenger": "challenger", "shadow": "challenger, in the shadow"}


@dataclass(frozen=True)
class View:
    """What the page shows of one service."""

    service: str
    newest: list[tuple[str, str]]
    monthly: list[Chart]
    live: list[Chart]
    months: list[dict[str, Any]]


def series_of(
    rows: pd.DataFrame, name: str, times: list[str], parts: dict[str, str], factor: float = 1.0
) -> dict[str, Values]:
    """Return, by the words for each part that has a value, the values of a metric at ``times``; None where there is none."""
    found: dict[str, Values] = {}
    for part, words in parts.items():
        own = rows[(rows["name"] == name) & (rows["part"] == part)].set_index("at")["value"]
        values = [None if pd.isna(own.get(time)) else float(own[time]) * factor for time in times]
        if any(value is not None for value in values):
            found[words] = values
    return found


def _months(rows: pd.DataFrame) -> list[str]:
    """Return all months from the first to the last: a month that is not there is a gap in every line."""
    return list(iterate_months(str(rows["at"].min()), str(rows["at"].max()))) if len(rows) else []


def _hours(rows: pd.DataFrame) -> list[str]:
    if not len(rows):
        return []
    last = pd.Timestamp(str(rows["at"].max()) + ":00")
    first = max(pd.Timestamp(str(rows["at"].min()) + ":00"), last - pd.Timedelta(hours=HOURS - 1))
    return [str(one) for one in pd.date_range(first, last, freq="h").strftime("%Y-%m-%dT%H")]


def monthly_charts(month: pd.DataFrame, cost: pd.DataFrame) -> list[Chart]:
    """Return error, coverage, rows, alarms and seconds by month, as far as there are any."""
    times, models = _months(month), {"champion": "champion", "challenger": "challenger"}
    total = cost[cost["name"] == "seconds"].groupby("at", as_index=False)["value"].sum().assign(name="total", part="")
    counted = {"kept": "kept", "quarantined": "in quarantine"}
    made = [
        line_chart("Mean absolute error (minutes)", times, series_of(month, "mae", times, models)),
        line_chart("RMSE (minutes)", times, series_of(month, "rmse", times, models)),
        line_chart(
            "Inside the 80 % interval (%)", times, series_of(month, "coverage80", times, models, 100), 80, False
        ),
        line_chart("Rows", times, series_of(month, "rows", times, counted)),
        line_chart("Alarms", times, series_of(month, "alarms", times, {"": "alarms"}), least=1),
        line_chart("Seconds of the month's last run", times, series_of(total, "total", times, {"": "all steps"})),
    ]
    return [one for one in made if one]


def live_charts(live: pd.DataFrame) -> list[Chart]:
    """Return volume, error, coverage and latency by hour and arm, as far as there are any."""
    times = _hours(live)
    shown = [time[5:].replace("T", " ") + "h" for time in times]
    made = [
        line_chart("Predictions an hour", shown, series_of(live, "predictions", times, ARMS)),
        line_chart("Mean absolute error (minutes)", shown, series_of(live, "mae", times, ARMS)),
        line_chart("Inside the 80 % interval (%)", shown, series_of(live, "coverage80", times, ARMS, 100), 80, False),
        line_chart("Latency, 99th percentile (ms)", shown, series_of(live, "latency_p99_ms", times, ARMS)),
    ]
    return [one for one in made if one]


def _value(rows: pd.DataFrame, name: str, part: str = "") -> float | None:
    own = rows.loc[(rows["name"] == name) & (rows["part"] == part), "value"].dropna()
    return float(own.iloc[-1]) if len(own) else None


def _text(rows: pd.DataFrame, name: str) -> str:
    own = rows.loc[rows["name"] == name, "text"].dropna()
    return str(own.iloc[-1]) if len(own) else ""


def newest_figures(month: pd.DataFrame) -> list[tuple[str, str]]:
    """Return words and figures of the newest month, for the page's top."""
    if not len(month):
        return []
    last = month[month["at"] == month["at"].max()]
    figures = {
        "champion's MAE": (_value(last, "mae", "champion"), "{:.2f} min"),
        "in the 80 % interval": (_value(last, "coverage80", "champion"), "{:.1%}"),
        "rows kept": (_value(last, "rows", "kept"), "{:,.0f}"),
        "alarms": (_value(last, "alarms"), "{:.0f}"),
        "promoted": (_value(last, "promoted"), "{}"),
    }
    words = [
        (name, how.format(("no", "yes")[int(value)] if name == "promoted" else value))
        for name, (value, how) in figures.items()
        if value is not None
    ]
    return [("newest month", str(last["at"].iloc[0])), ("status", _text(last, "status")), *words]


def _decided(month: pd.DataFrame) -> str:
    """Return why the month was learnt from or not, as its decision says; without one, what came of it."""
    decision = _text(month, "decision")
    reason = json.loads(decision).get("reason") if decision else None
    return str(reason or _text(month, "reason"))


def month_rows(month: pd.DataFrame, cost: pd.DataFrame) -> list[dict[str, Any]]:
    """Return one row a month, newest first: status, alarms, decision, promotion, seconds, slowest step, megabytes."""
    rows = []
    for at in sorted(month["at"].unique())[-ROWS:][::-1]:
        own, spent = month[month["at"] == at], cost[cost["at"] == at]
        seconds = spent[spent["name"] == "seconds"].set_index("part")["value"]
        rows.append(
            {
                "month": at,
                "status": _text(own, "status"),
                "alarms": ", ".join(own.loc[own["name"] == "alarm", "part"]),
                "decision": _decided(own),
                "promoted": ("no", "yes")[int(_value(own, "promoted") or 0)],
                "seconds": float(seconds.sum()),
                "slowest": f"{seconds.idxmax()} ({seconds.max():.1f} s)" if len(seconds) else "",
                "megabytes": float(spent.loc[spent["name"] == "bytes", "value"].sum()) / 1e6,
            }
        )
    return rows


def view_service(store: MetricStore, service: str) -> View:
    """Return what the page shows of a service."""
    month, cost, live = store.read("month", service), store.read("cost", service), store.read("live", service)
    charts_of_months, rows = monthly_charts(month, cost), month_rows(month, cost)
    return View(service, newest_figures(month), charts_of_months, live_charts(live), rows)


def write_live_page(store: MetricStore, settings: Settings) -> Path:
    """Write ``live.html`` into the reports from the store's numbers; return its path."""
    views = [view_service(store, service) for service in SERVICES]
    rows = store.read("month")
    synthetic = bool(((rows["name"] == "synthetic") & (rows["value"] == 1)).any())
    with locked(settings.reports / ".live.lock"):
        return write_page(
            "live.html.j2",
            settings.reports / "live.html",
            views=[view for view in views if view.newest or view.live],
            synthetic=synthetic,
            written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            size={"WIDTH": WIDTH, "HEIGHT": HEIGHT, "LEFT": LEFT, "RIGHT": RIGHT},
        )


def keep_month(settings: Settings, service: str, month: str) -> str | None:
    """Write a month's metrics, and the page anew, at its end; a store that is down fails no month, it is said, and `taxi metrics collect` catches up.

    Returns why it was not written, or None.
    """
    result, store = read_result(result_file(settings.month(service, month))), open_metrics(settings.metrics)
    try:
        collect_month(store, settings, result)
        write_live_page(store, settings)
    except StoreDown as error:
        _LOG.warning("%s %s: its metrics wait for `taxi metrics collect`: %s", service, month, error)
        return str(error)
    finally:
        store.close()
    return None
