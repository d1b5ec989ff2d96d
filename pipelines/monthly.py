"""Monthly flow, from the publisher to the reports: the order of the steps, each a Prefect task that leaves files."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from prefect import flow, task
from prefect.artifacts import create_link_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from tenacity import Retrying, before_sleep_log, retry_if_exception_type, stop_after_attempt

from pipelines.alarms import watch
from pipelines.finished import publish_files
from pipelines.flow_runs import patient, sign
from pipelines.ingest import clean, fetch
from pipelines.runtime import hand_on
from taxi.config import NOTEBOOKS, Settings, load_settings
from taxi.data.acceptance import Acceptance
from taxi.errors import MonthRefused, NotPublished
from taxi.files import locked, remove
from taxi.locks import Lock, LockLost, hold, holder_of, lock_place
from taxi.params import Params, load_params
from taxi.registry.aliases import settle
from taxi.registry.versions import champion_before, download_model, versions
from taxi.runs.mlflow_run import ALONE, check_artifacts, record_month, seal_result, take_up_month
from taxi.runs.month_result import (
    MonthResult,
    finished_month,
    month_result,
    read_results,
    refused_result,
    trained_months,
    unpublished_result,
    write_result,
)
from taxi.runs.steps import execute_step, month_fingerprint
from taxi.training.plan import Incumbent, Plan, describe_incumbent, make_plan, write_plan
from taxi.training.policy import TrainingDecision, decide_training, gather_facts
from taxi.training.step_result import CompareResult, MonitorResult, Scores, recorded
from taxi.training.train import refit_winner

_LOG = logging.getLogger(__name__)


@task(name="plan", task_run_name="plan-{service}-{month}", cache_policy=NO_CACHE)
def plan_month(settings: Settings, service: str, month: str) -> Plan:
    """Take the champion that was in use before the month out of the registry, and write down what is to be done."""
    params, incumbent = load_params(settings.root / "params.yaml"), take_incumbent(settings, service, month)
    plan = make_plan(service, month, settings.months_on_hand(service), params.model.window_months, incumbent)
    write_plan(settings.month(service, month), plan)
    return plan


def take_incumbent(settings: Settings, service: str, month: str) -> Incumbent | None:
    """Fetch the champion that was trained before the month beside the month's models; returns what a plan says of it."""
    if why := check_artifacts(settings, service):
        _LOG.warning("%s: %s", why, ALONE)
    settle(settings.tracking_uri, service)
    version = champion_before(settings.tracking_uri, service, month)
    folder = settings.month(service, month).models / "incumbent"
    if version is None:
        remove(folder)
    else:
        download_model(settings.tracking_uri, version, folder)
    return describe_incumbent(version)


@task(name="notebook", task_run_name="{notebook}", cache_policy=NO_CACHE, timeout_seconds=7200)
def run_step(settings: Settings, plan: Plan, notebook: str) -> None:
    """Execute one notebook for the plan's month, unless it was made from the same inputs; its result is a file."""
    execute_step(settings, plan, notebook)


@task(name="refit", task_run_name="refit-{plan.service}-{plan.month}", cache_policy=NO_CACHE, timeout_seconds=7200)
def refit(settings: Settings, plan: Plan, params: Params) -> None:
    """Fit the winner's recipe on the window that includes the month."""
    refit_winner(settings, plan, params)


@task(name="register", task_run_name="register-{plan.service}-{plan.month}", cache_policy=NO_CACHE, retries=2)
def register(
    settings: Settings,
    plan: Plan,
    params: Params,
    champion: Scores | None,
    compare: CompareResult | None,
    fingerprint: str,
) -> dict[str, int]:
    """Keep the month's run and models in MLflow; move the aliases; safe to repeat."""
    return record_month(settings, plan, params, champion, compare, fingerprint)


@task(name="publish", task_run_name="publish-{result.service}-{result.month}", cache_policy=NO_CACHE)
def publish(settings: Settings, result: MonthResult, version: bool) -> None:
    """Publish the month's files and leave Prefect artifacts; safe to repeat, and cheap when it is done."""
    gallery = publish_files(settings, result.service, result.month, version)
    key = f"{result.service}-{result.month}"
    create_link_artifact(link=gallery, link_text=f"reports of {result.service} {result.month}", key=key)
    rows = [{"name": name, "value": str(getattr(result, name))} for name in ("status", "verdict", "promoted", "reason")]
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
    settings: Settings, plan: Plan, params: Params, accepted: Acceptance, monitor: MonitorResult
) -> TrainingDecision:
    trained = trained_months(read_results(settings.reports, plan.service))
    facts = gather_facts(plan.month, monitor.alarms, accepted.findings, plan.incumbent, trained)
    return decide_training(facts, params.retrain)


def _watch_month(settings: Settings, plan: Plan, clock: _Clock) -> MonitorResult:
    for name in NOTEBOOKS[:3]:
        with clock.step(name):
            run_step(settings, plan, name)
    return recorded(settings.month(plan.service, plan.month), MonitorResult)


def _train_month(settings: Settings, plan: Plan, params: Params, train: bool, clock: _Clock) -> CompareResult | None:
    paths = settings.month(plan.service, plan.month)
    if not train:
        for leftover in (path for name in NOTEBOOKS[3:] for path in paths.reports.glob(f"{name}.*")):
            remove(leftover)
        return None
    for name in NOTEBOOKS[3:]:
        with clock.step(name):
            run_step(settings, plan, name)
    compare = recorded(paths, CompareResult)
    if compare.promote:
        with clock.step("refit"):
            refit(settings, plan, params)
    return compare


# --- A month is run by one at a time of all installations that share the registry; the next one takes up what it did.

# a connection that breaks in an hour's training costs no training: what is done is not done again
keep_trying = Retrying(
    retry=retry_if_exception_type(LockLost),
    stop=stop_after_attempt(3),
    before_sleep=before_sleep_log(_LOG, logging.WARNING),
    reraise=True,
)


def check_shared(settings: Settings, service: str, what: str) -> str:
    """Ask the registry, and what keeps its locks, before anything is fetched or trained; return the place of the locks.

    Raises one line that says what is wrong with the address, the user or his password.
    """
    versions(settings.tracking_uri, service)
    place = lock_place(settings.tracking_uri)
    holder_of(place, f"{service}-{what}")
    return place


def _make_month(
    settings: Settings, plan: Plan, params: Params, accepted: Acceptance, edition: str, clock: _Clock, lock: Lock
) -> MonthResult:
    fingerprint = month_fingerprint(settings, plan, params)
    if (taken := take_up_month(settings, plan, fingerprint)) is not None:
        return MonthResult(**taken)
    monitor = _watch_month(settings, plan, clock)
    decision = _decide(settings, plan, params, accepted, monitor)
    lock.check()
    compare = _train_month(settings, plan, params, decision.train, clock)
    lock.check()
    with clock.step("register"):
        made = register(settings, plan, params, monitor.metrics, compare, fingerprint)
    result = month_result(settings, plan, accepted, monitor, compare, made, decision)
    result = result.model_copy(update={"edition": edition, "fingerprint": fingerprint, "seconds": dict(clock.seconds)})
    seal_result(settings, plan, fingerprint, result.as_json())
    return result


def _plan_and_make(
    settings: Settings, month: str, params: Params, accepted: Acceptance, edition: str, clock: _Clock, place: str
) -> MonthResult:
    service = accepted.service
    with hold(place, f"{service}-{month}") as lock:
        with clock.step("plan"):
            plan = plan_month(settings, service, month)
        result = _make_month(settings, plan, params, accepted, edition, clock, lock)
        write_result(settings, result)
    return result


def _run(settings: Settings, service: str, month: str, version: bool) -> MonthResult:
    params, clock = load_params(settings.root / "params.yaml"), _Clock()
    place = check_shared(settings, service, month)
    try:
        with clock.step("fetch"):
            edition = fetch(settings, service, month)
        with clock.step("clean"):
            accepted = clean(settings, service, month)
    except NotPublished as error:
        return unpublished_result(service, month, str(error))
    except MonthRefused as error:
        result = refused_result(settings.month(service, month), str(error), clock.seconds, params)
        write_result(settings, result)
        publish(settings, result, version)
        return result
    result = keep_trying.copy()(_plan_and_make, settings, month, params, accepted, edition, clock, place)
    with clock.step("publish"):
        publish(settings, result, version)
    return result.model_copy(update={"seconds": clock.seconds})


@flow(name="monthly", flow_run_name="monthly-{service}-{month}", validate_parameters=True, on_running=[sign])
@patient
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
            answer = _run(settings, service, month, version).as_json()
        else:
            _LOG.info("%s %s is finished already; nothing to do", service, month)
            publish(settings, done, version)
            answer = done.as_json() | {"finished_before": True}
    if answer["status"] == "not-published":
        return answer
    # after the lock and the files: channels may be slow
    return answer | {"alarm_check": watch(settings, service, month)}
