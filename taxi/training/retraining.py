"""Retrain between months: whether an alarm calls for one, what it may learn from, and what it leaves.

The monthly run never trains on the month that judges, so it mends a change one month late. A retrain takes the newest month
on hand too, but for its last days, which judge by the same gate.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from taxi.config import Settings
from taxi.data.month_rules import RuleFinding
from taxi.files import append_json, from_json
from taxi.fingerprint import kept_result
from taxi.months import shift_month
from taxi.params import RetrainParams
from taxi.registry.events import now
from taxi.registry.versions import Version, pick_champion
from taxi.training.plan import Plan
from taxi.training.policy import Facts, TrainingDecision, decide_training, gather_facts
from taxi.training.step_result import MEASURES, CompareResult, current_rule

MENDABLE = {rule: rule for rule in MEASURES} | {"live-rmse": "rmse", "live-coverage": "coverage"}


@dataclass(frozen=True)
class Call:
    """What asks for a retrain: an alarm's rule and severity, its words, and the Prefect event that carried it.

    ``withdrawn``: versions trained to the newest month that were rolled back.
    """

    rule: str
    severity: str = "warning"
    said: str = ""
    event: str | None = None
    withdrawn: tuple[int, ...] = ()


def record_call(decision: TrainingDecision, call: Call) -> dict[str, Any]:
    """Return the decision with its inputs, the call among them: what ``replay_retrain`` takes."""
    return decision.as_dict() | {"call": asdict(call) | {"withdrawn": list(call.withdrawn)}}


def decide_retrain(call: Call, facts: Facts, retrain: RetrainParams) -> TrainingDecision:
    """Decide whether to train now: on an alarm that training can mend, and only where there is something new to learn.

    ``facts`` are of the month that is running: what the policy says of a month's run holds, but that the month before it,
    which is the newest, is learnt from and judges. Nothing is learnt from records in doubt; ``on_alarm`` names what counts.
    """
    newest = shift_month(facts.month, -1)
    if call.rule not in MENDABLE:
        return TrainingDecision(False, f"{call.rule} is no alarm that training mends", "held", facts, retrain)
    if call.withdrawn:
        numbers = ", ".join(map(str, call.withdrawn))
        said = f"a version trained to {newest} was rolled back ({numbers}); whether to try again is for a person"
        return TrainingDecision(False, said, "held", facts, retrain)
    trained_to = (facts.incumbent or {}).get("trained_to", "")
    if trained_to >= newest:
        said = f"the champion has learnt from {trained_to}, and no later month is published yet"
        return TrainingDecision(False, said, "none", facts, retrain)
    return decide_training(facts, retrain)


def gather_call(
    call: Call,
    month: str,
    findings: Sequence[RuleFinding],
    there: Sequence[Version],
    trained: Iterable[str],
) -> tuple[Call, Facts]:
    """Return the call with what was rolled back, and the facts of a retrain when ``month`` is the newest on hand."""
    champion = pick_champion(there)
    known = vars(champion) | {"version": champion.number} if champion else None
    alarms = [MENDABLE[call.rule]] if call.rule in MENDABLE else []
    withdrawn = tuple(one.number for one in there if one.tags.get("rolled_back") and one.trained_to >= month)
    return replace(call, withdrawn=withdrawn), gather_facts(shift_month(month, 1), alarms, findings, known, trained)


def pick_live(standing: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Return the gravest of the alarms that stand (gravest first) which live traffic raised and training mends."""
    return next((one for one in standing if one["rule"] in MENDABLE and one["rule"].startswith("live-")), None)


def name_attempt(month: str, incumbent: Mapping[str, Any] | None) -> str:
    """Return the folder of a retrain: one attempt to replace a version by what ``month`` teaches, however often it is asked for."""
    return f"{month}-after-{incumbent['version'] if incumbent else 0}"


def attempt_file(settings: Settings, service: str, month: str) -> Path:
    """Return where the result of the settings' attempt lies."""
    return settings.month(service, month).reports / "retrain.json"


def finished_attempt(settings: Settings, service: str, month: str, fingerprint: str) -> dict[str, Any] | None:
    """Return the attempt's result if it was made from what there is now; None if it is to be done."""
    result = kept_result(attempt_file(settings, service, month), fingerprint)
    return result and result | {"finished_before": True}


def held_result(service: str, decision: TrainingDecision, call: Call) -> dict[str, Any]:
    """Return the result of a retrain that was not begun."""
    said = {"status": "held", "promoted": False, "reason": decision.reason, "verdict": None}
    month = shift_month(decision.facts.month, -1)
    return {"service": service, "month": month, **said, "decision": record_call(decision, call)}


def retrain_result(
    settings: Settings,
    plan: Plan,
    decision: TrainingDecision,
    call: Call,
    compare: CompareResult,
    made: Mapping[str, int],
) -> dict[str, Any]:
    """Return the result of a retrain: versions by role, errors before and after (minutes) on the days that judged, pages."""
    pages = sorted(settings.month(plan.service, plan.month).reports.glob("0*.html"))
    return {
        "service": plan.service,
        "month": plan.month,
        "status": "done",
        "promoted": compare.promote,
        "reason": compare.reason,
        "verdict": "alarm",
        "versions": dict(made),
        "before": compare.before,
        "challenger": compare.challenger,
        "judged": plan.judged,
        "trained": plan.trained,
        "decision": record_call(decision, call),
        "reports": [str(page) for page in pages],
    }


def replay_retrain(record: Mapping[str, Any]) -> TrainingDecision:
    """Decide again from the inputs of a recorded decision (``record_call``); the same code decides the same."""
    decision = TrainingDecision.of(record)
    call = from_json(record["call"], Call)
    return decide_retrain(replace(call, rule=current_rule(call.rule)), decision.facts, decision.retrain)


def keep_decision(settings: Settings, result: Mapping[str, Any]) -> None:
    """Append what came of a call to ``reports/<service>/retrain/decisions.jsonl``, also where nothing was trained."""
    path = settings.reports / result["service"] / "retrain" / "decisions.jsonl"
    kept = {name: result[name] for name in ("month", "status", "promoted", "reason", "decision")}
    append_json(path, [{"at": now()} | kept])
