"""The rules that look at a month beside the accepted months before it; each is a pure function of their figures."""

from collections.abc import Sequence

import numpy as np

from taxi.figures import Figures
from taxi.params import AcceptParams
from taxi.rules import Finding, Judge, above, below, shown


def _apart(value: float, usual: float) -> float:
    return max(value / usual, usual / value) if value > 0 and usual > 0 else float("inf")


def _shared(now: dict[str, float], before: dict[str, float]) -> float:
    return sum(min(share, before.get(name, 0.0)) for name, share in now.items())


def _named(spread: dict[str, float] | list[float]) -> dict[str, float]:
    return spread if isinstance(spread, dict) else {str(hour): share for hour, share in enumerate(spread)}


def row_count(figures: Figures, history: Sequence[Figures], accept: AcceptParams) -> Finding:
    """Rows against the median of the months before. Beside the month just before, ``volume_jump`` refuses instead."""
    raw = figures["raw"]
    if not raw:
        return Finding("row-count", "refuse", "0 rows", "trips")
    if not history:
        return Finding("row-count", "ok", f"{raw:,} rows", "any number, with no month before to compare with")
    usual = float(np.median([month["raw"] for month in history]))
    got = f"{raw:,} rows, where the months before have {usual:,.0f}"
    limit = float("inf") if history[-1]["adjoins"] else accept.rows_ratio_refuse
    return above("row-count", _apart(raw, usual), accept.rows_ratio_warn, limit, got, "{:g} times more or fewer")


def volume_jump(figures: Figures, history: Sequence[Figures], accept: AcceptParams) -> Finding:
    """Trips a day in the first week against the week before it: demand moves slowly (as in 2020), lost rows do not.

    A smaller jump is enough where the rows of the whole month moved as far the same way: then no holiday explains it.
    """
    weeks = figures["by_day"][:7], history[-1]["by_day"][-7:]
    now, before = (sum(week) / max(np.count_nonzero(week), 1) for week in weeks)
    usual = float(np.median([month["raw"] for month in history]))
    both = (now > before) == (figures["raw"] > usual) and _apart(figures["raw"], usual) >= accept.rows_ratio_agrees
    got = f"{now:,.0f} trips a day in the first week, {before:,.0f} in the week before it"
    refuse = accept.week_ratio_agrees if both else accept.week_ratio_refuse
    return above("volume-jump", _apart(now, before), accept.week_ratio_warn, refuse, got, "{:g} times more or fewer")


def null_share(figures: Figures, history: Sequence[Figures], accept: AcceptParams) -> Finding:
    """The null block's share of trips against the month before, either way."""
    now, before = figures["null_share"] or 0.0, history[-1]["null_share"] or 0.0
    got = f"the null block is {now:.1%} of trips, {before:.1%} in the month before"
    limits = accept.null_share_jump_warn, accept.null_share_jump_refuse
    return above("null-share", abs(now - before), *limits, got, "{:.0%} apart")


def missing_values(figures: Figures, history: Sequence[Figures], accept: AcceptParams) -> list[Finding]:
    """Columns that lost their values since the month before."""
    limits, found = (accept.null_share_jump_warn, accept.null_share_jump_refuse), []
    for name, share in figures["missing_shares"].items():
        before = history[-1]["missing_shares"].get(name, 0.0)
        got = f"{name} is missing in {share:.1%} of trips, {before:.1%} in the month before"
        found.append(above(f"missing-{name}", share - before, *limits, got, "{:.0%} more"))
    return found


def median_jump(name: str, rule: str, unit: str, limit: str) -> Judge:
    """Return the rule that the median of a figure has not jumped against the month before."""

    def judge(figures: Figures, history: Sequence[Figures], accept: AcceptParams) -> Finding:
        value, before, refuse = figures[name], history[-1][name], getattr(accept, limit)
        got = f"median {shown(value)} {unit}, {shown(before)} in the month before"
        apart = _apart(value or 0.0, before or 0.0)
        return above(rule, apart, round(1 + 0.6 * (refuse - 1), 2), refuse, got, "{:g} times more or less")

    return judge


def hour_shift(figures: Figures, history: Sequence[Figures], accept: AcceptParams) -> Finding:
    """How many hours the day's profile must be moved to fit the months before best."""
    usual = np.mean([month["by_hour"] for month in history], axis=0)
    fits = {by: float(np.corrcoef(np.roll(figures["by_hour"], -by), usual)[0, 1]) for by in range(-11, 13)}
    best = max(fits, key=lambda by: fits[by])
    moved = abs(best) >= 2 and fits[best] - fits[0] > accept.hour_fit_gain
    got = f"the day fits the months before best when moved by {best} hours"
    return Finding("hour-shift", "refuse" if moved else "ok", got, "1 or less")


def spread_shared(name: str, rule: str, what: str, limits: str) -> Judge:
    """Return the rule that the trips are spread over values much as in the month before."""

    def judge(figures: Figures, history: Sequence[Figures], accept: AcceptParams) -> Finding:
        shared = _shared(_named(figures[name]), _named(history[-1][name]))
        got = f"{shared:.1%} of the trips' spread over {what} is that of the month before"
        return below(rule, shared, getattr(accept, f"{limits}_warn"), getattr(accept, f"{limits}_refuse"), got)

    return judge


def swapped_zones(figures: Figures, history: Sequence[Figures], accept: AcceptParams) -> Finding:
    """Pickup zones that fit the earlier drop-offs better than the earlier pickups, and the other way about."""
    now, before = ([month["pickup_zones"], month["dropoff_zones"]] for month in (figures, history[-1]))
    straight = sum(_shared(one, other) for one, other in zip(now, before, strict=True)) / 2
    crossed = sum(_shared(one, other) for one, other in zip(now, reversed(before), strict=True)) / 2
    got = f"zones fit those of the month before by {straight:.1%}, and by {crossed:.1%} with the ends swapped"
    return Finding(
        "swapped-zones",
        "refuse" if crossed - straight > accept.zone_swap_gain else "ok",
        got,
        "no better fit when swapped",
    )


def columns(figures: Figures, history: Sequence[Figures], accept: AcceptParams) -> list[Finding]:
    """Published columns that came or went since the month before; those that are needed are asked for when reading."""
    now, before = ({name.lower(): name for name in month["columns"]} for month in (figures, history[-1]))
    changes = {"new-columns": [now[name] for name in now if name not in before]}
    changes["lost-columns"] = [before[name] for name in before if name not in now]
    expected = "the columns of the month before"
    return [
        Finding(rule, "warn" if names else "ok", ", ".join(names) or "none", expected)
        for rule, names in changes.items()
    ]


BESIDE: tuple[Judge, ...] = (
    columns,
    null_share,
    missing_values,
    hour_shift,
    swapped_zones,
    spread_shared("pickup_zones", "pickup-zones", "pickup zones", "zone_overlap"),
    spread_shared("dropoff_zones", "dropoff-zones", "drop-off zones", "zone_overlap"),
    spread_shared("vendors", "vendors", "vendors", "vendor_overlap"),
    spread_shared("by_hour", "hours", "hours", "hour_overlap"),
    median_jump("median_minutes", "minutes-jump", "minutes", "minutes_ratio_refuse"),
    median_jump("median_miles", "miles-jump", "miles", "miles_ratio_refuse"),
    median_jump("median_mph", "speed-jump", "miles per hour", "speed_ratio_refuse"),
    median_jump("median_dollars", "dollars-jump", "dollars", "dollars_ratio_refuse"),
)
