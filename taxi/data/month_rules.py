"""Month rules: a month's figures beside those of the accepted months before it; pure functions that warn or refuse."""

from collections.abc import Callable, Sequence
from math import inf
from typing import Any, Literal

import numpy as np
import pandas as pd
from pydantic import computed_field
from pydantic.dataclasses import dataclass

from taxi.months import days_in_month
from taxi.params import AcceptParams

# --- What the month rules look at: a month's figures, and those of the accepted months before it.

Figures = dict[str, Any]
FORMAT = 2
WATCHED = ("VendorID", "trip_distance", "total_amount", "fare_amount", "passenger_count", "trip_type")


def _or_none(value: float) -> float | None:
    return None if pd.isna(value) else float(value)


def _spread(values: pd.Series) -> dict[str, float]:
    shares = values.dropna().astype("int64").value_counts(normalize=True).sort_index()
    return {str(value): round(float(share), 6) for value, share in shares.items()}


def _counts(values: pd.Series, of: range) -> list[int]:
    counts = values.value_counts()
    return [int(counts.get(value, 0)) for value in of]


def _medians(kept: pd.DataFrame) -> Figures:
    trusted = kept[~kept["distance_suspect"]]
    speed = trusted["trip_distance"] / trusted["duration"] * 60
    return {
        "median_minutes": _or_none(kept["duration"].median()),
        "median_miles": _or_none(kept["trip_distance"].median()),
        "median_mph": _or_none(speed.median()),
        "median_dollars": _or_none(kept["total_amount"].median()),
    }


def month_figures(rows: pd.DataFrame, kept: pd.DataFrame, reasons: pd.Series, month: str) -> Figures:
    """Return shares of 1, medians (minutes, miles, miles per hour, dollars), trips by day, and spreads over values."""
    raw, counts = len(rows), reasons.value_counts().sort_index()
    by_hour = _counts(kept["pickup"].dt.hour, range(24))
    return _medians(kept) | {
        "raw": raw,
        "kept": len(kept),
        "kept_share": len(kept) / raw if raw else 0.0,
        "reason_shares": {str(name): int(count) / raw for name, count in counts.items()},
        "null_share": _or_none(kept["null_block"].mean()),
        "missing_shares": {name: float(kept[name].isna().mean()) for name in WATCHED} if len(kept) else {},
        "by_day": _counts(kept["pickup"].dt.day, range(1, days_in_month(month) + 1)),
        "by_hour": [round(count / max(len(kept), 1), 6) for count in by_hour],
        "pickup_zones": _spread(kept["PULocationID"]),
        "dropoff_zones": _spread(kept["DOLocationID"]),
        "vendors": _spread(kept["VendorID"]),
    }


# --- What a month rule finds, and the rules that look at one month alone; each is a pure function of its figures.

Level = Literal["ok", "warn", "refuse"]


@dataclass(frozen=True)
class RuleFinding:
    """What one acceptance rule says of a month: its id, how grave it is, what came, and what was expected."""

    rule: str
    level: Level
    got: str
    expected: str = ""

    @computed_field  # type: ignore[prop-decorator]
    @property
    def message(self) -> str:
        """Return both as one sentence."""
        return f"{self.got}; expected {self.expected}" if self.expected else self.got

    def __str__(self) -> str:
        """Return the rule and its sentence in one line."""
        return f"{self.rule}: {self.message}"


Judge = Callable[[Figures, Sequence[Figures], AcceptParams], RuleFinding | list[RuleFinding]]


def above(rule: str, value: float, warn: float, refuse: float, got: str, unit: str = "{:g}") -> RuleFinding:
    """Grade a value that is low when all is well; a limit of infinity never refuses."""
    level: Level = "refuse" if value >= refuse < inf else "warn" if value >= warn else "ok"
    limit = f" (refused from {unit.format(refuse)})" if refuse < inf else ""
    return RuleFinding(rule, level, got, f"under {unit.format(warn)}{limit}")


def below(rule: str, value: float, warn: float, refuse: float, got: str) -> RuleFinding:
    """Grade a share that is high when all is well."""
    level: Level = "refuse" if value <= refuse else "warn" if value <= warn else "ok"
    return RuleFinding(rule, level, got, f"over {warn:.0%} (refused to {refuse:.0%})")


def reason_shares(figures: Figures, history: Sequence[Figures], accept: AcceptParams) -> list[RuleFinding]:
    """The share of rows that each row rule refused; a fault named here explains a low kept share."""
    limits = accept.reason_share_warn, accept.reason_share_refuse
    shares = figures["reason_shares"].items()
    return [
        above(f"share-{name}", share, *limits, f"{share:.1%} of rows are {name}", "{:.0%}") for name, share in shares
    ]


def kept_share(figures: Figures, history: Sequence[Figures], accept: AcceptParams) -> RuleFinding:
    """The share of rows that are kept."""
    share = figures["kept_share"]
    return below("kept-share", share, accept.kept_share_warn, accept.kept_share_refuse, f"{share:.1%} of rows are kept")


def missing_days(figures: Figures, history: Sequence[Figures], accept: AcceptParams) -> RuleFinding:
    """Days of the month without a single kept trip."""
    missing = [day for day, trips in enumerate(figures["by_day"], 1) if not trips]
    got = f"{len(missing)} days without a trip" + (f": {missing}" if missing else "")
    return above("missing-days", len(missing), accept.missing_days_warn, accept.missing_days_refuse, got)


def night_share(figures: Figures, history: Sequence[Figures], accept: AcceptParams) -> RuleFinding:
    """The share of pickups between two and six at night: high when the clock is in another time zone."""
    share = sum(figures["by_hour"][2:6])
    got = f"{share:.1%} of pickups between 02:00 and 06:00"
    return above("night-share", share, accept.night_share_warn, accept.night_share_refuse, got, "{:.0%}")


def quiet_hours(figures: Figures, history: Sequence[Figures], accept: AcceptParams) -> RuleFinding:
    """The hour at which the day's three quietest hours begin: after midnight, whatever the month."""
    hours, (low, high) = figures["by_hour"], accept.quiet_from
    quiet = min(range(24), key=lambda hour: sum(hours[(hour + step) % 24] for step in range(3)))
    level: Level = "ok" if low <= quiet <= high else "refuse"
    return RuleFinding("quiet-hours", level, f"the quietest three hours begin at {quiet}:00", f"{low}:00 to {high}:00")


def empty_columns(figures: Figures, history: Sequence[Figures], accept: AcceptParams) -> RuleFinding:
    """Columns of every service that have hardly a value, whatever the months before had."""
    shares = figures["missing_shares"].items()
    empty = [name for name, share in shares if name != "trip_type" and share >= accept.missing_share_refuse]
    expected = f"each column missing in under {accept.missing_share_refuse:.0%} of trips"
    return RuleFinding("empty-columns", "refuse" if empty else "ok", ", ".join(empty) or "none", expected)


def shown(value: float | None) -> str:
    """Return a median as words."""
    return "of no" if value is None else f"{value:.2f}"


def median_in_range(name: str, rule: str, unit: str) -> Judge:
    """Return the rule that the median of a figure lies between two limits that hold for any month."""

    def judge(figures: Figures, history: Sequence[Figures], accept: AcceptParams) -> RuleFinding:
        value, (low, high) = figures[name], getattr(accept, name)
        level: Level = "ok" if value is not None and low <= value <= high else "refuse"
        return RuleFinding(rule, level, f"median {shown(value)} {unit}", f"{low:g} to {high:g}")

    return judge


ALONE: tuple[Judge, ...] = (
    reason_shares,
    kept_share,
    missing_days,
    night_share,
    quiet_hours,
    empty_columns,
    median_in_range("median_minutes", "median-minutes", "minutes"),
    median_in_range("median_miles", "median-miles", "miles"),
    median_in_range("median_mph", "median-speed", "miles per hour"),
    median_in_range("median_dollars", "median-dollars", "dollars"),
)


def _apart(value: float, usual: float) -> float:
    return max(value / usual, usual / value) if value > 0 and usual > 0 else float("inf")


def _shared(now: dict[str, float], before: dict[str, float]) -> float:
    return sum(min(share, before.get(name, 0.0)) for name, share in now.items())


def _named(spread: dict[str, float] | list[float]) -> dict[str, float]:
    return spread if isinstance(spread, dict) else {str(hour): share for hour, share in enumerate(spread)}


def row_count(figures: Figures, history: Sequence[Figures], accept: AcceptParams) -> RuleFinding:
    """Rows against the median of the months before. Beside the month just before, ``volume_jump`` refuses instead."""
    raw = figures["raw"]
    if not raw:
        return RuleFinding("row-count", "refuse", "0 rows", "trips")
    if not history:
        return RuleFinding("row-count", "ok", f"{raw:,} rows", "any number, with no month before to compare with")
    usual = float(np.median([month["raw"] for month in history]))
    got = f"{raw:,} rows, where the months before have {usual:,.0f}"
    limit = float("inf") if history[-1]["adjoins"] else accept.rows_ratio_refuse
    return above("row-count", _apart(raw, usual), accept.rows_ratio_warn, limit, got, "{:g} times more or fewer")


def volume_jump(figures: Figures, history: Sequence[Figures], accept: AcceptParams) -> RuleFinding:
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


def null_share(figures: Figures, history: Sequence[Figures], accept: AcceptParams) -> RuleFinding:
    """The null block's share of trips against the month before, either way."""
    now, before = figures["null_share"] or 0.0, history[-1]["null_share"] or 0.0
    got = f"the null block is {now:.1%} of trips, {before:.1%} in the month before"
    limits = accept.null_share_jump_warn, accept.null_share_jump_refuse
    return above("null-share", abs(now - before), *limits, got, "{:.0%} apart")


def missing_values(figures: Figures, history: Sequence[Figures], accept: AcceptParams) -> list[RuleFinding]:
    """Columns that lost their values since the month before."""
    limits, found = (accept.null_share_jump_warn, accept.null_share_jump_refuse), []
    for name, share in figures["missing_shares"].items():
        before = history[-1]["missing_shares"].get(name, 0.0)
        got = f"{name} is missing in {share:.1%} of trips, {before:.1%} in the month before"
        found.append(above(f"missing-{name}", share - before, *limits, got, "{:.0%} more"))
    return found


def median_jump(name: str, rule: str, unit: str, limit: str) -> Judge:
    """Return the rule that the median of a figure has not jumped against the month before."""

    def judge(figures: Figures, history: Sequence[Figures], accept: AcceptParams) -> RuleFinding:
        value, before, refuse = figures[name], history[-1][name], getattr(accept, limit)
        got = f"median {shown(value)} {unit}, {shown(before)} in the month before"
        apart = _apart(value or 0.0, before or 0.0)
        return above(rule, apart, round(1 + 0.6 * (refuse - 1), 2), refuse, got, "{:g} times more or less")

    return judge


def hour_shift(figures: Figures, history: Sequence[Figures], accept: AcceptParams) -> RuleFinding:
    """How many hours the day's profile must be moved to fit the months before best."""
    usual = np.mean([month["by_hour"] for month in history], axis=0)
    fits = {by: float(np.corrcoef(np.roll(figures["by_hour"], -by), usual)[0, 1]) for by in range(-11, 13)}
    best = max(fits, key=lambda by: fits[by])
    moved = abs(best) >= 2 and fits[best] - fits[0] > accept.hour_fit_gain
    got = f"the day fits the months before best when moved by {best} hours"
    return RuleFinding("hour-shift", "refuse" if moved else "ok", got, "1 or less")


def spread_shared(name: str, rule: str, what: str, limits: str) -> Judge:
    """Return the rule that the trips are spread over values much as in the month before."""

    def judge(figures: Figures, history: Sequence[Figures], accept: AcceptParams) -> RuleFinding:
        shared = _shared(_named(figures[name]), _named(history[-1][name]))
        got = f"{shared:.1%} of the trips' spread over {what} is that of the month before"
        return below(rule, shared, getattr(accept, f"{limits}_warn"), getattr(accept, f"{limits}_refuse"), got)

    return judge


def swapped_zones(figures: Figures, history: Sequence[Figures], accept: AcceptParams) -> RuleFinding:
    """Pickup zones that fit the earlier drop-offs better than the earlier pickups, and the other way about."""
    now, before = ([month["pickup_zones"], month["dropoff_zones"]] for month in (figures, history[-1]))
    straight = sum(_shared(one, other) for one, other in zip(now, before, strict=True)) / 2
    crossed = sum(_shared(one, other) for one, other in zip(now, reversed(before), strict=True)) / 2
    got = f"zones fit those of the month before by {straight:.1%}, and by {crossed:.1%} with the ends swapped"
    return RuleFinding(
        "swapped-zones",
        "refuse" if crossed - straight > accept.zone_swap_gain else "ok",
        got,
        "no better fit when swapped",
    )


def columns(figures: Figures, history: Sequence[Figures], accept: AcceptParams) -> list[RuleFinding]:
    """Published columns that came or went since the month before; those that are needed are asked for when reading."""
    now, before = ({name.lower(): name for name in month["columns"]} for month in (figures, history[-1]))
    changes = {"new-columns": [now[name] for name in now if name not in before]}
    changes["lost-columns"] = [before[name] for name in before if name not in now]
    expected = "the columns of the month before"
    return [
        RuleFinding(rule, "warn" if names else "ok", ", ".join(names) or "none", expected)
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
