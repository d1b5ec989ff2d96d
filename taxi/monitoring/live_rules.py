"""Alarm rules for live traffic: RMSE, coverage and latency of each arm, and how many predictions came."""

from collections.abc import Mapping, Sequence
from statistics import median

import pandas as pd

from taxi.models.evaluate import score
from taxi.monitoring.alarm_rules import Alarm, Checked, Severity, grade
from taxi.outputs import OUTPUTS
from taxi.params import AlarmParams, MonitorParams
from taxi.predictions.arms import ARMS

WEEKS = 4


def newest_of_arm(rows: pd.DataFrame, arm: str, most: int) -> pd.DataFrame:
    """Return the arm's newest rows of the version that served last; older versions' rows say nothing of what serves."""
    own = rows[rows["arm"] == arm].sort_values("made_at", kind="stable")
    return own[own["version"] == own["version"].iloc[-1]].tail(most) if len(own) else own


def judge_arm_rmse(own: pd.DataFrame, arm: str, promoted: float, alarms: AlarmParams) -> Alarm | None:
    """Hold the arm's RMSE (minutes) on judged trips against the one that its version was registered with."""
    rmse = score(own["duration"], own[OUTPUTS])["rmse"]
    severity = grade(rmse / promoted, *alarms.live_rmse_ratio)
    if severity is None:
        return None
    said = (
        f"version {own['version'].iloc[-1]}: RMSE {rmse:.2f} minutes on its newest {len(own):,} judged trips, "
        f"{rmse / promoted - 1:+.1%} against the {promoted:.2f} it was registered with"
    )
    numbers = {"rmse": rmse, "promoted": promoted, "trips": float(len(own))}
    return Alarm("live-rmse", severity, said, part=arm, numbers=numbers)


def judge_arm_coverage(own: pd.DataFrame, arm: str, monitor: MonitorParams, alarms: AlarmParams) -> Alarm | None:
    """Say whether the 80 % interval holds too few or too many of the arm's judged trips."""
    covered = score(own["duration"], own[OUTPUTS])["coverage80"]
    low, high = alarms.coverage_error
    if monitor.coverage_low <= covered <= monitor.coverage_high:
        return None
    limits = f"limits {monitor.coverage_low:.0%} to {monitor.coverage_high:.0%}"
    said = f"{covered:.1%} of its newest {len(own):,} judged trips inside the 80 % interval ({limits})"
    numbers = {"coverage": covered, "trips": float(len(own))}
    severity: Severity = "warning" if low <= covered <= high else "error"
    return Alarm("live-coverage", severity, said, part=arm, numbers=numbers)


def judge_arm_latency(own: pd.DataFrame, arm: str, alarms: AlarmParams) -> Alarm | None:
    """Hold the 99th percentile of the arm's latency (milliseconds) against its limits."""
    p99 = float(own["latency_ms"].quantile(0.99))
    severity = grade(p99, *alarms.live_p99_ms)
    if severity is None:
        return None
    said = f"p99 of the newest {len(own):,} predictions is {p99:.0f} ms (limit {alarms.live_p99_ms[0]:g})"
    return Alarm("live-latency", severity, said, part=arm, numbers={"p99_ms": p99, "trips": float(len(own))})


def judge_arms(
    made: pd.DataFrame,
    judged: pd.DataFrame,
    promoted: Mapping[int, float],
    monitor: MonitorParams,
    alarms: AlarmParams,
) -> Checked:
    """Return what the rules found of each arm; an arm that predicted nothing lately is not in use, and all is well with it.

    ``made``: predictions (arm, version, made_at, latency_ms); ``judged``: those with outcomes, and what was predicted.
    ``promoted``: RMSE (minutes) by registered version. Fewer than ``live_least`` trips are not judged.
    """
    found: Checked = {}
    for arm in ARMS:
        latest, known = (newest_of_arm(rows, arm, alarms.live_trips) for rows in (made, judged))
        if not len(latest):
            found |= {f"{rule}/{arm}": None for rule in ("live-rmse", "live-coverage", "live-latency")}
            continue
        timed = latest.dropna(subset=["latency_ms"])
        if len(timed) >= alarms.live_least:
            found[f"live-latency/{arm}"] = judge_arm_latency(timed, arm, alarms)
        known = known[known["version"] == latest["version"].iloc[-1]]
        if len(known) >= alarms.live_least:
            version = int(known["version"].iloc[-1])
            if version in promoted:
                found[f"live-rmse/{arm}"] = judge_arm_rmse(known, arm, promoted[version], alarms)
            found[f"live-coverage/{arm}"] = judge_arm_coverage(known, arm, monitor, alarms)
    return found


def usual_volume(weeks: Sequence[int], of_month: float | None) -> tuple[float | None, str]:
    """Return how many predictions an hour usually has, and by what: the same hour of the weeks before, or the month's trips."""
    if known := [count for count in weeks if count]:
        return float(median(known)), f"the same hour of {len(known)} weeks before"
    return (of_month, "an hour of the newest month's trips") if of_month else (None, "")


def judge_live_volume(now: int, weeks: Sequence[int], of_month: float | None, alarms: AlarmParams) -> Checked:
    """Hold the predictions of the last hour against the usual; nothing where too few are usual to tell."""
    usual, by = usual_volume(weeks, of_month)
    if usual is None or usual < alarms.live_volume_least:
        return {}
    warn, error = alarms.live_volume
    share = now / usual
    if share > warn:
        return {"live-volume": None}
    said = f"{now:,} predictions in the last hour, {share:.0%} of the {usual:,.0f} that {by} had"
    severity: Severity = "error" if share <= error else "warning"
    numbers = {"predictions": float(now), "usual": usual}
    return {"live-volume": Alarm("live-volume", severity, said, numbers=numbers)}
