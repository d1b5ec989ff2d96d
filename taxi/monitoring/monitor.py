"""Monitor of the champion on a month it never saw: scores, drift, volume, and a verdict with reasons."""

from collections.abc import Mapping, Sequence
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
from taxi.training.step_result import Check, Verdict, list_alarms, make_check
from taxi.training.train import judging_trips, load_incumbent, read_months

# --- What the monitor found in a month: everything that its notebook shows and records.


@dataclass(frozen=True)
class Watched:
    """Everything that the monitor's notebook shows of a month."""

    plan: Plan
    trips: pd.DataFrame
    metrics: dict[str, float] | None
    by_slice: pd.DataFrame | None
    drift: Drift | None
    volume_table: pd.DataFrame
    checks: list[Check]

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

    @property
    def verdict(self) -> Verdict:
        """What the checks amount to."""
        return reach_verdict(self.checks, self.plan.incumbent is not None)

    @cached_property
    def verdict_text(self) -> str:
        """The verdict as Markdown."""
        lines = [f"- **{check}**" if check.alarms else f"- {check}" for check in self.checks]
        sampled = [f"\nDrift compares {self.drift.note}."] if self.drift else []
        return "\n".join([f"**{self.verdict.upper()}**", "", *lines, *sampled])

    @cached_property
    def result(self) -> dict[str, Any]:
        """What the notebook records."""
        checks = [check.model_dump(mode="json") for check in self.checks]
        return {"verdict": self.verdict, "checks": checks, "metrics": self.metrics}


def judge_volume(now: float, usual: float | None, params: MonitorParams) -> Check:
    """Say whether the trips a day fell or rose too far against the usual."""
    low, high = -params.volume_drop, params.volume_rise
    if not usual:
        sentence = f"{now:,.0f} trips a day; no month before to compare with"
        return make_check("volume", None, (low, high), sentence)
    change = now / usual - 1
    sentence = f"{now:,.0f} trips a day, {change:+.1%} against the {usual:,.0f} of the months before (limits {low:+.0%}, {high:+.0%})"
    return make_check("volume", change, (low, high), sentence)


def judge_null_block(now: float, before: float | None, params: MonitorParams) -> Check:
    """Say whether the null block's share of trips moved too far."""
    limit = (-params.null_share_jump, params.null_share_jump)
    if before is None:
        sentence = f"the null block holds {now:.1%} of trips; no month before to compare with"
        return make_check("null-block", None, limit, sentence)
    sentence = f"the null block holds {now:.1%} of trips, {before:.1%} before (limit ±{params.null_share_jump:.0%})"
    return make_check("null-block", now - before, limit, sentence)


def judge_rmse(scores: Mapping[str, float], promoted: Mapping[str, float], params: MonitorParams) -> Check:
    """Hold the champion's RMSE (minutes) on the month against the one that it was promoted with."""
    ratio = scores["rmse"] / promoted["rmse"]
    sentence = f"RMSE {scores['rmse']:.2f} minutes, {ratio - 1:+.1%} against the {promoted['rmse']:.2f} it was promoted with (limit {params.rmse_ratio - 1:+.0%})"
    return make_check("rmse", ratio, (None, params.rmse_ratio), sentence)


def judge_coverage(scores: Mapping[str, float], params: MonitorParams) -> Check:
    """Say whether the 80 % interval holds too few or too many of the month's trips."""
    covered, low, high = scores["coverage80"], params.coverage_low, params.coverage_high
    sentence = f"{covered:.1%} of trips inside the 80 % interval (limits {low:.0%} to {high:.0%})"
    return make_check("coverage", covered, (low, high), sentence)


def judge_slices(now: pd.DataFrame, before: pd.DataFrame, params: MonitorParams) -> Check:
    """Say which slice got worse than the others since the month before, by the champion's RMSE on each."""
    limit = (None, params.slice_rmse_ratio)
    both = now.join(before, rsuffix="_before", how="inner")
    both = both[(both["n"] >= params.slice_min_trips) & (both["n_before"] >= params.slice_min_trips)]
    ratio = both["rmse"] / both["rmse_before"]
    # the month before may be among the trips it learnt from; slices are held to each other
    ratio = ratio / ratio.median()
    if not len(ratio):
        return make_check("slice-rmse", None, limit, "no slice has enough trips in both months")
    worst, most = str(ratio.idxmax()), float(ratio.max())
    sentence = f"the slice that fell behind most is '{worst}': RMSE {most - 1:+.1%} against the others (limit {params.slice_rmse_ratio - 1:+.0%})"
    return make_check("slice-rmse", most, limit, sentence)


def judge_drift(drift: Drift, params: MonitorParams) -> list[Check]:
    """Hold the share of drifted inputs, and the prediction's drift, against their limits."""
    names = [name for name in drift.table.index[drift.table["drifted"]] if name != "prediction"]
    listed = f": {', '.join(names)}" if names else ""
    sentence = f"{drift.share:.0%} of inputs drifted{listed} (limit {params.drifted_share:.0%})"
    checks = [make_check("input-drift", drift.share, (None, params.drifted_share), sentence)]
    if drift.prediction is not None:
        sentence = (
            f"predictions moved by {drift.prediction:.3f} standard deviations (limit {params.prediction_drift:.2f})"
        )
        checks.append(make_check("prediction-drift", drift.prediction, (None, params.prediction_drift), sentence))
    return checks


def reach_verdict(checks: Sequence[Check], has_champion: bool) -> Verdict:
    """Return what the checks amount to: ``alarm``, ``calm``, or ``first`` where there is no champion yet."""
    return "alarm" if list_alarms(checks) else "calm" if has_champion else "first"


def _volumes(settings: Settings, plan: Plan) -> pd.DataFrame:
    months = [*plan.earlier, plan.month]
    figures = {month: read_acceptance(settings.month(plan.service, month)).counted for month in months}
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


def say_gap(checks: Sequence[Check], gap: str) -> list[Check]:
    """Return the checks; those that hold the month against earlier ones say which these are, if there is a ``gap``."""
    alone = ("rmse", "coverage")
    return [
        check if check.rule in alone or not gap else check.model_copy(update={"sentence": f"{check.sentence}; {gap}"})
        for check in checks
    ]


def watch_champion(settings: Settings, plan: Plan, params: Params, champion: DurationModel | None) -> Watched:
    """Watch a champion on the plan's month against the newest month before it; writes nothing."""
    zones, limits = read_zones(settings.zones), params.monitor
    trips, volumes = read_months(settings, plan.service, [plan.month]), _volumes(settings, plan)
    moves = _moves(volumes)
    checks = [judge_volume(*moves[:2], limits), judge_null_block(*moves[2:], limits)]
    shown = volumes.round({"trips a day": 0, "null block": 4})
    if champion is None:
        return Watched(plan, trips, None, None, None, shown, say_gap(checks, plan.gap))
    assert plan.incumbent is not None
    predicted = champion.predict(trips)
    metrics = score(trips["duration"], predicted)
    by_slice = score_by_slice(trips, predicted, zones, limits.slice_min_trips)
    checks += [judge_rmse(metrics, plan.incumbent["metrics"], limits), judge_coverage(metrics, limits)]
    earlier = plan.earlier[-1:]
    reference = read_months(settings, plan.service, earlier) if earlier else judging_trips(settings, plan)
    reference = sample_trips(reference, 4 * limits.sample_rows, limits.seed)
    guessed = champion.predict(reference)
    by_slice_before = score_by_slice(reference, guessed, zones, limits.slice_min_trips)
    drift = compare_months(
        describe_inputs(reference, zones, guessed["mean"]), describe_inputs(trips, zones, predicted["mean"]), limits
    )
    checks += [judge_slices(by_slice, by_slice_before, limits), *judge_drift(drift, limits)]
    seen = trips.assign(predicted=predicted["mean"])
    return Watched(plan, seen, metrics, by_slice, drift, shown, say_gap(checks, plan.gap))


def watch_month(settings: Settings, plan: Plan, params: Params) -> Watched:
    """Watch the champion that was in use when the month began; writes Evidently's page into the reports."""
    watched = watch_champion(settings, plan, params, load_incumbent(settings, plan))
    if watched.drift is not None:
        keep_run(watched.drift, settings.evidently, plan.service, plan.month)
    keep_page(watched.drift, settings.month(plan.service, plan.month).reports / "03-monitor-evidently.html")
    return watched
