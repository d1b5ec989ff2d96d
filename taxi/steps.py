"""Which steps of a month are done already: a step is done when what it was made from is what there is now."""

import logging
from pathlib import Path
from typing import Any

from taxi.config import MonthPaths, Settings
from taxi.files import read_json, sha256_file, sha256_json, sha256_tree
from taxi.found import search_file
from taxi.params import Params, load_params
from taxi.plan import Plan, read_plan
from taxi.schema import SYNTHETIC_BANNER

_LOG = logging.getLogger(__name__)

STEP_INPUTS = {
    "01-explore": ("month", "history"),
    "02-features": ("month", "window"),
    "03-monitor": ("month", "window", "incumbent"),
    "04-train": ("month", "window", "incumbent", "search"),
    "05-compare": ("month", "window", "incumbent", "challenger"),
}


def code_sha256(settings: Settings) -> str:
    """Return one hash over the package, the parameters (but for the live experiment's) and the locked packages."""
    package = sha256_tree(Path(__file__).parent, "**/*.py")
    return sha256_json(
        [package, load_params(settings.root / "params.yaml").lasting(), _hash(settings.root / "requirements.lock")]
    )


def _hash(path: Path) -> str | None:
    if path.is_dir():
        return sha256_tree(path)
    return sha256_file(path) if path.is_file() else None


def _months(settings: Settings, service: str, months: list[str]) -> dict[str, str | None]:
    return {month: _hash(settings.month(service, month).trips) for month in months}


def step_inputs(settings: Settings, plan: Plan, notebook: str) -> dict[str, Any]:
    """Return the hashes of all that ``notebook`` reads for the plan's month, by name."""
    paths = settings.month(plan.service, plan.month)
    known = {
        "month": lambda: [_hash(path) for path in (paths.raw, paths.trips, paths.quarantine, paths.acceptance)],
        "history": lambda: {
            month: _hash(settings.month(plan.service, month).acceptance) for month in plan.refit_window
        },
        "window": lambda: _months(settings, plan.service, plan.earlier),
        "incumbent": lambda: _hash(paths.models / "incumbent"),
        "search": lambda: _hash(search_file(paths)),
        "challenger": lambda: _hash(paths.models / "challenger"),
    }
    inputs = {name: known[name]() for name in STEP_INPUTS[notebook]}
    return inputs | {
        "notebook": sha256_file(settings.root / "notebooks" / f"{notebook}.ipynb"),
        "code": code_sha256(settings),
        "zones": _hash(settings.zones / "taxi_zones.zip"),
        "plan": sha256_json([plan.window, plan.refit_window, plan.holdout_from, plan.incumbent, plan.before]),
    }


def step_fingerprint(settings: Settings, plan: Plan, notebook: str) -> str:
    """Return one hash over all that ``notebook`` reads for the plan's month."""
    return sha256_json(step_inputs(settings, plan, notebook))


def finished_step(paths: MonthPaths, notebook: str, fingerprint: str) -> dict[str, Any] | None:
    """Return the step's result if it was made from the same inputs and its page is there; None if it is to be done."""
    result, page = paths.reports / f"{notebook}.json", paths.reports / f"{notebook}.html"
    if not (result.is_file() and page.is_file()):
        return None
    content = read_json(result)
    return content if content.get("fingerprint") == fingerprint else None


def month_fingerprint(settings: Settings, plan: Plan, params: Params) -> str:
    """Return one hash over all that the whole month's run is made from."""
    steps = {name: step_inputs(settings, plan, name) for name in STEP_INPUTS}
    for inputs in steps.values():
        inputs.pop("challenger", None)
    return sha256_json([steps, params.lasting()])


def _banner(paths: MonthPaths) -> str:
    return SYNTHETIC_BANNER if read_json(paths.acceptance).get("synthetic") else ""


def execute_step(settings: Settings, plan: Plan, notebook: str) -> dict[str, Any]:
    """Execute one notebook for the plan's month, unless it was made from the same inputs; return its result."""
    from taxi.notebooks import run_notebook

    paths, fingerprint = settings.month(plan.service, plan.month), step_fingerprint(settings, plan, notebook)
    if (done := finished_step(paths, notebook, fingerprint)) is not None:
        _LOG.info("%s %s: %s is done already", plan.service, plan.month, notebook)
        return done
    run = run_notebook(
        settings.root / "notebooks" / f"{notebook}.ipynb",
        paths.reports / f"{notebook}.html",
        {"service": plan.service, "month": plan.month},
        cwd=settings.root,
        fingerprint=fingerprint,
        banner=_banner(paths),
    )
    _LOG.info("%s %s: %s in %.1f s", plan.service, plan.month, notebook, run.seconds)
    return dict(read_json(run.result_path))


def execute_notebook(settings: Settings, service: str, month: str, notebook: str, extra: dict[str, Any]) -> Path:
    """Execute one notebook as the flow does, with more parameters if given; return its page."""
    from taxi.notebooks import run_notebook

    plan, paths = read_plan(settings, service, month), settings.month(service, month)
    fingerprint = step_fingerprint(settings, plan, notebook)
    given = {"service": service, "month": month} | extra
    mark = fingerprint if not extra else sha256_json([fingerprint, extra])
    source, page = settings.root / "notebooks" / f"{notebook}.ipynb", paths.reports / f"{notebook}.html"
    return run_notebook(source, page, given, cwd=settings.root, fingerprint=mark, banner=_banner(paths)).page
