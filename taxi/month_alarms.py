"""What a month's result says to the alarms' rules; pure functions. A rule that could not look says nothing at all."""

from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import PurePath
from typing import Any

from taxi.alarm_params import AlarmParams
from taxi.alarm_rules import Checked, Finding, Severity, grade
from taxi.months import month_bounds, months_apart, shift_month

Result = Mapping[str, Any]
MONITORED = {
    "volume": "volume",
    "null-block": "null-block",
    "input-drift": "input-drift",
    "prediction-drift": "prediction-drift",
    "rmse": "error",
    "coverage": "coverage",
    "slice-rmse": "slice-error",
}
LEARNABLE = {"rmse", "coverage", "slice-rmse", "prediction-drift"}


def _page(result: Result, name: str) -> str | None:
    return next((page for page in result["reports"] if PurePath(page).stem == name), None)


def _quality(result: Result) -> tuple[str, ...]:
    return tuple(result.get("decision", {}).get("facts", {}).get("quality", ()))


def judge_quality(result: Result) -> Finding | None:
    """An error where the month was refused; a warning where its records have more faults than usual."""
    month, faults = result["month"], _quality(result)
    if result["status"] == "refused":
        return Finding("data-quality", "error", result["reason"], month, report=_page(result, "refused"))
    said = [line for line in result.get("warnings", ()) if line.startswith(faults)] if faults else []
    if not said:
        return None
    return Finding("data-quality", "warning", "; ".join(said), month, report=_page(result, "01-explore"))


def judge_unlike(result: Result) -> Finding | None:
    """A warning where the month was accepted though it is unlike the months before."""
    faults = _quality(result)
    said = [line for line in result.get("warnings", ()) if not (faults and line.startswith(faults))]
    if not said:
        return None
    return Finding("unlike-before", "warning", "; ".join(said), result["month"], report=_page(result, "01-explore"))


def _gravity(check: str, numbers: Mapping[str, float], alarms: AlarmParams) -> Severity:
    low, high = alarms.coverage_error
    grave = {
        "volume": numbers.get("volume", 0.0) <= -alarms.volume_error,
        "rmse": numbers.get("rmse_ratio", 0.0) >= alarms.rmse_error,
        "coverage": not low <= numbers.get("coverage", low) <= high,
    }
    return "error" if grave.get(check) else "warning"


def judge_monitor(result: Result, alarms: AlarmParams) -> Checked:
    """Return what 03-monitor found, check by check: a warning from its limits on, an error from those of ``alarms`` on."""
    found: Checked = {}
    numbers = result.get("numbers") or {}
    for line in result["alarm_reasons"]:
        check, _, said = line.partition(": ")
        rule = MONITORED[check]
        found[rule] = None
        if check in result["alarms"]:
            grave = _gravity(check, numbers, alarms)
            page = _page(result, "03-monitor")
            found[rule] = Finding(rule, grave, said, result["month"], numbers=numbers, report=page)
    return found


def judge_age(result: Result, alarms: AlarmParams) -> Finding | None:
    """Say whether the champion, as the month leaves it, was trained too long ago."""
    incumbent = result["decision"]["facts"]["incumbent"]
    age = 0 if result["promoted"] or incumbent is None else months_apart(incumbent["trained_to"], result["month"])
    severity = grade(age, *alarms.champion_months)
    if severity is None:
        return None
    said = (
        f"version {incumbent['version']} was trained to {incumbent['trained_to']}, {age} months ago; {result['reason']}"
    )
    page = _page(result, "05-compare") or _page(result, "03-monitor")
    return Finding("champion-old", severity, said, result["month"], numbers={"months": age}, report=page)


def judge_stalled(results: Sequence[Result], alarms: AlarmParams) -> Finding | None:
    """Say whether alarms that a retrain should mend have stood for so many months in which nothing was promoted."""
    last = results[-alarms.stalled_months :]
    standing = [sorted(LEARNABLE & set(one["alarms"])) for one in last]
    if len(last) < alarms.stalled_months or not all(standing) or any(one["promoted"] for one in last):
        return None
    tried = sum(bool(one.get("trained")) for one in last)
    said = (
        f"alarms in each of the last {len(last)} months, {last[0]['month']} to {last[-1]['month']} "
        f"({', '.join(standing[-1])} in the last); {tried} challengers were trained and none was promoted"
    )
    page = _page(last[-1], "05-compare") or _page(last[-1], "03-monitor")
    return Finding("retraining-stalled", "warning", said, last[-1]["month"], report=page)


def judge_check(result: Result, unchecked: Sequence[str]) -> Finding | None:
    """Say whether a month was done and nobody looked: without the monitor's result, or before this one without a check."""
    missed = [*unchecked, *([result["month"]] if not result.get("alarm_reasons") else [])]
    if not missed:
        return None
    said = f"done and not watched: {', '.join(missed)}"
    return Finding("check-did-not-run", "error", said, result["month"], numbers={"months": len(missed)})


def judge_month(results: Mapping[str, Result], month: str, unchecked: Sequence[str], alarms: AlarmParams) -> Checked:
    """Return what each rule that could look found in the month; ``results`` are those of its service, by month.

    ``unchecked`` are months run before it whose alarms nobody looked at. A refused month says nothing of the champion.
    """
    result = results[month]
    found: Checked = {"data-quality": judge_quality(result)}
    if result["status"] != "done":
        return found
    done = [one for name, one in sorted(results.items()) if name <= month and one["status"] == "done"]
    found |= judge_monitor(result, alarms) if result.get("alarm_reasons") else {}
    found |= {"champion-old": judge_age(result, alarms)} if result.get("decision") else {}
    return found | {
        "unlike-before": judge_unlike(result),
        "retraining-stalled": judge_stalled(done, alarms),
        "check-did-not-run": judge_check(result, unchecked),
    }


def judge_overdue(months: Sequence[str], today: date, alarms: AlarmParams) -> Checked:
    """Say whether the month after the newest that was run should have been there long ago; nothing where none was run."""
    if not months:
        return {}
    due = shift_month(max(months), 1)
    days = (today - month_bounds(due)[1].date()).days
    severity = grade(days, *alarms.overdue_days)
    if severity is None:
        return {"month-overdue": None}
    said = f"{due} was not run, {days} days after its end (expected within {alarms.overdue_days[0]})"
    return {"month-overdue": Finding("month-overdue", severity, said, due, numbers={"days": days})}
