"""Alarm rules for a month's result; pure functions. A rule that could not look says nothing at all."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date, datetime
from pathlib import PurePath
from typing import Any, Literal

from taxi.months import month_bounds, months_apart, shift_month
from taxi.params import AlarmParams
from taxi.runs.month_result import MonthResult
from taxi.training.step_result import Check, Severity

# --- The alarms' catalogue: what each rule is about, whose it is and what to do; and what a rule finds.

Owner = Literal["data", "model", "service", "operations"]
RANK: dict[Severity, int] = {"info": 0, "warning": 1, "error": 2}


@dataclass(frozen=True)
class Rule:
    """One rule: its name is its id everywhere, and its section in the runbook; ``act`` says in one sentence what to do first."""

    name: str
    owner: Owner
    act: str


_RULES = (
    Rule("data-quality", "data", "Read the month's page; ask the publisher; nothing was learnt from the month."),
    Rule(
        "unlike-before", "data", "Look at 01-explore for what changed in the city; nothing is wrong with the records."
    ),
    Rule("volume", "data", "Compare with the news and other services; a fall without a cause is lost rows."),
    Rule("null-block", "data", "Look at 01-explore: the share of trips without a passenger count has moved."),
    Rule("input-drift", "model", "Read the table of drifted inputs in 03-monitor; see whether the error moved too."),
    Rule("prediction-drift", "model", "Read 03-monitor: do durations move the same way as predictions?"),
    Rule("rmse", "model", "Read 03-monitor by slice; see in 05-compare whether the challenger is better."),
    Rule("coverage", "model", "The interval lies: tell those who rely on it, and see whether a retrain mends it."),
    Rule("slice-rmse", "model", "Read the slice table in 03-monitor; look for what changed at that place or hour."),
    Rule("champion-old", "model", "See why no challenger was promoted since: 05-compare of the last months."),
    Rule("month-overdue", "operations", "Ask the source by hand (`taxi ingest`); look whether the daily flow runs."),
    Rule("retraining-stalled", "model", "Challengers do not mend it: look at data and features, or search a recipe."),
    Rule("check-did-not-run", "operations", "Run `taxi alarms check` by hand and find out why it was not run."),
    Rule("live-volume", "service", "Look whether callers reach the service; then whether the log takes rows."),
    Rule("live-rmse", "model", "Roll back if the version is new (`taxi rollback`); else start a retrain."),
    Rule("live-coverage", "model", "Roll back if the version is new (`taxi rollback`); else start a retrain."),
    Rule("live-latency", "service", "Look at the machine's load and at the version that came last."),
    Rule("channel-dead", "operations", "Mend the address and run `taxi alarms drill`; messages wait until then."),
)
RULES: dict[str, Rule] = {rule.name: rule for rule in _RULES}


@dataclass(frozen=True)
class Alarm:
    """That a rule goes off: how grave it is, a sentence with the numbers, and the report to read.

    ``part`` tells apart alarms of one rule in one service (an arm, a channel). ``month`` is None for live ones.
    """

    rule: str
    severity: Severity
    said: str
    month: str | None = None
    part: str = ""
    numbers: Mapping[str, float] = field(default_factory=dict)
    report: str | None = None

    @property
    def key(self) -> str:
        """Return what the alarm is known again by within its service."""
        return f"{self.rule}/{self.part}" if self.part else self.rule

    def as_dict(self) -> dict[str, Any]:
        """Return the finding as JSON-able names and values."""
        return asdict(self) | {"numbers": dict(self.numbers)}


Checked = dict[str, Alarm | None]


def grade(value: float, warn: float, error: float) -> Severity | None:
    """Return how grave a value is that is low when all is well; None: not at all."""
    return "error" if value >= error else "warning" if value >= warn else None


def explain(rule: str, params: AlarmParams) -> dict[str, str]:
    """Return what goes with every message of a rule: its owner, what to do, and the runbook's section."""
    one = RULES[rule]
    return {"owner": getattr(params.owners, one.owner), "act": one.act, "runbook": f"{params.runbook}#{one.name}"}


LEARNABLE = {"rmse", "coverage", "slice-rmse", "prediction-drift"}


def _page(result: MonthResult, name: str) -> str | None:
    return next((page for page in result.reports if PurePath(page).stem == name), None)


def _warnings(result: MonthResult, faults: bool) -> str:
    """Return the sentences of the acceptance rules' warnings: of those that doubt the records, or of the others."""
    quality = result.decision.facts.quality if result.decision else ()
    return "; ".join(str(one) for one in result.findings if one.level == "warn" and (one.rule in quality) is faults)


def judge_quality(result: MonthResult) -> Alarm | None:
    """An error where the month was refused; a warning where its records have more faults than usual."""
    if result.status == "refused":
        return Alarm("data-quality", "error", result.reason, result.month, report=_page(result, "refused"))
    if not (said := _warnings(result, faults=True)):
        return None
    return Alarm("data-quality", "warning", said, result.month, report=_page(result, "01-explore"))


def judge_unlike(result: MonthResult) -> Alarm | None:
    """A warning where the month was accepted though it is unlike the months before."""
    if not (said := _warnings(result, faults=False)):
        return None
    return Alarm("unlike-before", "warning", said, result.month, report=_page(result, "01-explore"))


def _gravity(check: Check, alarms: AlarmParams) -> Severity:
    low, high = alarms.coverage_error
    grave = {
        "volume": check.numbers.get("volume", 0.0) <= -alarms.volume_error,
        "rmse": check.numbers.get("rmse_ratio", 0.0) >= alarms.rmse_error,
        "coverage": not low <= check.numbers.get("coverage", low) <= high,
    }
    return "error" if grave.get(check.rule) else "warning"


def judge_monitor(result: MonthResult, alarms: AlarmParams) -> Checked:
    """Return what 03-monitor found, check by check: a warning from its limits on, an error from those of ``alarms`` on."""
    page = _page(result, "03-monitor")
    return {
        check.rule: Alarm(
            check.rule,
            _gravity(check, alarms),
            check.sentence,
            result.month,
            numbers=check.numbers,
            report=page,
        )
        if check.alarms
        else None
        for check in result.checks
    }


def judge_age(result: MonthResult, alarms: AlarmParams) -> Alarm | None:
    """Say whether the champion, as the month leaves it, was trained too long ago."""
    incumbent = result.decision.facts.incumbent if result.decision and not result.promoted else None
    age = months_apart(incumbent["trained_to"], result.month) if incumbent else 0
    severity = grade(age, *alarms.champion_months)
    if incumbent is None or severity is None:
        return None
    said = f"version {incumbent['version']} was trained to {incumbent['trained_to']}, {age} months ago; {result.reason}"
    page = _page(result, "05-compare") or _page(result, "03-monitor")
    return Alarm("champion-old", severity, said, result.month, numbers={"months": age}, report=page)


def judge_stalled(results: Sequence[MonthResult], alarms: AlarmParams) -> Alarm | None:
    """Say whether alarms that a retrain should mend have stood for so many months in which nothing was promoted."""
    last = results[-alarms.stalled_months :]
    standing = [sorted(LEARNABLE & set(one.alarms)) for one in last]
    if len(last) < alarms.stalled_months or not all(standing) or any(one.promoted for one in last):
        return None
    tried = sum(one.trained for one in last)
    said = (
        f"alarms in each of the last {len(last)} months, {last[0].month} to {last[-1].month} "
        f"({', '.join(standing[-1])} in the last); {tried} challengers were trained and none was promoted"
    )
    page = _page(last[-1], "05-compare") or _page(last[-1], "03-monitor")
    return Alarm("retraining-stalled", "warning", said, last[-1].month, report=page)


def judge_check(result: MonthResult, unchecked: Sequence[str]) -> Alarm | None:
    """Say whether a month was done and nobody looked: without the monitor's result, or before this one without a check."""
    missed = [*unchecked, *([result.month] if not result.checks else [])]
    if not missed:
        return None
    said = f"done and not watched: {', '.join(missed)}"
    return Alarm("check-did-not-run", "error", said, result.month, numbers={"months": len(missed)})


def judge_result(
    results: Mapping[str, MonthResult], month: str, unchecked: Sequence[str], alarms: AlarmParams
) -> Checked:
    """Return what each rule that could look found in the month; ``results`` are those of its service, by month.

    ``unchecked`` are months run before it whose alarms nobody looked at. A refused month says nothing of the champion.
    """
    result = results[month]
    found: Checked = {"data-quality": judge_quality(result)}
    if result.status != "done":
        return found
    done = [one for name, one in sorted(results.items()) if name <= month and one.status == "done"]
    found |= judge_monitor(result, alarms) if result.checks else {}
    found |= {"champion-old": judge_age(result, alarms)} if result.decision else {}
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
    return {"month-overdue": Alarm("month-overdue", severity, said, due, numbers={"days": days})}


Json = dict[str, Any]


@dataclass(frozen=True)
class Message:
    """What is told, once: that an alarm was raised, that it got worse, or that it recovered."""

    id: str
    at: str
    kind: str
    service: str
    rule: str
    severity: str
    month: str | None
    part: str
    said: str
    numbers: dict[str, float]
    report: str | None
    owner: str
    act: str
    runbook: str

    @property
    def title(self) -> str:
        """Return the message in one line."""
        where = " ".join(filter(None, [self.service, self.month, self.part]))
        return f"[{self.severity if self.kind in ('raised', 'worse') else self.kind}] {where}: {self.rule}"

    @property
    def body(self) -> str:
        """Return the message's text: numbers, report, owner, what to do, runbook."""
        told = {"report": self.report, "owner": self.owner, "do": self.act, "runbook": self.runbook}
        if self.kind == "recovered":
            told = {"report": self.report}
        return "\n".join([self.said, *(f"{name}: {value}" for name, value in told.items() if value)])


def make_message(kind: str, service: str, finding: Alarm, at: datetime, alarms: AlarmParams) -> Message:
    """Return the message about a finding, with its rule's owner, first step and runbook section."""
    known: Json = finding.as_dict() | explain(finding.rule, alarms)
    return Message(uuid.uuid4().hex, at.isoformat(timespec="seconds"), kind, service, **known)
