"""What a month rule finds, and the rules that look at one month alone; each is a pure function of its figures."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Literal

from taxi.figures import Figures
from taxi.params import AcceptParams

Level = Literal["ok", "warn", "refuse"]


@dataclass(frozen=True)
class Finding:
    """What one rule says of a month: its name, how grave it is, what came, and what was expected."""

    rule: str
    level: Level
    got: str
    expected: str = ""

    @property
    def message(self) -> str:
        """Return both as one sentence."""
        return f"{self.got}; expected {self.expected}" if self.expected else self.got

    def as_dict(self) -> dict[str, str]:
        """Return the finding as JSON-able names and values."""
        names = ("rule", "level", "expected", "got", "message")
        return {name: getattr(self, name) for name in names}


Judge = Callable[[Figures, Sequence[Figures], AcceptParams], Finding | list[Finding]]


def above(rule: str, value: float, warn: float, refuse: float, got: str, unit: str = "{:g}") -> Finding:
    """Grade a value that is low when all is well; a limit of infinity never refuses."""
    level: Level = "refuse" if value >= refuse < inf else "warn" if value >= warn else "ok"
    limit = f" (refused from {unit.format(refuse)})" if refuse < inf else ""
    return Finding(rule, level, got, f"under {unit.format(warn)}{limit}")


def below(rule: str, value: float, warn: float, refuse: float, got: str) -> Finding:
    """Grade a share that is high when all is well."""
    level: Level = "refuse" if value <= refuse else "warn" if value <= warn else "ok"
    return Finding(rule, level, got, f"over {warn:.0%} (refused to {refuse:.0%})")


def reason_shares(figures: Figures, history: Sequence[Figures], accept: AcceptParams) -> list[Finding]:
    """The share of rows that each row rule refused; a fault named here explains a low kept share."""
    limits = accept.reason_share_warn, accept.reason_share_refuse
    shares = figures["reason_shares"].items()
    return [
        above(f"share-{name}", share, *limits, f"{share:.1%} of rows are {name}", "{:.0%}") for name, share in shares
    ]


def kept_share(figures: Figures, history: Sequence[Figures], accept: AcceptParams) -> Finding:
    """The share of rows that are kept."""
    share = figures["kept_share"]
    return below("kept-share", share, accept.kept_share_warn, accept.kept_share_refuse, f"{share:.1%} of rows are kept")


def missing_days(figures: Figures, history: Sequence[Figures], accept: AcceptParams) -> Finding:
    """Days of the month without a single kept trip."""
    missing = [day for day, trips in enumerate(figures["by_day"], 1) if not trips]
    got = f"{len(missing)} days without a trip" + (f": {missing}" if missing else "")
    return above("missing-days", len(missing), accept.missing_days_warn, accept.missing_days_refuse, got)


def night_share(figures: Figures, history: Sequence[Figures], accept: AcceptParams) -> Finding:
    """The share of pickups between two and six at night: high when the clock is in another time zone."""
    share = sum(figures["by_hour"][2:6])
    got = f"{share:.1%} of pickups between 02:00 and 06:00"
    return above("night-share", share, accept.night_share_warn, accept.night_share_refuse, got, "{:.0%}")


def quiet_hours(figures: Figures, history: Sequence[Figures], accept: AcceptParams) -> Finding:
    """The hour at which the day's three quietest hours begin: after midnight, whatever the month."""
    hours, (low, high) = figures["by_hour"], accept.quiet_from
    quiet = min(range(24), key=lambda hour: sum(hours[(hour + step) % 24] for step in range(3)))
    level: Level = "ok" if low <= quiet <= high else "refuse"
    return Finding("quiet-hours", level, f"the quietest three hours begin at {quiet}:00", f"{low}:00 to {high}:00")


def empty_columns(figures: Figures, history: Sequence[Figures], accept: AcceptParams) -> Finding:
    """Columns of every service that have hardly a value, whatever the months before had."""
    shares = figures["missing_shares"].items()
    empty = [name for name, share in shares if name != "trip_type" and share >= accept.missing_share_refuse]
    expected = f"each column missing in under {accept.missing_share_refuse:.0%} of trips"
    return Finding("empty-columns", "refuse" if empty else "ok", ", ".join(empty) or "none", expected)


def shown(value: float | None) -> str:
    """Return a median as words."""
    return "of no" if value is None else f"{value:.2f}"


def median_in_range(name: str, rule: str, unit: str) -> Judge:
    """Return the rule that the median of a figure lies between two limits that hold for any month."""

    def judge(figures: Figures, history: Sequence[Figures], accept: AcceptParams) -> Finding:
        value, (low, high) = figures[name], getattr(accept, name)
        level: Level = "ok" if value is not None and low <= value <= high else "refuse"
        return Finding(rule, level, f"median {shown(value)} {unit}", f"{low:g} to {high:g}")

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
