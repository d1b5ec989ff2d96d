"""``reports/live.html``: the metrics store as one page that needs no Grafana and no network."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from taxi import charts
from taxi.charts import Chart, Values, line_chart
from taxi.config import SERVICES, Settings
from taxi.files import locked
from taxi.metric_store import MetricStore
from taxi.months import iterate_months
from taxi.reports import write_page

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
            size=charts,
        )
