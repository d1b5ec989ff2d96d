"""Cache of a month's steps: one is done when what it was made from is what there is now."""

import logging
from pathlib import Path
from typing import Any

from taxi.config import MonthPaths, Settings
from taxi.data.acceptance import read_acceptance
from taxi.data.schema import SYNTHETIC_BANNER
from taxi.files import sha256_json
from taxi.fingerprint import code_of, hash_path, imports_of
from taxi.params import Params, load_params
from taxi.training.plan import Plan, read_plan
from taxi.training.step_result import StepResult, read_step

_LOG = logging.getLogger(__name__)

STEP_INPUTS = {
    "01-explore": ("month", "history"),
    "02-features": ("month", "window"),
    "03-monitor": ("month", "window", "incumbent"),
    "04-train": ("month", "window", "incumbent", "search"),
    "05-compare": ("month", "window", "incumbent", "challenger"),
}


def _months(settings: Settings, service: str, months: list[str]) -> dict[str, str | None]:
    return {month: hash_path(settings.month(service, month).trips) for month in months}


def step_inputs(settings: Settings, plan: Plan, notebook: str) -> dict[str, Any]:
    """Return the hashes of all that ``notebook`` reads for the plan's month, by name."""
    paths, source = settings.month(plan.service, plan.month), settings.root / "notebooks" / f"{notebook}.ipynb"
    known = {
        "month": lambda: [hash_path(path) for path in (paths.raw, paths.trips, paths.quarantine, paths.acceptance)],
        "history": lambda: {
            month: hash_path(settings.month(plan.service, month).acceptance) for month in plan.refit_window
        },
        "window": lambda: _months(settings, plan.service, plan.earlier),
        "incumbent": lambda: hash_path(paths.models / "incumbent"),
        "search": lambda: hash_path(paths.search),
        "challenger": lambda: hash_path(paths.models / "challenger"),
    }
    inputs = {name: known[name]() for name in STEP_INPUTS[notebook]}
    return inputs | {
        "notebook": hash_path(source),
        "code": code_of(*imports_of(source), "taxi.runs.notebooks"),
        "params": load_params(settings.root / "params.yaml").lasting(),
        "lock": hash_path(settings.root / "requirements.lock"),
        "zones": hash_path(settings.zones / "taxi_zones.zip"),
        "plan": sha256_json([plan.window, plan.refit_window, plan.holdout_from, plan.incumbent, plan.before]),
    }


def step_fingerprint(settings: Settings, plan: Plan, notebook: str) -> str:
    """Return one hash over all that ``notebook`` reads for the plan's month."""
    return sha256_json(step_inputs(settings, plan, notebook))


def finished_step(paths: MonthPaths, notebook: str, fingerprint: str) -> bool:
    """Say whether the step was made from the same inputs and its page is there."""
    result = read_step(paths, StepResult, notebook)
    return result is not None and result.fingerprint == fingerprint and (paths.reports / f"{notebook}.html").is_file()


def month_fingerprint(settings: Settings, plan: Plan, params: Params) -> str:
    """Return one hash over all that the whole month's run is made from: its steps, and what decides and registers by them."""
    steps = {name: step_inputs(settings, plan, name) for name in STEP_INPUTS}
    for inputs in steps.values():
        inputs.pop("challenger", None)
    return sha256_json([steps, code_of("taxi.runs.month_result", "taxi.runs.mlflow_run"), params.lasting()])


def _banner(paths: MonthPaths) -> str:
    return SYNTHETIC_BANNER if read_acceptance(paths).synthetic else ""


def execute_step(settings: Settings, plan: Plan, notebook: str) -> None:
    """Execute one notebook for the plan's month, unless it was made from the same inputs; its result is a file."""
    from taxi.runs.notebooks import run_notebook

    paths, fingerprint = settings.month(plan.service, plan.month), step_fingerprint(settings, plan, notebook)
    if finished_step(paths, notebook, fingerprint):
        _LOG.info("%s %s: %s is done already", plan.service, plan.month, notebook)
        return
    run = run_notebook(
        settings.root / "notebooks" / f"{notebook}.ipynb",
        paths.reports / f"{notebook}.html",
        {"service": plan.service, "month": plan.month},
        cwd=settings.root,
        fingerprint=fingerprint,
        banner=_banner(paths),
    )
    _LOG.info("%s %s: %s in %.1f s", plan.service, plan.month, notebook, run.seconds)


def execute_notebook(settings: Settings, service: str, month: str, notebook: str, extra: dict[str, Any]) -> Path:
    """Execute one notebook as the flow does, with more parameters if given; return its page."""
    from taxi.runs.notebooks import check_parameters, run_notebook

    paths, source = settings.month(service, month), settings.root / "notebooks" / f"{notebook}.ipynb"
    given, page = {"service": service, "month": month} | extra, paths.reports / f"{notebook}.html"
    check_parameters(source, given)
    plan = read_plan(settings, service, month)
    fingerprint = step_fingerprint(settings, plan, notebook)
    mark = fingerprint if not extra else sha256_json([fingerprint, extra])
    return run_notebook(source, page, given, cwd=settings.root, fingerprint=mark, banner=_banner(paths)).page
