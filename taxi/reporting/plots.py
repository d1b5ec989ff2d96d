"""Plots of the reports: titled with what they show, axes with units, safe for colour-blind eyes."""

import io
import re
from collections.abc import Mapping
from html import escape
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.collections import PolyCollection
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

BLUE, ORANGE, GREEN, GREY = "#0072b2", "#d55e00", "#009e73", "#8a949e"
DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
STYLE: Any = {
    "figure.dpi": 100,
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.grid": True,
    "grid.color": "#e6eaee",
    "axes.axisbelow": True,
}


def _canvas(title: str, x: str, y: str, height: float = 3.4) -> tuple[Figure, plt.Axes]:
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(8.6, height), layout="constrained")
    axes.set(title=title, xlabel=x, ylabel=y)
    return figure, axes


def _done(figure: Figure) -> Figure:
    plt.close(figure)
    return figure


def _bars(values: pd.Series, title: str, x: str, height: float | None = None) -> tuple[Figure, plt.Axes]:
    figure, axes = _canvas(title, x, "", height or 1.2 + 0.3 * len(values))
    axes.barh(values.index.astype(str), values, color=BLUE)
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    return figure, axes


def refused_by_reason(reasons: Mapping[str, int]) -> Figure:
    """Bars: refused rows by the first rule that refused them."""
    values = pd.Series(reasons, dtype=float).sort_values(ascending=False)
    figure, axes = _bars(values, "Rows in quarantine, by reason", "rows")
    for place, count in enumerate(values):
        axes.annotate(f"{count:,.0f}", (count, place), xytext=(4, 0), textcoords="offset points", va="center")
    return _done(figure)


def duration_by_hour_and_weekday(trips: pd.DataFrame) -> Figure:
    """Heat map: median minutes by weekday and hour of pickup."""
    when = trips["pickup"].dt
    table = trips["duration"].groupby([when.dayofweek, when.hour]).median().unstack()
    table = table.reindex(index=range(7), columns=range(24))
    figure, axes = _canvas("Median duration by hour and weekday", "hour of pickup", "", 3.0)
    picture = axes.imshow(table, aspect="auto", cmap="cividis")
    axes.set_yticks(range(7), DAYS)
    axes.set_xticks(range(0, 24, 2))
    axes.grid(visible=False)
    figure.colorbar(picture, label="minutes")
    return _done(figure)


def volume_by_day(trips: pd.DataFrame, month: str) -> Figure:
    """Bars: kept trips by day; weekends in another colour; a missing day is a gap."""
    days = pd.period_range(f"{month}-01", periods=pd.Period(month).days_in_month)
    counts = trips["pickup"].dt.to_period("D").value_counts().reindex(days, fill_value=0)
    figure, axes = _canvas(f"Kept trips by day, {month}", "day of the month", "trips")
    axes.bar(days.day, counts, color=np.where(days.dayofweek >= 5, ORANGE, BLUE))
    axes.annotate(
        "orange: Saturday and Sunday", (1, 1.02), xycoords="axes fraction", ha="right", fontsize=9, color=ORANGE
    )
    return _done(figure)


def zone_map(values: pd.Series, shapes: Mapping[int, list[np.ndarray]], label: str) -> Figure:
    """Map of zones coloured by ``values`` (indexed by LocationID), from the 2nd to the 98th percentile; grey without a value."""
    figure, axes = _canvas(label[:1].upper() + label[1:], "miles east (EPSG:2263)", "miles north", 6.2)
    low, high = values.quantile([0.02, 0.98]) if len(values) else (0, 1)
    rings = [(ring, values.get(zone, np.nan)) for zone, parts in shapes.items() for ring in parts]
    drawn = PolyCollection([ring for ring, _ in rings], edgecolors="white", linewidths=0.3, cmap="cividis")
    drawn.cmap = drawn.cmap.with_extremes(bad="#d9dee3")
    drawn.set_array(np.ma.masked_invalid([value for _, value in rings]))
    drawn.set_clim(low, high)
    axes.add_collection(drawn)
    axes.autoscale()
    axes.set_aspect("equal")
    figure.colorbar(drawn, shrink=0.7, extend="both")
    return _done(figure)


def months_beside(table: pd.DataFrame) -> Figure:
    """Three lines over months: kept trips, median minutes, share of the null block."""
    with plt.rc_context(STYLE):
        figure, panels = plt.subplots(1, 3, figsize=(8.6, 2.8), layout="constrained")
    for axes, column in zip(panels, ("kept", "median minutes", "null block"), strict=True):
        axes.plot(table.index, table[column], marker="o", color=BLUE)
        axes.plot(table.index[-1:], table[column].iloc[-1:], marker="o", color=ORANGE)
        axes.set(title=column, ylim=(0, None))
        axes.set_xticks(table.index[:: max(1, len(table) // 3)])
    return _done(figure)


def feature_relations(features: pd.DataFrame, duration: pd.Series) -> Figure:
    """Panels: median duration, and its middle half, over tenths of each feature."""
    with plt.rc_context(STYLE):
        figure, panels = plt.subplots(1, features.shape[1], figsize=(8.6, 2.9), layout="constrained", sharey=True)
    for axes, name in zip(np.atleast_1d(panels), features.columns, strict=True):
        values = features[name].to_numpy()
        tenths = pd.qcut(values, 10, duplicates="drop", labels=False)
        quartiles = pd.Series(duration.to_numpy()).groupby(tenths).quantile(np.array([0.25, 0.5, 0.75])).unstack()
        middle = pd.Series(values).groupby(tenths).median()
        axes.fill_between(middle, quartiles[0.25], quartiles[0.75], color=BLUE, alpha=0.2)
        axes.plot(middle, quartiles[0.5], color=BLUE, marker="o", markersize=3)
        axes.set(title=name, xlabel="value")
        axes.title.set_fontsize(9)
    np.atleast_1d(panels)[0].set_ylabel("duration (minutes)")
    return _done(figure)


def error_by_day(trips: pd.DataFrame) -> Figure:
    """Line: mean absolute error by day; needs the columns predicted and duration (minutes)."""
    figure, axes = _canvas("The champion's mean absolute error by day", "day of the month", "minutes", 2.8)
    if "predicted" not in trips:
        axes.annotate("no champion yet", (0.5, 0.5), xycoords="axes fraction", ha="center", color=GREY)
        return _done(figure)
    daily = (trips["predicted"] - trips["duration"]).abs().groupby(trips["pickup"].dt.day).mean()
    axes.plot(daily.index, daily, marker="o", color=BLUE)
    axes.set_ylim(0, None)
    return _done(figure)


def residuals_by_slice(table: pd.DataFrame) -> Figure:
    """Bars: RMSE by slice, and the mean error as dots."""
    if table.empty:
        return error_by_day(pd.DataFrame())
    figure, axes = _bars(table["rmse"], "Error by slice", "minutes")
    axes.plot(table["bias"], table.index, "o", color=ORANGE, label="mean error (predicted minus actual)")
    axes.axvline(0, color=GREY, linewidth=1)
    axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.16))
    return _done(figure)


def drift_by_column(table: pd.DataFrame) -> Figure:
    """Bars: effect size by column, against its limit."""
    if table.empty:
        return error_by_day(pd.DataFrame())
    figure, axes = _bars(table["effect"], "Drift by column", "effect size (limit: orange)")
    axes.plot(table["limit"], table.index, "|", color=ORANGE, markersize=14, markeredgewidth=2)
    return _done(figure)


def interval_coverage(table: pd.DataFrame) -> Figure:
    """Bars: share of trips inside the 80 % interval by band of the prediction."""
    figure, axes = _canvas("Trips inside the 80 % interval", "predicted minutes", "share", 2.8)
    axes.bar(table.index.astype(str), table["coverage80"], color=BLUE)
    axes.axhline(0.8, color=ORANGE)
    axes.set_ylim(0, 1)
    return _done(figure)


def predicted_vs_actual(predicted: pd.Series, duration: pd.Series) -> Figure:
    """Hexagons: how many trips by predicted and actual minutes (logarithmic)."""
    figure, axes = _canvas("Predicted against actual", "predicted (minutes)", "actual (minutes)", 4.6)
    drawn = axes.hexbin(predicted, duration, gridsize=45, bins="log", mincnt=1, cmap="cividis", extent=(0, 60, 0, 60))
    axes.plot([0, 60], [0, 60], color=ORANGE)
    axes.set_aspect("equal")
    figure.colorbar(drawn, label="trips", shrink=0.8)
    return _done(figure)


def feature_importance(shares: pd.Series) -> Figure:
    """Bars: each feature's share of what the model gained."""
    return _done(_bars(shares, "What the model looks at", "share of the gain")[0])


def group_changes(change: pd.Series) -> Figure:
    """Bars: by how much the error changes without each group of features; the first row, without any left out, is not drawn."""
    return _done(_bars(100 * change.iloc[1:], "RMSE on a later month, without a group", "change (percent)")[0])


def mean_effects(percent: pd.Series) -> Figure:
    """Bars: by how many percent each feature moves a trip's minutes, on average, either way."""
    return _done(_bars(percent, "How far each feature moves a trip's minutes", "mean effect, up or down (percent)")[0])


def one_trip(steps: pd.DataFrame) -> Figure:
    """Bars from step to step, the first of which is the start: one trip's way to its minutes; orange makes it longer."""
    figure, axes = _canvas("One trip explained", "minutes (orange: longer, blue: shorter)", "", 1.2 + 0.3 * len(steps))
    axes.use_sticky_edges = False
    begin, moved = steps["minutes"].shift().iloc[1:], steps["minutes"].diff().iloc[1:]
    axes.barh(steps.index[1:].astype(str), moved, left=begin, color=np.where(moved > 0, ORANGE, BLUE))
    for start in steps["minutes"].iloc[:1]:
        axes.axvline(start, color=GREY, linewidth=1)
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    return _done(figure)


def gain_interval(draws: np.ndarray, gain: float, interval: tuple[float, float]) -> Figure:
    """Histogram: the gain over many draws of days, with its interval."""
    figure, axes = _canvas("Gain in RMSE over many draws of days", "gain (% of the RMSE before)", "draws", 2.8)
    axes.hist(draws * 100, bins=40, color=BLUE, alpha=0.7)
    axes.axvline(0, color=GREY)
    for value in interval:
        axes.axvline(value * 100, color=ORANGE, linestyle="--")
    axes.axvline(gain * 100, color=ORANGE)
    return _done(figure)


def champion_vs_challenger(table: pd.DataFrame) -> Figure:
    """Dots: RMSE by slice before (grey) and of the challenger (blue)."""
    figure, axes = _canvas("RMSE by slice", "minutes", "", 1.2 + 0.3 * len(table))
    axes.hlines(table.index, table["before"], table["challenger"], color=GREY)
    axes.plot(table["before"], table.index, "o", color=GREY, label="before")
    axes.plot(table["challenger"], table.index, "o", color=BLUE, label="challenger")
    axes.invert_yaxis()
    axes.legend(frameon=False)
    return _done(figure)


def change_over_time(looks: pd.DataFrame, metric: str, effect: float) -> Figure:
    """Line and band: the change of an experiment's error and its sequence over time; grey: changes too small to matter.

    ``looks`` has change, low and high (shares of the champion's error) by time of pickup.
    """
    figure, axes = _canvas(
        f"The challenger's {metric.upper()} against the champion's, look by look", "time of pickup", "change (%)", 3.4
    )
    axes.axhspan(-effect * 100, effect * 100, color=GREY, alpha=0.2, linewidth=0)
    axes.axhline(0, color=GREY)
    axes.fill_between(looks.index, looks["low"] * 100, looks["high"] * 100, color=BLUE, alpha=0.2, linewidth=0)
    axes.plot(looks.index, looks["change"] * 100, color=BLUE)
    widest = looks[["low", "high"]].tail(1).abs().to_numpy()  # the first days' bounds would hide the last ones
    top = 300 * max([effect, *widest[np.isfinite(widest)]])
    axes.set_ylim(-top, top)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(axes.xaxis.get_major_locator()))
    return _done(figure)


# --- The backtest's pictures: policies side by side, month after month; a gap in the months is a gap in the lines.

COLOURS = {"auto": BLUE, "never": ORANGE, "always": GREEN}
MARKS = {"auto": "o", "never": "s", "always": "^"}


def _timeline_canvas(title: str, label: str, height: float) -> tuple[Figure, plt.Axes]:
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(8.6, height), layout="constrained")
    axes.set(title=title, ylabel=label, xlabel="month")
    return figure, axes


def _months(axes: plt.Axes, months: pd.PeriodIndex) -> None:
    every = max(1, len(months) // 10)
    axes.set_xticks([month.ordinal for month in months[::every]], [str(month) for month in months[::every]])
    axes.tick_params(axis="x", labelrotation=30)


def _all_months(table: pd.DataFrame) -> pd.DataFrame:
    months = pd.PeriodIndex(table.index, freq="M")
    return table.set_axis(months).reindex(pd.period_range(months.min(), months.max(), freq="M"))


def lines_by_policy(table: pd.DataFrame, title: str, label: str, limits: tuple[float, ...] = ()) -> Figure:
    """Lines: one a policy (the columns) over months (the index); ``limits`` are drawn as dashed grey lines."""
    figure, axes = _timeline_canvas(title, label, 3.2)
    whole = _all_months(table)
    for under, policy in enumerate(reversed(whole.columns)):  # where lines are one, the lower ones show at the rims
        width = 1.5 + 2 * (len(whole.columns) - 1 - under)
        style: Any = {"color": COLOURS[policy], "marker": MARKS[policy], "markersize": 3 + width, "linewidth": width}
        axes.plot([one.ordinal for one in whole.index], whole[policy].astype(float), label=policy, **style)
    for limit in limits:
        axes.axhline(limit, color=GREY, linestyle="--", linewidth=1)
    _months(axes, pd.PeriodIndex(whole.index))
    axes.legend(frameon=False, ncols=len(whole.columns))
    plt.close(figure)
    return figure


def events_by_policy(table: pd.DataFrame) -> Figure:
    """Marks on the axis of time, a row each policy: alarms (orange, filled where one is an error), retrainings, promotions."""
    policies = list(dict.fromkeys(table["policy"]))
    figure, axes = _timeline_canvas("Alarms, retrainings and promotions", "", 1.4 + 0.55 * len(policies))
    months = pd.PeriodIndex(table["month"], freq="M")
    place = pd.DataFrame(
        {"x": [one.ordinal for one in months], "y": table["policy"].map(policies.index)}, index=table.index
    )
    marks: dict[str, Any] = {
        "warning": (table["warnings"] != "", 0.2, {"marker": "v", "color": ORANGE, "markerfacecolor": "none"}),
        "error": (table["errors"] != "", 0.2, {"marker": "v", "color": ORANGE}),
        "retrained": (table["trained"], -0.05, {"marker": "o", "color": GREY, "markerfacecolor": "none"}),
        "promoted": (table["promoted"], -0.05, {"marker": "o", "color": GREEN}),
    }
    for name, (where, up, style) in marks.items():
        axes.plot(place["x"][where], place["y"][where] + up, linestyle="none", label=name, **style)
    axes.set_yticks(range(len(policies)), policies)
    axes.set_ylim(-0.5, len(policies) - 0.4)
    _months(axes, pd.period_range(months.min(), months.max(), freq="M"))
    axes.legend(frameon=False, ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    axes.set_title("Alarms, retrainings and promotions", pad=24)
    plt.close(figure)
    return figure


def costs_by_policy(summary: pd.DataFrame) -> Figure:
    """Two panels of bars, a bar each policy: mean MAE (minutes), and the millions of trips that its fits went through."""
    with plt.rc_context(STYLE):
        figure, panels = plt.subplots(1, 2, figsize=(8.6, 2.4), layout="constrained")
    colours = [COLOURS[policy] for policy in summary.index]
    told = (("mean MAE", summary["mae"], "minutes"), ("work", summary["fitted_trips"] / 1e6, "million trips fitted"))
    for axes, (title, values, label) in zip(panels, told, strict=True):
        axes.barh(summary.index, values, color=colours)
        axes.set(title=title, xlabel=label)
        axes.grid(axis="y", visible=False)
    panels[0].set_xlim(0.9 * summary["mae"].min(), 1.02 * summary["mae"].max())
    plt.close(figure)
    return figure


# --- Line charts inside web pages: SVG whose text is text, and the same bytes for the same numbers.

SVG: Any = STYLE | {
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titley": 1.04,  # fixed places, as below: to look for free ones takes as long as drawing
    "font.sans-serif": ["DejaVu Sans"],
    "svg.fonttype": "none",
}
LINE_STYLES = ((BLUE, "o"), (ORANGE, "s"), (GREEN, "^"), (GREY, "D"))
MOST_LABELS = 5  # months under a chart
MOST_MARKED = 60  # points of a line: with more, only a point without neighbours is marked


def _number(value: float, place: float = 0) -> str:
    if abs(value) >= 1e6:
        return f"{value / 1e6:.3g} M"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.4g}"


def _alternative_text(table: pd.DataFrame, title: str, unit: str) -> str:
    last = {name: values.dropna().tail(1) for name, values in table.items()}
    newest = [f"{name} {_number(value.iloc[0])} ({value.index[0]})" for name, value in last.items()]
    return f"{title} ({unit}), {table.index[0]} to {table.index[-1]}; newest: {', '.join(newest)}"


def inline_svg(figure: Figure, words: str) -> str:
    """SVG element of a figure, to stand inside a page, as wide as there is room; ``words`` are read aloud in its place."""
    made = io.StringIO()
    with plt.rc_context(SVG | {"svg.hashsalt": words}):
        figure.savefig(
            made, format="svg", transparent=True, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type"))
        )
    head, _, drawing = made.getvalue().partition("<svg")[2].partition(">")
    box = re.search(r'viewBox="[^"]+"', head)
    # what is drawn is numbered anew in each figure, and on a page with two of them an id would stand twice
    inside = re.sub(r' id="[a-z2.]+_\d+"|(?<=\n) +| transform="rotate\(-0 [^"]*"', "", drawing).strip()
    return f'<svg {box[0] if box else ""} width="100%" role="img" aria-label="{escape(words)}">{inside}'


def _time_axis(axes: plt.Axes, index: pd.PeriodIndex) -> None:
    if index.freqstr == "M":
        shown = index[:: -(-len(index) // MOST_LABELS)]
        axes.set_xticks(shown.to_timestamp().to_numpy(), [str(month) for month in shown])
        axes.set_xlabel("month")
        return
    locator = AutoDateLocator(minticks=3, maxticks=7)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    half = pd.Timedelta(minutes=30)
    axes.set_xlim(index[0].start_time - half, index[-1].start_time + half)  # type: ignore[arg-type]
    axes.set_xlabel("hour (UTC)")


def _value_axis(axes: plt.Axes, table: pd.DataFrame, target: float | None) -> None:
    values = table.stack().dropna().to_numpy(dtype=float)
    whole = bool((values % 1 == 0).all())
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10], integer=whole))
    axes.yaxis.set_major_formatter(_number)
    if target is None:
        axes.set_ylim(0, 1.08 * float(values.max()) or 1)
    else:
        axes.axhline(target, color=GREY, linestyle="--", linewidth=1)


def line_chart_svg(table: pd.DataFrame, title: str, unit: str, target: float | None = None) -> str:
    """SVG line chart: a line each column over months or hours (a PeriodIndex), broken where a value or a time is missing.

    The axis begins at 0, or stands around ``target``, a dashed line. Empty where no column has a value.
    """
    table = table.dropna(axis="columns", how="all")
    if table.empty:
        return ""
    index = pd.period_range(table.index.min(), table.index.max(), freq=pd.PeriodIndex(table.index).freq)
    table = table.reindex(index)
    with plt.rc_context(SVG):
        figure = Figure(figsize=(4.6, 2.3))
        axes = figure.add_axes((0.18, 0.32, 0.77, 0.56))
        for (colour, mark), (name, values) in zip(LINE_STYLES, table.items(), strict=False):
            alone = values.shift(1).isna() & values.shift(-1).isna()
            marked = list(alone | (len(values) <= MOST_MARKED))
            style: Any = {"color": colour, "marker": mark, "markersize": 3.5, "markevery": marked}
            axes.plot(index.to_timestamp().to_numpy(), values.to_numpy(), label=str(name), **style)
        axes.set(title=title, ylabel=unit)
        axes.xaxis.set_label_coords(0.5, -0.24)
        axes.yaxis.set_label_coords(-0.195, 0.5)
        _time_axis(axes, index)
        _value_axis(axes, table, target)
        if table.shape[1] > 1:
            figure.legend(loc="lower left", ncols=len(LINE_STYLES), frameon=False)
        return inline_svg(figure, _alternative_text(table, title, unit))
