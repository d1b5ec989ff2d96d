"""What the monitor found in a month: everything that its notebook shows and records."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from taxi.drift import Drift
from taxi.plan import Plan


@dataclass(frozen=True)
class Verdict:
    """``calm``, ``alarm``, or ``first`` (no champion yet), the names of the alarms, and a sentence with numbers for each check."""

    verdict: str
    alarms: list[str]
    reasons: list[str]


@dataclass(frozen=True)
class Watched:
    """Everything that the monitor's notebook shows of a month."""

    plan: Plan
    trips: pd.DataFrame
    metrics: dict[str, float] | None
    by_slice: pd.DataFrame | None
    drift: Drift | None
    volume_table: pd.DataFrame
    verdict: Verdict
    numbers: dict[str, float]

    @cached_property
    def note(self) -> str:
        """Who is watched, on what."""
        if self.plan.incumbent is None:
            return "**There is no champion yet**, so there is nothing to hold against the month; its trips are only counted."
        one = self.plan.incumbent
        return f"The champion is version {one['version']}, trained on {one['trained_from']} to {one['trained_to']}; the month has {len(self.trips):,} kept trips that it never saw."

    @cached_property
    def score_table(self) -> pd.DataFrame:
        """The champion's scores on the month beside those it was promoted with."""
        if self.metrics is None or self.plan.incumbent is None:
            return pd.DataFrame()
        both = {"this month": self.metrics, "when promoted": self.plan.incumbent["metrics"]}
        return pd.DataFrame.from_dict(both, orient="index").round(3).astype({"n": int})

    @cached_property
    def slice_table(self) -> pd.DataFrame:
        """Scores by slice."""
        return pd.DataFrame() if self.by_slice is None else self.by_slice.round(3)

    @cached_property
    def drift_table(self) -> pd.DataFrame:
        """Effect sizes by column."""
        return pd.DataFrame() if self.drift is None else self.drift.table.round(4)

    @cached_property
    def verdict_text(self) -> str:
        """The verdict as Markdown."""
        lines = [
            f"- {'**' + line + '**' if line.split(':')[0] in self.verdict.alarms else line}"
            for line in self.verdict.reasons
        ]
        sampled = [f"\nDrift compares {self.drift.note}."] if self.drift else []
        return "\n".join([f"**{self.verdict.verdict.upper()}**", "", *lines, *sampled])

    @cached_property
    def result(self) -> dict[str, Any]:
        """What the notebook records."""
        return {
            "verdict": self.verdict.verdict,
            "alarms": self.verdict.alarms,
            "reasons": self.verdict.reasons,
            "metrics": self.metrics,
            "numbers": self.numbers,
        }
