"""The rules that judge a month as a whole. Each is a pure function of its figures and those of the months before it."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from taxi.config import AcceptParams

Figures = dict[str, Any]
WATCHED = ("VendorID", "trip_distance", "total_amount", "fare_amount", "passenger_count", "trip_type")


@dataclass(frozen=True)
class Finding:
    """What one rule says of a month: its name, how grave it is, and why, with what was expected and what came."""

    rule: str
    level: Literal["ok", "warn", "refuse"]
    message: str

    def as_dict(self) -> dict[str, str]:
        """Return the finding as JSON-able names and values."""
        return asdict(self)


def _graded(rule: str, value: float, warn: float, refuse: float, said: str) -> Finding:
    """Grade a value by limits that lie above it when all is well."""
    level: Literal["ok", "warn", "refuse"] = "refuse" if value >= refuse else "warn" if value >= warn else "ok"
    return Finding(rule, level, f"{said} (warned from {warn:g}, refused from {refuse:g})")


def _apart(value: float, expected: float) -> float:
    if value <= 0 or expected <= 0:
        return float("inf")
    return max(value / expected, expected / value)


def _middle(history: Sequence[Figures], name: str) -> float:
    return float(np.median([month[name] for month in history]))


def row_count(figures: Figures, history: Sequence[Figures], accept: AcceptParams) -> Finding:
    """Rows against the median of the months before, either way."""
    raw = figures["raw"]
    if not raw:
        return Finding("row-count", "refuse", "expected trips; the file has 0 rows")
    if not history:
        return Finding("row-count", "ok", f"{raw:,} rows; no month before to compare with")
    usual = _middle(history, "raw")
    said = f"{raw:,} rows, {raw / usual:.2f} times the {usual:,.0f} of the months before"
    return _graded("row-count", _apart(raw, usual), accept.rows_ratio_warn, accept.rows_ratio_refuse, said)


def volume_jump(figures: Figures, history: Sequence[Figures], accept: AcceptParams) -> Finding:
    """Kept trips of the first seven days against the last seven of the month before: demand moves slowly, lost rows do not."""
    first = sum(figures["by_day"][:7])
    before = sum(history[-1]["by_day"][-7:])
    said = f"{first:,} trips in the first week, {before:,} in the week before it"
    return _graded("volume-jump", _apart(first, before), accept.week_ratio_warn, accept.week_ratio_refuse, said)


def reason_shares(figures: Figures, history: Sequence[Figures], accept: AcceptParams) -> list[Finding]:
    """The share of rows that each row rule refused; a fault named here explains a low kept share."""
    shares = figures["reason_shares"]
    return [
        _graded(f"share-{name}", share, accept.reason_share_warn, accept.reason_share_refuse, f"{share:.1%} of rows are {name}")
        for name, share in sorted(shares.items())
    ]


def kept_share(figures: Figures, history: Sequence[Figures], accept: AcceptParams) -> Finding:
    """The share of rows that are kept."""
    share = figures["kept_share"]
    level: Literal["ok", "warn", "refuse"] = (
        "refuse" if share <= accept.kept_share_refuse else "warn" if share <= accept.kept_share_warn else "ok"
    )
    limits = f"(warned to {accept.kept_share_warn:.0%}, refused to {accept.kept_share_refuse:.0%})"
    return Finding("kept-share", level, f"{share:.1%} of rows are kept {limits}")


def missing_days(figures: Figures, history: Sequence[Figures], accept: AcceptParams) -> Finding:
    """Days of the month without a single kept trip."""
    missing = [day for day, trips in enumerate(figures["by_day"], 1) if not trips]
    said = f"{len(missing)} days without a trip" + (f": {missing}" if missing else "")
    return _graded("missing-days", len(missing), accept.missing_days_warn, accept.missing_days_refuse, said)


def median_in_range(name: str, rule: str, unit: str, limits: str) -> Callable[..., Finding]:
    """Return the rule that the median of a figure lies between two limits that hold for any month."""

    def judge(figures: Figures, history: Sequence[Figures], accept: AcceptParams) -> Finding:
        value, (low, high) = figures[name], getattr(accept, limits)
        inside = value is not None and low <= value <= high
        shown = "none" if value is None else f"{value:.2f}"
        return Finding(rule, "ok" if inside else "refuse", f"median {shown} {unit}; expected {low:g} to {high:g}")

    return judge


def median_jump(name: str, rule: str, unit: str, limit: str) -> Callable[..., Finding]:
    """Return the rule that the median of a figure has not jumped against the month before."""

    def judge(figures: Figures, history: Sequence[Figures], accept: AcceptParams) -> Finding:
        value, before, refuse = figures[name] or 0.0, history[-1][name], getattr(accept, limit)
        said = f"median {value:.2f} {unit}; {before:.2f} in the month before"
        return _graded(rule, _apart(value, before), 1 + 0.6 * (refuse - 1), refuse, said)

    return judge


def null_share(figures: Figures, history: Sequence[Figures], accept: AcceptParams) -> Finding:
    """The null block's share of trips against the month before."""
    jump = (figures["null_share"] or 0.0) - history[-1]["null_share"]
    said = f"the null block moved by {jump:+.1%} of trips"
    return _graded("null-share", abs(jump), accept.null_share_jump_warn, accept.null_share_jump_refuse, said)


def missing_values(figures: Figures, history: Sequence[Figures], accept: AcceptParams) -> list[Finding]:
    """Columns that lost their values since the month before."""
    before = history[-1]["missing_shares"]
    found = []
    for name, share in figures["missing_shares"].items():
        jump = share - before.get(name, 0.0)
        said = f"{name} is missing in {share:.1%} of trips, {before.get(name, 0.0):.1%} in the month before"
        found.append(
            _graded(f"missing-{name}", jump, accept.null_share_jump_warn, accept.null_share_jump_refuse, said)
        )
    return found


def night_share(figures: Figures, history: Sequence[Figures], accept: AcceptParams) -> Finding:
    """The share of pickups between two and six at night: high when the clock is in another time zone."""
    share = sum(figures["by_hour"][2:6])
    said = f"{share:.1%} of pickups between 02:00 and 06:00"
    return _graded("night-share", share, accept.night_share_warn, accept.night_share_refuse, said)


def hour_shift(figures: Figures, history: Sequence[Figures], accept: AcceptParams) -> Finding:
    """How many hours the day's profile must be moved to fit the months before best."""
    usual = np.mean([month["by_hour"] for month in history], axis=0)
    fits = {by: float(np.corrcoef(np.roll(figures["by_hour"], -by), usual)[0, 1]) for by in range(-11, 13)}
    best = max(fits, key=lambda by: fits[by])
    moved = abs(best) >= 2 and fits[best] - fits[0] > 0.02
    said = f"the day fits the months before best when moved by {best} hours"
    return Finding("hour-shift", "refuse" if moved else "ok", said)


def zone_overlap(figures: Figures, history: Sequence[Figures], accept: AcceptParams) -> Finding:
    """How much of the trips' spread over zones is shared with the month before (1 is all)."""
    now, before = figures["zones"], history[-1]["zones"]
    shared = sum(min(share, before.get(zone, 0.0)) for zone, share in now.items())
    said = f"{1 - shared:.1%} of the trips' spread over zones is new"
    return _graded("zones", 1 - shared, 1 - accept.zone_overlap_warn, 1 - accept.zone_overlap_refuse, said)


ALONE = (
    row_count,
    reason_shares,
    kept_share,
    missing_days,
    night_share,
    median_in_range("median_minutes", "median-minutes", "minutes", "median_minutes"),
    median_in_range("median_miles", "median-miles", "miles", "median_miles"),
    median_in_range("median_mph", "median-speed", "miles per hour", "median_mph"),
)
BESIDE = (
    null_share,
    missing_values,
    hour_shift,
    zone_overlap,
    median_jump("median_minutes", "minutes-jump", "minutes", "minutes_ratio_refuse"),
    median_jump("median_miles", "miles-jump", "miles", "miles_ratio_refuse"),
    median_jump("median_mph", "speed-jump", "miles per hour", "speed_ratio_refuse"),
)


def judge_month(figures: Figures, history: Sequence[Figures], accept: AcceptParams) -> list[Finding]:
    """Return every rule's finding; ``history`` holds the figures of accepted months before, oldest first, maybe none."""
    if not figures["raw"]:
        return [row_count(figures, history, accept)]
    judges = ALONE if not history or not figures["kept"] else (*ALONE, *BESIDE)
    found: list[Finding] = []
    for judge in judges:
        said = judge(figures, history, accept)
        found += said if isinstance(said, list) else [said]
    adjoining = bool(history) and history[-1].get("adjoins", True)
    return [*found, volume_jump(figures, history, accept)] if adjoining and figures["kept"] else found
