"""HTML pages that are not notebooks: the gallery over all months, the evidence of a refused month, the lineage page."""

from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, select_autoescape

from taxi.config import NOTEBOOKS, SERVICES, MonthPaths
from taxi.data.acceptance import Acceptance
from taxi.data.schema import read_kept_rows
from taxi.files import locked, staged
from taxi.runs.month_result import read_results
from taxi.training.step_result import load_attempt


def write_page(template: str, path: Path, **values: Any) -> Path:
    """Write one of the templates, filled with ``values`` (escaped), to ``path``; returns it."""
    environment = Environment(loader=PackageLoader("taxi"), autoescape=select_autoescape(default=True))
    text = environment.get_template(template).render(**values)
    with staged(path) as part:
        part.write_text(text, encoding="utf-8")
    return path


def _links(report_root: Path, folder: Path) -> list[tuple[str, str]]:
    names = [*NOTEBOOKS, "03-monitor-evidently", "refused"]
    return [
        (name, f"{folder.relative_to(report_root).as_posix()}/{name}.html")
        for name in names
        if (folder / f"{name}.html").is_file()
    ]


def _backtest(report_root: Path, service: str) -> str | None:
    page = f"{service}/backtest/07-backtest.html"
    return page if (report_root / page).is_file() else None


def _retrains(report_root: Path, service: str) -> list[dict[str, Any]]:
    made = sorted((report_root / service / "retrain").glob("*/retrain.json"))
    return [load_attempt(path) | {"links": _links(report_root, path.parent)} for path in made]


def _error_chart(months: list[dict[str, Any]]) -> str:
    from taxi.reporting.plots import line_chart_svg

    rmse = {month["month"]: ((month["champion"] or {}).get("metrics") or {}).get("rmse") for month in months}
    values = pd.Series(rmse, dtype=float)
    values.index = pd.PeriodIndex(values.index, freq="M")
    return line_chart_svg(values.to_frame("champion"), "The champion's RMSE", "minutes")


def build_gallery(report_root: Path) -> Path:
    """Write ``index.html`` over all months and services from the months' result files; returns its path."""
    with locked(report_root / ".index.lock"):
        services: list[dict[str, Any]] = []
        for service in SERVICES:
            results = read_results(report_root, service)
            months = [
                one.model_dump() | {"links": _links(report_root, report_root / service / month)}
                for month, one in results.items()
            ]
            if months:
                own: dict[str, Any] = {"name": service, "months": months[::-1], "chart": _error_chart(months)}
                more = {"backtest": _backtest(report_root, service), "retrains": _retrains(report_root, service)}
                services.append(own | more)
        synthetic = any(month.get("synthetic") for one in services for month in one["months"])
        return write_page("gallery.html.j2", report_root / "index.html", services=services, synthetic=synthetic)


def _examples(paths: MonthPaths) -> tuple[list[str], list[list[Any]]]:
    if not paths.quarantine.is_file():
        return [], []
    table = read_kept_rows(paths.quarantine).slice(0, 20)
    columns = ["reason", "row", *[name for name in table.column_names if name not in ("reason", "row")]][:12]
    return columns, [list(row.values()) for row in table.select(columns).to_pylist()]


def write_refusal(paths: MonthPaths, acceptance: Acceptance) -> Path:
    """Write ``refused.html``: which rules refused the month, what was expected, what came, and the first refused rows."""
    columns, rows = _examples(paths)
    return write_page(
        "refused.html.j2", paths.reports / "refused.html", month=acceptance, columns=columns, examples=rows
    )


# --- The way back as a person reads it: lines for a terminal, and a page with a picture.

SEEN_BY = {
    "prediction": ("prediction",),
    "model version": ("model", "model file", "local model file", "golden trips", "metrics"),
    "MLflow run": ("run", "tags"),
    "executed notebooks and reports": ("report", "published report", "month result"),
    "parameters": ("parameters",),
    "kept months": ("kept month", "quarantine", "acceptance"),
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
