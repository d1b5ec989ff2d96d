"""The way back as a person reads it: lines for a terminal, and a page with a picture."""

from pathlib import Path
from typing import Any

from taxi.reports import write_page

SEEN_BY = {
    "prediction": ("prediction",),
    "model version": ("model", "model file", "local model file", "golden trips"),
    "MLflow run": ("run",),
    "executed notebooks and reports": ("report", "published report"),
    "parameters": ("parameters",),
    "kept months": ("kept month",),
    "raw bytes": ("raw month", "origin"),
    "code and lock": ("lock",),
}


def _facts(trail: dict[str, Any], step: str) -> str:
    raw, code, asked = trail["raw"], trail["code"], trail["prediction"]
    months = f"{raw[0]['month']} to {raw[-1]['month']}" if len(raw) > 1 else raw[0]["month"]
    dirty = ", with changes in no commit" if code["git_dirty"] == "true" else ""
    known = {
        "prediction": f"{asked['prediction_id']}, made at {asked['made_at']}" if asked else "",
        "model version": f"{trail['version']} ({trail['role']}), model {trail['model_sha256'][:12]}",
        "MLflow run": trail["run"],
        "executed notebooks and reports": f"{len(trail['reports'])} files of {trail['judged_in']}",
        "parameters": f"{len(trail['parameters'])} values",
        "kept months": f"{len(raw)}, {months}",
        "raw bytes": f"{len(raw)} files, from {raw[-1]['address'].rpartition('/')[0] or raw[-1]['address']}",
        "code and lock": f"commit {code['git_commit'][:12]}{dirty}; lock {code['lock_sha256'][:12]}",
    }
    return known[step]


def make_steps(trail: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the steps of the way back, newest first: title, facts, its checks, and the worst status among them."""
    steps = []
    for title, kinds in SEEN_BY.items():
        checks = [one for one in trail["checks"] if one["what"] in kinds]
        there = {one["status"] for one in checks}
        worst = next((status for status in ("differs", "away", "same") if status in there), "none")
        if title != "prediction" or trail["prediction"]:
            steps.append({"title": title, "facts": _facts(trail, title), "checks": checks, "status": worst})
    return steps


def summarise_checks(checks: list[dict[str, Any]]) -> str:
    """Return how many of a step's checks agree, in words."""
    if not checks:
        return ""
    same, away = (sum(one["status"] == status for one in checks) for status in ("same", "away"))
    said = f"{same} of {len(checks)} recomputed and the same"
    return f"{said}, {away} not on hand" if away else said


def verdict(trail: dict[str, Any]) -> str:
    """Return in one sentence whether everything that could be recomputed is as recorded."""
    counts = trail["counts"]
    away = f"; {counts['away']} could not be checked here" if counts["away"] else ""
    if trail["verified"]:
        return f"verified: {counts['same']} of {counts['same']} recomputed hashes are as recorded{away}"
    return f"NOT VERIFIED: {counts['differs']} of {counts['same'] + counts['differs']} are not as recorded{away}"


def write_text(trail: dict[str, Any]) -> str:
    """Return the way back as lines for a terminal."""
    lines = []
    for step in make_steps(trail):
        lines.append(f"{step['title']:32}{step['facts']}")
        if said := summarise_checks(step["checks"]):
            lines.append(f"{'':32}{said}")
    for one in trail["raw"]:
        lines.append(
            f"  {one['month']}  raw {one['sha256']}  {one['address']}  ETag {one['etag']}  {one['fetched_at']}"
        )
    return "\n".join([*lines, verdict(trail), *(f"  {fault}" for fault in trail["faults"])])


def write_lineage_page(trail: dict[str, Any], path: Path) -> Path:
    """Write the way back as a page with a picture, which needs no network; returns its path."""
    steps = [one | {"said": summarise_checks(one["checks"])} for one in make_steps(trail)]
    return write_page("lineage.html.j2", path, trail=trail, steps=steps, verdict=verdict(trail))
