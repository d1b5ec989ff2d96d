"""A month's result as metrics: scores, rows, alarms, the decision, and what it cost in seconds and bytes."""

import json
from pathlib import Path
from typing import Any

from taxi.config import MonthPaths
from taxi.metric_store import Kind, Metric

MODELS = ("champion", "challenger")


def _of(kind: Kind, result: dict[str, Any], name: str, values: dict[str, Any]) -> list[Metric]:
    """Return one metric a part."""
    service, month = result["service"], result["month"]
    known = {part: value for part, value in values.items() if value is not None}
    return [Metric(kind, service, month, name, part, float(value)) for part, value in known.items()]


def _scores(result: dict[str, Any]) -> list[Metric]:
    found = []
    for model in MODELS:
        one = result.get(model) or {}
        for name, value in (one.get("metrics") or {}).items():
            found += _of("month", result, name, {model: value})
        found += _of("month", result, "version", {model: one.get("version")})
    return found


def _text(result: dict[str, Any], name: str, text: Any) -> list[Metric]:
    return [Metric("month", result["service"], result["month"], name, text=str(text))] if text else []


def month_metrics(result: dict[str, Any]) -> list[Metric]:
    """Return the metrics of a month's result (``month.json``); what an older result lacks is left out."""
    rows, alarms = result["rows"], result.get("alarms") or []
    counted = {name: rows.get(name) for name in ("raw", "kept", "quarantined")}
    yes = {name: bool(result.get(name)) for name in ("promoted", "trained", "synthetic")}
    decision = result.get("decision")
    return [
        *_of("month", result, "rows", counted),
        *_of("month", result, "rows_refused", rows.get("reasons") or {}),
        *_scores(result),
        *(one for name, value in yes.items() for one in _of("month", result, name, {"": value})),
        *_of("month", result, "alarms", {"": len(alarms)}),
        *_of("month", result, "alarm", dict.fromkeys(map(str, alarms), 1)),
        *_text(result, "status", result["status"]),
        *_text(result, "verdict", result.get("verdict")),
        *_text(result, "reason", result.get("reason")),
        *_text(result, "decision", decision and json.dumps(decision, sort_keys=True)),
    ]


def _size(path: Path) -> int | None:
    if path.is_file():
        return path.stat().st_size
    files = [one for one in path.rglob("*") if one.is_file()] if path.is_dir() else []
    return sum(one.stat().st_size for one in files) if files else None


def cost_metrics(result: dict[str, Any], paths: MonthPaths) -> list[Metric]:
    """Return what the month cost: seconds by step, and bytes on disk by what they are."""
    kept = ("raw", "trips", "quarantine", "models", "reports")
    sizes = {name: _size(getattr(paths, name)) for name in kept}
    return [*_of("cost", result, "seconds", result.get("seconds") or {}), *_of("cost", result, "bytes", sizes)]
