"""Retrain flow: newest window, same gate, same promotion as a month's; started by an alarm's event (``prefect.yaml``)."""

import logging
from typing import Any

from prefect import flow, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE

from pipelines.flow_runs import patient, sign
from pipelines.ingest import clean, fetch
from pipelines.monthly import check_shared, keep_trying, refit, register, run_step, take_incumbent
from pipelines.runtime import attempting, hand_on
from taxi.config import NOTEBOOKS, Settings, load_settings, parse_service
from taxi.data.acceptance import read_acceptance
from taxi.data.source import is_published, open_source
from taxi.errors import MonthRefused, UsageError
from taxi.files import locked, write_json
from taxi.locks import Lock, hold
from taxi.months import shift_month
from taxi.params import Params, load_params
from taxi.registry.versions import versions
from taxi.reporting.pages import build_gallery
from taxi.runs.mlflow_run import seal_result, take_up_month
from taxi.runs.month_result import read_results, trained_months
from taxi.runs.steps import month_fingerprint
from taxi.training.plan import Plan, make_retrain_plan, write_plan
from taxi.training.policy import TrainingDecision
from taxi.training.retraining import (
    Call,
    attempt_file,
    decide_retrain,
    finished_attempt,
    gather_call,
    held_result,
    keep_decision,
    name_attempt,
    retrain_result,
)
from taxi.training.step_result import CompareResult, current_rule, recorded

_LOG = logging.getLogger(__name__)


@task(name="bring", task_run_name="bring-{service}", cache_policy=NO_CACHE)
def bring_newer(settings: Settings, service: str) -> list[str]:
    """Ingest the months that the publisher has and we have not; one that is refused stays out, and what comes after it.

    Their own runs come later (``arrivals``): what they find is needed for the reports, not for this.
    """
    brought: list[str] = []
    publisher = open_source(settings.source)
    month = shift_month(newest_month(settings, service), 1)
    while is_published(publisher, service, month):
        with locked(settings.data / ".locks" / f"{service}-{month}.lock"):
            try:
                fetch.fn(settings, service, month)
                clean.fn(settings, service, month)
            except MonthRefused as error:
                _LOG.warning("%s %s was refused, and is not learnt from: %s", service, month, error)
                return brought
        brought.append(month)
        month = shift_month(month, 1)
    return brought


def newest_month(settings: Settings, service: str) -> str:
    """Return the newest month on hand; raise UsageError if there is none."""
    if not (there := settings.months_on_hand(service)):
        raise UsageError(
            f"no {service} month is on hand: begin with `taxi backfill --service {service} --from … --to …`"
        )
    return there[-1]


@task(name="plan", task_run_name="plan-retrain-{service}-{month}", cache_policy=NO_CACHE)
def plan_retrain(settings: Settings, service: str, month: str, params: Params) -> Plan:
    """Take the champion out of the registry, and write down which trips train and which judge."""
    incumbent = take_incumbent(settings, service, month)
    on_hand = settings.months_on_hand(service)
    plan = make_retrain_plan(service, month, on_hand, params.model.window_months, incumbent)
    write_plan(settings.month(service, month), plan)
    return plan


def _decide(settings: Settings, service: str, call: Call, params: Params) -> tuple[Call, TrainingDecision]:
    month = newest_month(settings, service)
    findings = read_acceptance(settings.month(service, month)).findings
    registered = versions(settings.tracking_uri, service)
    trained = trained_months(read_results(settings.reports, service))
    known, facts = gather_call(call, month, findings, registered, trained)
    return known, decide_retrain(known, facts, params.retrain)


def _train(
    settings: Settings, service: str, call: Call, decision: TrainingDecision, params: Params, lock: Lock
) -> dict[str, Any]:
    month = newest_month(settings, service)
    plan = plan_retrain(settings, service, month, params)
    fingerprint = month_fingerprint(settings, plan, params)
    if (done := finished_attempt(settings, service, month, fingerprint)) is not None:
        _LOG.info("%s: this retrain was done before: %s", service, done["reason"])
        return done
    if (taken := take_up_month(settings, plan, fingerprint)) is not None:
        write_json(attempt_file(settings, service, month), taken)
        return taken | {"finished_before": True}
    for name in NOTEBOOKS[3:]:
        run_step(settings, plan, name)
    compare = recorded(settings.month(service, month), CompareResult)
    if compare.promote:
        refit(settings, plan, params)
    lock.check()
    made = register(settings, plan, params, compare.before if plan.incumbent else None, compare, fingerprint)
    result = retrain_result(settings, plan, decision, call, compare, made) | {"fingerprint": fingerprint}
    seal_result(settings, plan, fingerprint, result)
    write_json(attempt_file(settings, service, month), result)
    return result


def _answer(settings: Settings, service: str, call: Call, params: Params, place: str) -> dict[str, Any]:
    """Decide and train, one at a time of all installations that share the registry: the next one sees what this one did."""
    with hold(place, f"{service}-retrain") as lock:
        call, decision = _decide(settings, service, call, params)
        if not decision.train:
            return held_result(service, decision, call)
        attempt = name_attempt(newest_month(settings, service), decision.facts.incumbent)
        with attempting(settings, attempt) as apart:
            return _train(apart, service, call, decision, params, lock)


@flow(name="retrain", flow_run_name="retrain-{service}-{rule}", on_running=[sign])
@patient
def retrain(
    service: str,
    rule: str,
    severity: str = "warning",
    said: str = "",
    event: str | None = None,
    source: str | None = None,
) -> dict[str, Any]:
    """Train a challenger on all that is published, judge it on the newest days, promote it by the gate; returns what came of it.

    ``rule``, ``severity``, ``said`` and ``event`` are the alarm's that asks for it, and are kept with the decision. Asked for
    twice, it is done once. The result is ``done`` or ``held``, with the reason.
    """
    settings, call = load_settings(source), Call(current_rule(rule), severity, said, event)
    hand_on(settings)
    params = load_params(settings.root / "params.yaml")
    with locked(settings.data / ".locks" / f"{parse_service(service)}-retrain.lock"):
        place = check_shared(settings, service, "retrain")
        bring_newer(settings, service)
        result = keep_trying.copy()(_answer, settings, service, call, params, place)
        keep_decision(settings, result)
    build_gallery(settings.reports)
    rows = [{"name": name, "value": str(result[name])} for name in ("status", "month", "promoted", "reason")]
    create_table_artifact(table=[*rows, {"name": "asked for by", "value": f"{rule}: {said}"}], key=f"{service}-retrain")
    _LOG.info("%s retrain, %s: %s", service, result["status"], result["reason"])
    return result
