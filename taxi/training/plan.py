"""Plan of a month's run: training window and incumbent, decided once at its start, in a file that every later step reads."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pandas as pd
from typing_extensions import TypedDict

from taxi.config import MonthPaths, Settings
from taxi.errors import TaxiError
from taxi.files import read_model, write_model
from taxi.months import month_bounds, shift_month, window_before

if TYPE_CHECKING:
    from taxi.registry.versions import Version

HOLDOUT_DAYS = 7


class Incumbent(TypedDict):
    """What a plan says of the champion that was in use when its month began."""

    version: int
    trained_from: str
    trained_to: str
    metrics: dict[str, float]


def describe_incumbent(version: "Version | None") -> Incumbent | None:
    """Return what a plan says of the champion that was in use when its month began; None if there was none."""
    if version is None:
        return None
    return {
        "version": version.number,
        "trained_from": version.trained_from,
        "trained_to": version.trained_to,
        "metrics": version.metrics,
    }


@dataclass(frozen=True)
class Plan:
    """Which months train the challenger, which trips judge it, and which champion was in use when the month began.

    Where no earlier month is on hand ``window`` is empty, and ``holdout_from`` (New York wall-clock, ISO) divides the month
    itself: trips before it train, trips from it on judge. So it does in a retrain, which has a window beside that.
    ``incumbent`` is the registered version, or None.
    ``before`` is the newest earlier month on hand, however old: what the month is compared with.
    """

    service: str
    month: str
    window: list[str]
    refit_window: list[str]
    holdout_from: str | None
    incumbent: Incumbent | None
    before: str | None = None
    format: Literal[1] = 1

    @property
    def earlier(self) -> list[str]:
        """The months that the month is compared with, oldest first: its window, or else the newest month on hand."""
        return self.window or ([self.before] if self.before else [])

    @property
    def gap(self) -> str:
        """Say which months are missing between the month and the one that it is compared with; empty if none is."""
        if not self.earlier or self.earlier[-1] == shift_month(self.month, -1):
            return ""
        first, last = shift_month(self.earlier[-1], 1), shift_month(self.month, -1)
        missing = f"{first} is" if first == last else f"{first} to {last} are"
        return f"compared with {self.earlier[-1]}, the newest month before it: {missing} not on hand"

    def months_of(self, role: str) -> list[str]:
        """Return the months that train the ``challenger``, or the ``winner``, oldest first."""
        return self.refit_window if role == "winner" else self.learnt

    def as_of(self, role: str) -> pd.Timestamp:
        """Return the first moment that the ``challenger``, or the ``winner``, learns nothing of."""
        if role == "winner":
            return month_bounds(self.month)[1]
        return pd.Timestamp(self.holdout_from) if self.holdout_from else month_bounds(self.month)[0]

    @property
    def judged(self) -> str:
        """Say in words which trips judge the models."""
        return (
            f"the trips of {self.month}" if not self.holdout_from else f"the last {HOLDOUT_DAYS} days of {self.month}"
        )

    @property
    def trained(self) -> str:
        """Say in words which trips train the challenger."""
        months = f"{len(self.window)} months, {self.window[0]} to {self.window[-1]}" if self.window else ""
        if not self.holdout_from:
            return months
        part = f"{self.month} without its last {HOLDOUT_DAYS} days"
        return f"{months}, and {part}" if months else f"{part}, because no earlier month is on hand"

    @property
    def learnt(self) -> list[str]:
        """Return the months that the challenger learns from, oldest first; the last one in part where it is divided."""
        return [*self.window, self.month] if self.holdout_from else self.window


def make_plan(service: str, month: str, on_hand: list[str], window_months: int, incumbent: Incumbent | None) -> Plan:
    """Decide the windows for ``month`` from the months on hand; months at or after it are never trained on."""
    window = window_before(month, on_hand, window_months)
    holdout = None if window else _last_days(month)
    refit = window_before(shift_month(month, 1), [*on_hand, month], window_months)
    before = max((one for one in on_hand if one < month), default=None)
    return Plan(service, month, window, refit, holdout, incumbent, before)


def make_retrain_plan(
    service: str, month: str, on_hand: list[str], window_months: int, incumbent: Incumbent | None
) -> Plan:
    """Decide the windows of a retrain now: the newest ``month`` trains too, but for its last days, which judge.

    A month's own run never trains on the month: it would learn of a change only when the next one is published.
    """
    refit = window_before(shift_month(month, 1), on_hand, window_months)
    return Plan(service, month, [one for one in refit if one != month], refit, _last_days(month), incumbent)


def _last_days(month: str) -> str:
    return (month_bounds(month)[1] - pd.Timedelta(days=HOLDOUT_DAYS)).isoformat()


def plan_file(paths: MonthPaths) -> Path:
    """Return where the plan of a month lies."""
    return paths.models / "plan.json"


def write_plan(paths: MonthPaths, plan: Plan) -> None:
    """Keep the plan beside the month's models."""
    write_model(plan_file(paths), plan)


def load_plan(path: Path) -> Plan:
    """Read a plan from its file; raises TaxiError that names the file if it is damaged."""
    return read_model(path, Plan, "a month's plan", "Remove it and run the month again")


def read_plan(settings: Settings, service: str, month: str) -> Plan:
    """Read the month's plan; raise TaxiError that says what to run if there is none."""
    path = plan_file(settings.month(service, month))
    if not path.is_file():
        raise TaxiError(
            f"{service} {month} has no plan yet at {path}: run `taxi run --service {service} --month {month}`"
        )
    return load_plan(path)
