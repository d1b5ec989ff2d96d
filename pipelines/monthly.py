"""A month from the publisher to its reports: the order of the steps, each a Prefect task that leaves files."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from prefect import flow, task
from prefect.artifacts import create_link_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE

from pipelines.alarms import watch
from pipelines.finished import publish_files
from pipelines.flow_runs import sign
from pipelines.ingest import clean, fetch
from pipelines.runtime import hand_on
from taxi.config import NOTEBOOKS, Settings, load_settings
from taxi.errors import MonthRefused, NotPublished
from taxi.files import locked, remove, write_json
from taxi.params import Params, load_params
from taxi.registry.aliases import settle
from taxi.registry.versions import champion_before, describe_incumbent, download_model
from taxi.runs.mlflow_run import record_month
from taxi.runs.month_result import finished_month, month_result, read_results, refused_result, unpublished_result
from taxi.runs.steps import execute_step, month_fingerprint
from taxi.training.plan import Plan, make_plan, write_plan
from taxi.training.policy import Decision, decide_training, gather_facts
from taxi.training.train import refit_winner

_LOG = logging.getLogger(__name__)


@task(name="plan", task_run_name="plan-{service}-{month}", cache_policy=NO_CACHE)
def plan_month(settings: Settings, service: str, month: str) -> Plan:
    """Take the champion that was in use before the month out of the registry, and write down what is to be done."""
    params, incumbent = load_params(settings.root / "params.yaml"), take_incumbent(settings, service, month)
    plan = make_plan(service, month, settings.months_on_hand(service), params.model.window_months, incumbent)
    write_plan(settings.month(service, month), plan)
    return plan


def take_incumbent(settings: Settings, service: str, month: str) -> dict[str, Any] | None:
    """Fetch the champion that was trained before the month beside the month's models; returns what a plan says of it."""
    settle(settings.tracking_uri, service)
    version = champion_before(settings.tracking_uri, service, month)
    folder = settings.month(service, month).models / "incumbent"
    if version is None:
        remove(folder)
    else:
        download_model(settings.tracking_uri, version, folder)
    return describe_incumbent(version)


@task(name="notebook", task_run_name="{notebook}", cache_policy=NO_CACHE, timeout_seconds=7200)
def run_step(settings: Settings, plan: Plan, notebook: str) -> dict[str, Any]:
    """Execute one notebook for the plan's month, unless it was made from the same inputs; return its result."""
    return execute_step(settings, plan, notebook)


@task(name="refit", task_run_name="refit-{plan.service}-{plan.month}", cache_policy=NO_CACHE, timeout_seconds=7200)
def refit(settings: Settings, plan: Plan, params: Params) -> None:
    """Fit the winner's recipe on the window that includes the month."""
    refit_winner(settings, plan, params)


@task(name="register", task_run_name="register-{plan.service}-{plan.month}", cache_policy=NO_CACHE, retries=2)
def register(settings: Settings, plan: Plan, params: Params, steps: dict[str, Any], fingerprint: str) -> dict[str, Any]:
    """Keep the month's run and models in MLflow; move the aliases; safe to repeat."""
    return record_month(settings, plan, params, steps, fingerprint)


@task(name="publish", task_run_name="publish-{service}-{month}", cache_policy=NO_CACHE)
def publish(settings: Settings, service: str, month: str, result: dict[str, Any], version: bool) -> None:
    """Publish the month's files and leave Prefect artifacts; safe to repeat, and cheap when it is done."""
    gallery = publish_files(settings, service, month, version)
    key = f"{service}-{month}"
    create_link_artifact(link=gallery, link_text=f"reports of {service} {month}", key=key)
    rows = [{"name": name, "value": str(result[name])} for name in ("status", "verdict", "promoted", "reason")]
    create_table_artifact(table=rows, key=f"{key}-result")


class _Clock:
    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        begun = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - begun, 2)


def _decide(
    settings: Settings, plan: Plan, params: Params, accepted: dict[str, Any], steps: dict[str, Any]
) -> Decision:
    alarms, earlier = steps["03-monitor"]["alarms"], read_results(settings.reports, plan.service)
    facts = gather_facts(plan.month, alarms, accepted["findings"], plan.incumbent, earlier)
    return decide_training(facts, params.retrain)


def _models(
    settings: Settings, plan: Plan, params: Params, accepted: dict[str, Any], steps: dict[str, Any], clock: _Clock
) -> Decision:
    for name in NOTEBOOKS[:3]:
        with clock.step(name):
            steps[name] = run_step(settings, plan, name)
    decision = _decide(settings, plan, params, accepted, steps)
    if not decision.train:
        for name in NOTEBOOKS[3:]:
            for leftover in settings.month(plan.service, plan.month).reports.glob(f"{name}.*"):
                remove(leftover)
        return decision
    for name in NOTEBOOKS[3:]:
        with clock.step(name):
            steps[name] = run_step(settings, plan, name)
    if steps["05-compare"]["promote"]:
        with clock.step("refit"):
            refit(settings, plan, params)
    return decision


def _keep(settings: Settings, result: dict[str, Any]) -> None:
    write_json(settings.month(result["service"], result["month"]).reports / "month.json", result)


def _run(settings: Settings, service: str, month: str, version: bool) -> dict[str, Any]:
    params, clock = load_params(settings.root / "params.yaml"), _Clock()
    steps: dict[str, Any] = {}
    try:
        with clock.step("fetch"):
            edition = fetch(settings, service, month)
        with clock.step("clean"):
            accepted = clean(settings, service, month)
    except NotPublished as error:
        return unpublished_result(service, month, str(error))
    except MonthRefused as error:
        result = refused_result(settings.month(service, month), str(error), clock.seconds, params)
        _keep(settings, result)
        publish(settings, service, month, result, version)
        return result
    with clock.step("plan"):
        plan = plan_month(settings, service, month)
    decision = _models(settings, plan, params, accepted, steps, clock)
    fingerprint = month_fingerprint(settings, plan, params)
    with clock.step("register"):
        versions = register(settings, plan, params, steps, fingerprint)
    result = month_result(settings, plan, accepted, steps, versions, decision) | {
        "edition": edition,
        "fingerprint": fingerprint,
    }
    _keep(settings, result | {"seconds": dict(clock.seconds)})
    with clock.step("publish"):
        publish(settings, service, month, result, version)
    return result | {"seconds": clock.seconds}


@flow(name="monthly", flow_run_name="monthly-{service}-{month}", validate_parameters=True, on_running=[sign])
def monthly(
    service: str,
    month: str,
    source: str | None = None,
    version: bool = True,
    engine: str | None = None,
    scheduler: str | None = None,
) -> dict[str, Any]:
    """Run one month, steps 1 to 7; returns the object that ``taxi run --json`` prints."""
    settings = load_settings(source, engine, scheduler)
    hand_on(settings)
    with locked(settings.data / ".locks" / f"{service}-{month}.lock"):
        done = finished_month(settings, service, month)
        if done is None:
            result = _run(settings, service, month, version)
        else:
            _LOG.info("%s %s is finished already; nothing to do", service, month)
            publish(settings, service, month, done, version)
            result = done
    if result["status"] == "not-published":
        return result
    # after the lock and the files: channels may be slow
    return result | {"alarm_check": watch(settings, service, month)}
