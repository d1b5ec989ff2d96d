"""The alarms' catalogue: what each rule is about, whose it is and what to do; and what a rule finds."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from taxi.alarm_params import AlarmParams

Severity = Literal["info", "warning", "error"]
Owner = Literal["data", "model", "service", "operations"]
RANK: dict[Severity, int] = {"info": 0, "warning": 1, "error": 2}


@dataclass(frozen=True)
class Rule:
    """One rule: its name is also its section in the runbook; ``act`` says in one sentence what to do first."""

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
    Rule("error", "model", "Read 03-monitor by slice; see in 05-compare whether the challenger is better."),
    Rule("coverage", "model", "The interval lies: tell those who rely on it, and see whether a retrain mends it."),
    Rule("slice-error", "model", "Read the slice table in 03-monitor; look for what changed at that place or hour."),
    Rule("champion-old", "model", "See why no challenger was promoted since: 05-compare of the last months."),
    Rule("month-overdue", "operations", "Ask the source by hand (`taxi ingest`); look whether the daily flow runs."),
    Rule("retraining-stalled", "model", "Challengers do not mend it: look at data and features, or search a recipe."),
    Rule("check-did-not-run", "operations", "Run `taxi alarms check` by hand and find out why it was not run."),
    Rule("live-volume", "service", "Look whether callers reach the service; then whether the log takes rows."),
    Rule("live-error", "model", "Roll back if the version is new (`taxi rollback`); else start a retrain."),
    Rule("live-coverage", "model", "Roll back if the version is new (`taxi rollback`); else start a retrain."),
    Rule("live-latency", "service", "Look at the machine's load and at the version that came last."),
    Rule("channel-dead", "operations", "Mend the address and run `taxi alarms drill`; messages wait until then."),
)
RULES: dict[str, Rule] = {rule.name: rule for rule in _RULES}


@dataclass(frozen=True)
class Finding:
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


Checked = dict[str, Finding | None]


def grade(value: float, warn: float, error: float) -> Severity | None:
    """Return how grave a value is that is low when all is well; None: not at all."""
    return "error" if value >= error else "warning" if value >= warn else None


def explain(rule: str, params: AlarmParams) -> dict[str, str]:
    """Return what goes with every message of a rule: its owner, what to do, and the runbook's section."""
    one = RULES[rule]
    return {"owner": getattr(params.owners, one.owner), "act": one.act, "runbook": f"{params.runbook}#{one.name}"}
