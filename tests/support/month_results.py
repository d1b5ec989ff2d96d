"""Results of months, as ``month.json`` holds them, made for tests."""

from typing import Any

from taxi.config import MonthPaths
from taxi.data.acceptance import Acceptance
from taxi.data.month_rules import RuleFinding
from taxi.data.origin import Edition, Origin
from taxi.files import write_model
from taxi.params import Params, load_params
from taxi.runs.month_result import MonthResult
from taxi.training.policy import Facts, decide_training
from taxi.training.step_result import MEASURES, Check

PARAMS: Params = load_params()
CHECKS = tuple(MEASURES)


NUMBERS = {"volume": -0.05, "rmse_ratio": 1.02, "coverage": 0.8}


def make_check(rule: str, alarms=(), numbers=NUMBERS) -> Check:
    """Return what a rule of the monitor says, with its number where ``numbers`` has it."""
    kept = {name: value for name, value in numbers.items() if name == MEASURES[rule]}
    severity = "warning" if rule in alarms else "info"
    return Check(rule=rule, severity=severity, sentence=f"said of {rule}", numbers=kept)


def make_warning(line: str) -> RuleFinding:
    """Return an acceptance rule's warning from ``rule: message``."""
    rule, message = line.split(": ", 1)
    return RuleFinding(rule, "warn", message)


def make_result(
    month: str = "2023-03", alarms=(), quality=(), trained_to: str = "2023-02", warnings=(), numbers=NUMBERS, **fields
) -> MonthResult:
    """Return the result of a calm month, changed by ``fields``."""
    facts = Facts(month, tuple(alarms), tuple(quality), {"version": 3, "trained_to": trained_to})
    calm = {
        "service": "green",
        "month": month,
        "status": "done",
        "reason": "no challenger was trained",
        "findings": [make_warning(line) for line in warnings],
        "checks": [make_check(rule, alarms, numbers) for rule in CHECKS],
        "promoted": False,
        "trained": False,
        "decision": decide_training(facts, PARAMS.retrain),
        "reports": [f"reports/green/{month}/{page}.html" for page in ("01-explore", "03-monitor", "refused")],
    }
    return MonthResult(**calm | fields)


def make_edition(sha256: str = "0" * 64, **fields: Any) -> Edition:
    """Return an edition of a published file, changed by ``fields``."""
    known = {"address": "https://example.org", "sha256": sha256, "size": 1, "etag": None, "fetched_at": "2023-05-01"}
    return Edition(**known | fields)


def write_origin(paths: MonthPaths, sha256: str = "0" * 64, **fields: Any) -> None:
    """Write the sidecar of a raw month."""
    write_model(paths.sidecar, Origin(**dict(make_edition(sha256)) | fields))


def write_acceptance(paths: MonthPaths, **fields: Any) -> None:
    """Write what the acceptance rules said of a month: it is accepted, with nothing to say."""
    known = {"status": "accepted", "findings": [], "raw_sha256": None, "address": None, "synthetic": None}
    counted = {"rows": {"raw": 0, "kept": 0, "quarantined": 0, "reasons": {}}, "figures": None}
    month = {"service": paths.service, "month": paths.month}
    write_model(paths.acceptance, Acceptance(**known | counted | month | fields))


def make_step(notebook: str, **recorded: Any) -> dict[str, Any]:
    """Return what a notebook's result file holds."""
    return {"notebook": notebook, "parameters": {}, "fingerprint": "", **recorded}


def make_compare(scores: dict[str, float], promote: bool = False) -> dict[str, Any]:
    """Return what the comparison's notebook records."""
    judged = {"promote": promote, "reason": "said", "gain": 0.1, "interval": [0.05, 0.15]}
    return make_step("05-compare", **judged, challenger=scores, before=scores)
