"""Results of months, as ``month.json`` holds them, made for tests."""

from typing import Any

from taxi.params import Params, load_params
from taxi.training.policy import MONITORED, Facts, decide_training

PARAMS: Params = load_params()
CHECKS = tuple(MONITORED)


def make_result(month: str = "2023-03", alarms=(), quality=(), trained_to: str = "2023-02", **fields) -> dict[str, Any]:
    """Return the result of a calm month, changed by ``fields``."""
    facts = Facts(month, tuple(alarms), tuple(quality), {"version": 3, "trained_to": trained_to})
    calm = {
        "service": "green",
        "month": month,
        "status": "done",
        "reason": "no challenger was trained",
        "warnings": [],
        "alarms": list(alarms),
        "alarm_reasons": [f"{check}: said of {check}" for check in CHECKS],
        "numbers": {"volume": -0.05, "rmse_ratio": 1.02, "coverage": 0.8},
        "promoted": False,
        "trained": False,
        "decision": decide_training(facts, PARAMS.retrain).as_dict(),
        "reports": [f"reports/green/{month}/{page}.html" for page in ("01-explore", "03-monitor", "refused")],
    }
    return calm | fields
