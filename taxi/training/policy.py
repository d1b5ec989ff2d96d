"""Retraining policy: when a challenger is trained, a pure decision, recorded with all that it was made from, so that it can be replayed.

A retrain between months is asked for by ``taxi.training.retraining``, which decides by the same policy.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from taxi.data.month_rules import RuleFinding
from taxi.files import as_json, from_json
from taxi.months import months_apart
from taxi.params import RetrainParams

Trigger = Literal["first", "alarm", "age", "schedule", "none", "held"]
FAULTS = ("share-", "kept-share", "missing-days", "night-share", "vendors", "lost-columns")


@dataclass(frozen=True)
class Facts:
    """What is known of a month before it is decided: nothing else may sway the decision.

    ``alarms`` are the checks that 03-monitor raised, ``quality`` the acceptance rules that found faults in the records.
    ``incumbent`` holds at least ``trained_to``; None: no champion yet, or none was looked for (a refused month). ``last_trained`` is the newest month before in
    which a challenger was trained, promoted or not.
    """

    month: str
    alarms: tuple[str, ...]
    quality: tuple[str, ...]
    incumbent: dict[str, Any] | None
    last_trained: str | None = None

    @property
    def age(self) -> int | None:
        """Return the champion's age: months since the newest one that it was trained on."""
        return None if self.incumbent is None else months_apart(self.incumbent["trained_to"], self.month)

    @property
    def waited(self) -> int | None:
        """Return the months since a challenger was trained last; one that was not promoted counts too."""
        newest = max(filter(None, [(self.incumbent or {}).get("trained_to"), self.last_trained]), default=None)
        return None if newest is None else months_apart(newest, self.month)


@dataclass(frozen=True)
class TrainingDecision:
    """Train or not, why in words, and what set it off; with the facts and the parameters that it was made from."""

    train: bool
    reason: str
    trigger: Trigger
    facts: Facts
    retrain: RetrainParams

    def as_dict(self) -> dict[str, Any]:
        """Return the decision and its inputs as JSON-able values: what ``of`` takes."""
        return dict(as_json(self))

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> "TrainingDecision":
        """Return a recorded decision (``as_dict``)."""
        return from_json(record, cls)


def find_faults(findings: Sequence[RuleFinding]) -> tuple[str, ...]:
    """Return the acceptance rules that refused the month, or that warned of faults in its records.

    Warnings that say that the month is unlike the ones before (fewer trips, other zones) are not among them: in 2020-04
    the city had changed, and its records were sound.
    """
    return tuple(
        finding.rule
        for finding in findings
        if finding.level == "refuse" or (finding.level == "warn" and finding.rule.startswith(FAULTS))
    )


def gather_facts(
    month: str,
    alarms: Sequence[str],
    findings: Sequence[RuleFinding],
    incumbent: Mapping[str, Any] | None,
    trained: Iterable[str],
) -> Facts:
    """Return the facts of a month from the monitor's alarms, the acceptance rules' findings and the champion.

    ``trained`` are the months in which a challenger was trained; those before the month count.
    """
    earlier = [trained_in for trained_in in trained if trained_in < month]
    known = {name: incumbent.get(name) for name in ("version", "trained_from", "trained_to")} if incumbent else None
    return Facts(month, tuple(alarms), find_faults(findings), known, max(earlier, default=None))


def _ruling(facts: Facts, retrain: RetrainParams) -> tuple[Trigger, str]:
    if facts.quality:
        return "held", f"the month's records are in doubt ({', '.join(facts.quality)}), and nothing is learnt from them"
    if facts.incumbent is None:
        return "first", "no champion yet"
    trained_to = facts.incumbent["trained_to"]
    if retrain.policy == "never":
        return "none", f"by params.yaml the champion, trained to {trained_to}, is never replaced"
    if retrain.policy == "always":
        return "schedule", "by params.yaml a challenger is trained every month"
    if retrain.every_months and (facts.waited or 0) >= retrain.every_months:
        due = "every month" if retrain.every_months == 1 else f"every {retrain.every_months} months"
        return "schedule", f"the champion was trained to {trained_to}; a new one is due {due}"
    heard = [name for name in facts.alarms if name in retrain.on_alarm]
    if facts.age == 1:  # the same months, so the very same model
        alarmed = f"alarm: {', '.join(heard)}; but " if heard else ""
        return (
            "none",
            f"{alarmed}a challenger would learn from the months that the champion, trained to {trained_to}, knows",
        )
    return ("alarm", f"alarm: {', '.join(heard)}") if heard else _by_age(facts, retrain, trained_to)


def _by_age(facts: Facts, retrain: RetrainParams, trained_to: str) -> tuple[Trigger, str]:
    age, waited = facts.age or 0, facts.waited or 0
    since = "" if waited == age else f", and the last challenger was trained {_months(waited)} ago"
    if retrain.oldest_months and min(age, waited) >= retrain.oldest_months:
        return "age", f"the champion was trained to {trained_to}, {_months(age)} ago{since}"
    heard = f"alarms ({', '.join(facts.alarms)}) do not count by params.yaml" if facts.alarms else "no alarm"
    return "none", f"{heard}, and the champion was trained to {trained_to}{since}"


def _months(count: int) -> str:
    return f"{count} month{'' if count == 1 else 's'}"


def decide_training(facts: Facts, retrain: RetrainParams) -> TrainingDecision:
    """Decide whether a challenger is trained: never on records in doubt, else when one is due, on an alarm, or by age.

    A champion trained to the month before is only replaced on schedule: a challenger would learn from the same months.
    """
    trigger, reason = _ruling(facts, retrain)
    return TrainingDecision(trigger not in ("none", "held"), reason, trigger, facts, retrain)


def replay(decision: TrainingDecision) -> TrainingDecision:
    """Decide again from the inputs of a decision; the same code decides the same."""
    return decide_training(decision.facts, decision.retrain)
