"""The pages that are not notebooks: the gallery over all months, and the evidence of a refused month."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet
from jinja2 import Environment, PackageLoader, select_autoescape

from taxi.config import NOTEBOOKS, SERVICES, MonthPaths
from taxi.files import locked, read_json, staged
from taxi.month import read_results

_WIDTH, _HEIGHT = 860, 200


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
    return [read_json(path) | {"links": _links(report_root, path.parent)} for path in made]


def plot_points(values: list[float | None]) -> list[tuple[float, float, float]]:
    """Return x, y (pixels) and the value of each point that has one, on axes from 0 to the largest value and a tenth."""
    known = [value for value in values if value is not None]
    top = 1.1 * max(known, default=1.0)
    step = (_WIDTH - 90) / max(len(values) - 1, 1)
    return [
        (50 + i * step, _HEIGHT - 30 - value / top * (_HEIGHT - 50), value)
        for i, value in enumerate(values)
        if value is not None
    ]


def build_gallery(report_root: Path) -> Path:
    """Write ``index.html`` over all months and services from the months' result files; returns its path."""
    with locked(report_root / ".index.lock"):
        services: list[dict[str, Any]] = []
        for service in SERVICES:
            results = read_results(report_root, service)
            months = [
                one | {"links": _links(report_root, report_root / service / month)} for month, one in results.items()
            ]
            rmse = [(one["champion"] or {}).get("metrics", {}).get("rmse") for one in months]
            if months:
                own: dict[str, Any] = {"name": service, "months": months[::-1], "points": plot_points(rmse)}
                more = {"backtest": _backtest(report_root, service), "retrains": _retrains(report_root, service)}
                services.append(own | {"labels": months} | more)
        synthetic = any(month.get("synthetic") for one in services for month in one["months"])
        size = {"width": _WIDTH, "height": _HEIGHT}
        return write_page(
            "gallery.html.j2", report_root / "index.html", services=services, synthetic=synthetic, size=size
        )


def _examples(paths: MonthPaths) -> tuple[list[str], list[list[Any]]]:
    if not paths.quarantine.is_file():
        return [], []
    table = parquet.read_table(paths.quarantine).slice(0, 20)
    columns = ["reason", "row", *[name for name in table.column_names if name not in ("reason", "row")]][:12]
    return columns, [list(row.values()) for row in table.select(columns).to_pylist()]


def write_refusal(paths: MonthPaths, acceptance: dict[str, Any]) -> Path:
    """Write ``refused.html``: which rules refused the month, what was expected, what came, and the first refused rows."""
    columns, rows = _examples(paths)
    return write_page(
        "refused.html.j2", paths.reports / "refused.html", month=acceptance, columns=columns, examples=rows
    )
