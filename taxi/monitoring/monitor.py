"""How the champion did in a month it never saw: scores, drift, volume, and a verdict with reasons."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from taxi.config import Settings
from taxi.data.acceptance import read_acceptance
from taxi.data.zones import read_zones
from taxi.models.evaluate import score, score_by_slice
from taxi.models.model import DurationModel
from taxi.monitoring.drift import Drift, compare_months, describe_inputs, keep_page, keep_run, sample_trips
from taxi.params import MonitorParams, Params
from taxi.training.plan import Plan
from taxi.training.train import judging_trips, load_incumbent, read_months

# --- What the monitor found in a month: everything that its notebook shows and records.


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


Checks = dict[str, tuple[bool, str]]


def judge_volume(now: float, usual: float | None, params: MonitorParams) -> tuple[bool, str]:
    """Say whether the trips a day fell or rose too far against the usual."""
    if not usual:
        return False, f"{now:,.0f} trips a day; no month before to compare with"
    change = now / usual - 1
    beyond = change < -params.volume_drop or change > params.volume_rise
    return (
        beyond,
        f"{now:,.0f} trips a day, {change:+.1%} against the {usual:,.0f} of the months before (limits {-params.volume_drop:+.0%}, {params.volume_rise:+.0%})",
    )


def judge_null_block(now: float, before: float | None, params: MonitorParams) -> tuple[bool, str]:
    """Say whether the null block's share of trips moved too far."""
    if before is None:
        return False, f"the null block holds {now:.1%} of trips; no month before to compare with"
    moved = now - before
    return (
        abs(moved) > params.null_share_jump,
        f"the null block holds {now:.1%} of trips, {before:.1%} before (limit ±{params.null_share_jump:.0%})",
    )


def judge_champion(
    scores: Mapping[str, float], promoted: Mapping[str, float], params: MonitorParams
) -> dict[str, tuple[bool, str]]:
    """Hold the champion's scores on the month against those that it was promoted with."""
    ratio = scores["rmse"] / promoted["rmse"]
    covered = scores["coverage80"]
    return {
        "rmse": (
            ratio > params.rmse_ratio,
            f"RMSE {scores['rmse']:.2f} minutes, {ratio - 1:+.1%} against the {promoted['rmse']:.2f} it was promoted with (limit {params.rmse_ratio - 1:+.0%})",
        ),
        "coverage": (
            not params.coverage_low <= covered <= params.coverage_high,
            f"{covered:.1%} of trips inside the 80 % interval (limits {params.coverage_low:.0%} to {params.coverage_high:.0%})",
        ),
    }


def judge_slices(now: pd.DataFrame, before: pd.DataFrame, params: MonitorParams) -> tuple[bool, str]:
    """Say which slice got worse than the others since the month before, by the champion's RMSE on each."""
    both = now.join(before, rsuffix="_before", how="inner")
    both = both[(both["n"] >= params.slice_min_trips) & (both["n_before"] >= params.slice_min_trips)]
    ratio = both["rmse"] / both["rmse_before"]
    ratio = (
        ratio / ratio.median()
    )  # the month before may be among the trips it learnt from; slices are held to each other
    if not len(ratio):
        return False, "no slice has enough trips in both months"
    worst, most = str(ratio.idxmax()), float(ratio.max())
    return (
        most > params.slice_rmse_ratio,
        f"the slice that fell behind most is '{worst}': RMSE {most - 1:+.1%} against the others (limit {params.slice_rmse_ratio - 1:+.0%})",
    )


def judge_drift(drift: Drift, params: MonitorParams) -> dict[str, tuple[bool, str]]:
    """Hold the share of drifted inputs, and the prediction's drift, against their limits."""
    names = [name for name in drift.table.index[drift.table["drifted"]] if name != "prediction"]
    listed = f": {', '.join(names)}" if names else ""
    checks = {
        "input-drift": (
            drift.share > params.drifted_share,
            f"{drift.share:.0%} of inputs drifted{listed} (limit {params.drifted_share:.0%})",
        )
    }
    if drift.prediction is not None:
        said = f"predictions moved by {drift.prediction:.3f} standard deviations (limit {params.prediction_drift:.2f})"
        checks["prediction-drift"] = (drift.prediction > params.prediction_drift, said)
    return checks


def measure_moves(
    now: float,
    usual: float | None,
    null_now: float,
    null_before: float | None,
    rmse_ratio: float | None,
    drift: Drift | None,
) -> dict[str, float]:
    """Return the numbers behind the checks, by name, as far as there was something to compare with.

    ``volume`` is the relative change of trips a day, ``null_share`` the move of the null block's share of trips.
    """
    known = {
        "volume": now / usual - 1 if usual else None,
        "null_share": None if null_before is None else null_now - null_before,
        "rmse_ratio": rmse_ratio,
        "drifted_share": drift.share if drift else None,
        "prediction_drift": drift.prediction if drift else None,
    }
    return {name: float(value) for name, value in known.items() if value is not None}


def reach_verdict(checks: Mapping[str, tuple[bool, str]], has_champion: bool) -> Verdict:
    """Gather the checks (name to whether it alarms, and its sentence) into a verdict."""
    alarms = [name for name, (alarming, _) in checks.items() if alarming]
    verdict = "alarm" if alarms else "calm" if has_champion else "first"
    return Verdict(verdict, alarms, [f"{name}: {said}" for name, (_, said) in checks.items()])


def _volumes(settings: Settings, plan: Plan) -> pd.DataFrame:
    months = [*plan.earlier, plan.month]
    figures = {month: read_acceptance(settings.month(plan.service, month))["figures"] for month in months}
    rows = {
        month: {"trips a day": one["kept"] / len(one["by_day"]), "null block": one["null_share"], "trips": one["kept"]}
        for month, one in figures.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("month")


def _moves(volumes: pd.DataFrame) -> tuple[float, float | None, float, float | None]:
    """Return the month's trips a day, the usual ones, its null block, and the one before; None where nothing was before."""
    earlier, now = volumes.iloc[:-1], volumes.iloc[-1]
    usual = float(earlier["trips a day"].median()) if len(earlier) else None
    before = float(earlier["null block"].iloc[-1]) if len(earlier) else None
    return float(now["trips a day"]), usual, float(now["null block"]), before


def say_gap(checks: Checks, gap: str) -> Checks:
    """Return the checks; those that hold the month against earlier ones say which these are, if there is a ``gap``."""
    alone = ("rmse", "coverage")
    return {
        name: (alarming, said if name in alone or not gap else f"{said}; {gap}")
        for name, (alarming, said) in checks.items()
    }


def watch_champion(settings: Settings, plan: Plan, params: Params, champion: DurationModel | None) -> Watched:
    """Watch a champion on the plan's month against the newest month before it; writes nothing."""
    zones, limits = read_zones(settings.zones), params.monitor
    trips, volumes = read_months(settings, plan.service, [plan.month]), _volumes(settings, plan)
    moves = _moves(volumes)
    checks = {"volume": judge_volume(*moves[:2], limits), "null-block": judge_null_block(*moves[2:], limits)}
    shown = volumes.round({"trips a day": 0, "null block": 4})
    if champion is None:
        verdict = reach_verdict(say_gap(checks, plan.gap), False)
        return Watched(plan, trips, None, None, None, shown, verdict, measure_moves(*moves, None, None))
    predicted = champion.predict(trips)
    metrics, promoted = score(trips["duration"], predicted), (plan.incumbent or {})["metrics"]
    by_slice = score_by_slice(trips, predicted, zones, limits.slice_min_trips)
    checks |= judge_champion(metrics, promoted, limits)
    earlier = plan.earlier[-1:]
    reference = read_months(settings, plan.service, earlier) if earlier else judging_trips(settings, plan)
    reference = sample_trips(reference, 4 * limits.sample_rows, limits.seed)
    guessed = champion.predict(reference)
    checks["slice-rmse"] = judge_slices(
        by_slice, score_by_slice(reference, guessed, zones, limits.slice_min_trips), limits
    )
    drift = compare_months(
        describe_inputs(reference, zones, guessed["mean"]), describe_inputs(trips, zones, predicted["mean"]), limits
    )
    verdict = reach_verdict(say_gap(checks | judge_drift(drift, limits), plan.gap), True)
    numbers = measure_moves(*moves, metrics["rmse"] / promoted["rmse"], drift) | {"coverage": metrics["coverage80"]}
    seen = trips.assign(predicted=predicted["mean"])
    return Watched(plan, seen, metrics, by_slice, drift, shown, verdict, numbers)


def watch_month(settings: Settings, plan: Plan, params: Params) -> Watched:
    """Watch the champion that was in use when the month began; writes Evidently's page into the reports."""
    watched = watch_champion(settings, plan, params, load_incumbent(settings, plan))
    if watched.drift is not None:
        keep_run(watched.drift, settings.evidently, plan.service, plan.month)
    keep_page(watched.drift, settings.month(plan.service, plan.month).reports / "03-monitor-evidently.html")
    return watched
