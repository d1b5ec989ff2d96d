"""The backtest's pictures: policies side by side, month after month; a gap in the months is a gap in the lines."""

from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from taxi.plots import BLUE, GREEN, GREY, ORANGE, STYLE

COLOURS = {"auto": BLUE, "never": ORANGE, "always": GREEN}
MARKS = {"auto": "o", "never": "s", "always": "^"}


def _canvas(title: str, label: str, height: float) -> tuple[Figure, plt.Axes]:
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
    figure, axes = _canvas(title, label, 3.2)
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
    figure, axes = _canvas("Alarms, retrainings and promotions", "", 1.4 + 0.55 * len(policies))
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
