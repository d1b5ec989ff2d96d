"""Live dashboard, ``reports/live.html``: the metric store as one page that needs no Grafana and no network."""

import json
import logging
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
from taxi.reporting.pages import write_page
from taxi.runs.month_result import read_result, result_file

_LOG = logging.getLogger(__name__)

HOURS = 168  # of live traffic on the page: a week
ROWS = 24  # months in the table
ARMS = {"champion": "champion", "challenger": "challenger", "shadow": "challenger, in the shadow"}


@dataclass(frozen=True)
class View:
    """What the page shows of one service."""

    service: str
    newest: list[tuple[str, str]]
    monthly: list[str]
    live: list[str]
    months: list[dict[str, Any]]


def _over(rows: pd.DataFrame, frequency: str) -> pd.PeriodIndex:
    """Return all times from the first to the last: one that is not there is a gap in every line."""
    times = pd.PeriodIndex(rows["at"].unique(), freq=frequency)
    return pd.period_range(times.min(), times.max(), freq=frequency) if len(times) else times


def series_of(
    rows: pd.DataFrame, name: str, times: pd.PeriodIndex, parts: dict[str, str], factor: float = 1.0
) -> pd.DataFrame:
    """Return a metric at ``times``, a column by the words for each part; NaN where there is no value."""
    table = rows[rows["name"] == name].pivot(index="at", columns="part", values="value")
    table.index = pd.PeriodIndex(table.index, freq=times.freq)
    return table.reindex(index=times, columns=list(parts)).rename(columns=parts) * factor


def monthly_charts(month: pd.DataFrame, cost: pd.DataFrame) -> list[str]:
    """Return error, coverage, rows, alarms and seconds by month as SVG, as far as there are any."""
    from taxi.reporting.plots import line_chart_svg

    times, models = _over(month, "M"), {"champion": "champion", "challenger": "challenger"}
    total = cost[cost["name"] == "seconds"].groupby("at", as_index=False)["value"].sum().assign(name="total", part="")
    counted = {"kept": "kept", "quarantined": "in quarantine"}
    charts = [
        line_chart_svg(series_of(month, "mae", times, models), "Mean absolute error", "minutes"),
        line_chart_svg(series_of(month, "rmse", times, models), "RMSE", "minutes"),
        line_chart_svg(series_of(month, "coverage80", times, models, 100), "Inside the 80 % interval", "percent", 80),
        line_chart_svg(series_of(month, "rows", times, counted), "Rows", "rows"),
        line_chart_svg(series_of(month, "alarms", times, {"": "alarms"}), "Alarms", "alarms"),
        line_chart_svg(series_of(total, "total", times, {"": "all steps"}), "The month's last run", "seconds"),
    ]
    return [chart for chart in charts if chart]


def live_charts(live: pd.DataFrame) -> list[str]:
    """Return volume, error, coverage and latency by hour and arm as SVG, as far as there are any."""
    from taxi.reporting.plots import line_chart_svg

    times = _over(live, "h")[-HOURS:]
    charts = [
        line_chart_svg(series_of(live, "predictions", times, ARMS), "Predictions an hour", "predictions"),
        line_chart_svg(series_of(live, "mae", times, ARMS), "Mean absolute error", "minutes"),
        line_chart_svg(series_of(live, "coverage80", times, ARMS, 100), "Inside the 80 % interval", "percent", 80),
        line_chart_svg(series_of(live, "latency_p99_ms", times, ARMS), "Latency, 99th percentile", "milliseconds"),
    ]
    return [chart for chart in charts if chart]


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
