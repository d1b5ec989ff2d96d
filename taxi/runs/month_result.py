"""The month's result: the one JSON object that a run prints, the gallery reads and a later run compares with."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from taxi.config import NOTEBOOKS, MonthPaths, Settings
from taxi.errors import UsageError
from taxi.files import read_json
from taxi.months import shift_month
from taxi.params import Params, load_params
from taxi.training.policy import Decision, Facts, decide_training, find_faults

if TYPE_CHECKING:
    from taxi.training.plan import Plan


def read_results(report_root: Path, service: str) -> dict[str, dict[str, Any]]:
    """Return the results of the months that were run, done or refused, by month, oldest first."""
    return {path.parent.name: read_json(path) for path in sorted((report_root / service).glob("????-??/month.json"))}


def unpublished_result(service: str, month: str, reason: str) -> dict[str, Any]:
    """Return the result of a month that the publisher does not have."""
    return _empty(service, month, "not-published", reason)


def refused_result(paths: MonthPaths, reason: str, seconds: dict[str, float], params: Params) -> dict[str, Any]:
    """Return the result of a month that its acceptance rules refused; ``rows`` tell what was counted before that."""
    acceptance = read_json(paths.acceptance) if paths.acceptance.is_file() else {}
    if acceptance.get("status") != "refused":  # an unreadable new edition; the earlier one is still on hand
        acceptance = {"rows": _empty("", "", "", "")["rows"], "findings": []}
    page = paths.reports / "refused.html"
    faults = find_faults(acceptance["findings"]) or ("unreadable",)
    decision = decide_training(Facts(paths.month, (), faults, None), params.retrain)
    return _empty(paths.service, paths.month, "refused", reason) | {
        "rows": acceptance["rows"],
        "findings": acceptance["findings"],
        "synthetic": acceptance.get("synthetic"),
        "reports": [str(page)],
        "seconds": seconds,
        "decision": decision.as_dict(),
    }


def _empty(service: str, month: str, status: str, reason: str) -> dict[str, Any]:
    return {
        "service": service,
        "month": month,
        "status": status,
        "rows": {"raw": 0, "kept": 0, "quarantined": 0, "reasons": {}},
        "champion": None,
        "challenger": None,
        "promoted": False,
        "reason": reason,
        "verdict": None,
        "alarms": [],
        "reports": [],
        "seconds": {},
    }


def month_result(
    settings: Settings,
    plan: "Plan",
    accepted: dict[str, Any],
    steps: dict[str, Any],
    versions: dict[str, Any],
    decision: Decision,
) -> dict[str, Any]:
    """Return the result of a month that was run; ``champion`` is the one in use when the month began."""
    paths, monitor = settings.month(plan.service, plan.month), steps["03-monitor"]
    compare = steps.get("05-compare")
    incumbent = plan.incumbent
    return {
        "service": plan.service,
        "month": plan.month,
        "status": "done",
        "rows": accepted["rows"],
        "warnings": accepted["warnings"],
        "synthetic": accepted["synthetic"],
        "champion": incumbent and {"version": incumbent["version"], "metrics": monitor["metrics"]},
        "challenger": compare and {"version": versions["challenger"], "metrics": compare["challenger"]},
        "winner": versions.get("winner"),
        "trained": decision.train,
        "trained_because": decision.reason,
        "decision": decision.as_dict(),
        "promoted": bool(compare and compare["promote"]),
        "reason": compare["reason"] if compare else f"no challenger was trained: {decision.reason}",
        "verdict": monitor["verdict"],
        "alarms": monitor["alarms"],
        "alarm_reasons": monitor["reasons"],
        "numbers": monitor["numbers"],
        "window": plan.window,
        "reports": [str(page) for name in NOTEBOOKS if (page := paths.reports / f"{name}.html").is_file()],
    }


def finished_month(settings: Settings, service: str, month: str) -> dict[str, Any] | None:
    """Return the kept result if the month was finished from what there is now, publisher's bytes included; else None."""
    from taxi.data.fetch import unchanged  # with what results are made from; `taxi status` reads results alone
    from taxi.runs.steps import month_fingerprint
    from taxi.training.plan import plan_file, read_plan

    paths = settings.month(service, month)
    kept = paths.reports / "month.json"
    if not (kept.is_file() and plan_file(paths).is_file() and paths.trips.is_file()):
        return None
    result = read_json(kept)
    if result["status"] != "done" or not unchanged(settings.source, service, month, paths):
        return None
    plan = read_plan(settings, service, month)
    params = load_params(settings.root / "params.yaml")
    same = result.get("fingerprint") == month_fingerprint(settings, plan, params)
    return result | {"finished_before": True} if same else None


def due_month(settings: Settings, service: str) -> str:
    """Return the month to ask the publisher for: the one after the newest that was run, or that one if it was refused and is replaced.

    Raises UsageError if no month was run yet: then nobody said where to begin.
    """
    from taxi.data.fetch import unchanged

    run = read_results(settings.reports, service)
    if not run:
        raise UsageError(
            f"no {service} month was run yet: begin with `taxi backfill --service {service} --from … --to …`"
        )
    newest = max(run)
    replaced = run[newest]["status"] == "refused" and not unchanged(
        settings.source, service, newest, settings.month(service, newest)
    )
    return newest if replaced else shift_month(newest, 1)
