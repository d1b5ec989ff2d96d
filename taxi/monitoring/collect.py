"""Collection of metrics into the metric store: from months' results and from the prediction log, as often as one likes."""

import json
import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd

from taxi.config import SERVICES, MonthPaths, Settings
from taxi.models.evaluate import score
from taxi.monitoring.metric_store import Kind, Metric, MetricStore, open_metrics
from taxi.outputs import OUTPUTS
from taxi.params import CleanParams, load_params
from taxi.predictions.arms import with_known_duration
from taxi.predictions.store import open_store
from taxi.runs.month_result import MonthResult, read_results

# --- Live traffic as metrics: volume, error, coverage and latency of each arm, by the hour (UTC) in which predictions were made.

HOUR = "%Y-%m-%dT%H"
SCORED = ("mae", "rmse", "coverage80")


def _with_hour_and_arm(rows: pd.DataFrame) -> pd.DataFrame:
    hour = pd.to_datetime(rows["made_at"]).dt.strftime(HOUR)
    return rows.assign(hour=hour, part=rows["arm"].mask(rows["shadow"].astype(bool), "shadow"))


def volume_metrics(made: pd.DataFrame, service: str) -> list[Metric]:
    """Return predictions, and the median and 99th percentile of latency (ms), by hour and arm; ``made`` as ``Store.made``."""
    found = []
    for (hour, part), own in _with_hour_and_arm(made).groupby(["hour", "part"]):
        latency = own["latency_ms"].dropna()
        values = {"predictions": float(len(own))}
        if len(latency):
            values |= {"latency_p50_ms": float(latency.median()), "latency_p99_ms": float(latency.quantile(0.99))}
        found += [Metric("live", service, str(hour), name, str(part), value) for name, value in values.items()]
    return found


def error_metrics(known: pd.DataFrame, service: str, clean: CleanParams) -> list[Metric]:
    """Return judged trips, mae and rmse (minutes) and coverage80 by hour and arm; ``known`` as ``Store.with_outcomes``."""
    found = []
    for (hour, part), own in _with_hour_and_arm(with_known_duration(known, clean)).groupby(["hour", "part"]):
        scores = score(own["duration"], own[OUTPUTS])
        values = {"judged": scores["n"]} | {name: scores[name] for name in SCORED}
        found += [Metric("live", service, str(hour), name, str(part), float(value)) for name, value in values.items()]
    return found


# --- A month's result as metrics: scores, rows, alarms, the decision, and what it cost in seconds and bytes.


def _of(kind: Kind, result: MonthResult, name: str, values: dict[str, Any]) -> list[Metric]:
    """Return one metric a part."""
    known = {part: value for part, value in values.items() if value is not None}
    return [Metric(kind, result.service, result.month, name, part, float(value)) for part, value in known.items()]


def _scores(result: MonthResult) -> list[Metric]:
    found = []
    for part, model in (("champion", result.champion), ("challenger", result.challenger)):
        for name, value in ((model and model.metrics) or {}).items():
            found += _of("month", result, name, {part: value})
        found += _of("month", result, "version", {part: model and model.version})
    return found


def _text(result: MonthResult, name: str, text: str | None) -> list[Metric]:
    return [Metric("month", result.service, result.month, name, text=text)] if text else []


def month_metrics(result: MonthResult) -> list[Metric]:
    """Return the metrics of a month's result; what an older result lacks is left out."""
    rows, alarms = result.rows, result.alarms
    counted = {"raw": rows["raw"], "kept": rows["kept"], "quarantined": rows["quarantined"]}
    yes = {"promoted": result.promoted, "trained": result.trained, "synthetic": bool(result.synthetic)}
    return [
        *_of("month", result, "rows", counted),
        *_of("month", result, "rows_refused", rows["reasons"]),
        *_scores(result),
        *(one for name, value in yes.items() for one in _of("month", result, name, {"": value})),
        *_of("month", result, "alarms", {"": len(alarms)}),
        *_of("month", result, "alarm", dict.fromkeys(alarms, 1)),
        *_text(result, "status", result.status),
        *_text(result, "verdict", result.verdict),
        *_text(result, "reason", result.reason),
        *_text(result, "decision", json.dumps(result.decision.as_dict(), sort_keys=True) if result.decision else None),
    ]


def _size(path: Path) -> int | None:
    if path.is_file():
        return path.stat().st_size
    files = [one for one in path.rglob("*") if one.is_file()] if path.is_dir() else []
    return sum(one.stat().st_size for one in files) if files else None


def cost_metrics(result: MonthResult, paths: MonthPaths) -> list[Metric]:
    """Return what the month cost: seconds by step, and bytes on disk by what they are."""
    kept = ("raw", "trips", "quarantine", "models", "reports")
    sizes = {name: _size(getattr(paths, name)) for name in kept}
    return [*_of("cost", result, "seconds", result.seconds), *_of("cost", result, "bytes", sizes)]


AGAIN = timedelta(hours=72)  # outcomes come later than predictions: so long an hour is looked at again
_LOG = logging.getLogger(__name__)


def collect_month(store: MetricStore, settings: Settings, result: MonthResult) -> int:
    """Write one month's metrics and costs; return how many."""
    paths = settings.month(result.service, result.month)
    metrics = [*month_metrics(result), *cost_metrics(result, paths)]
    store.replace(metrics)
    return len(metrics)


def collect_live(store: MetricStore, settings: Settings, service: str, since: datetime | None = None) -> int:
    """Write the hours of the prediction log since then, or since 72 hours before the newest that is known; return how many metrics.

    An hour is always written whole, from the predictions of the whole hour.
    """
    newest = store.newest("live", service)
    again = datetime.strptime(newest, HOUR).replace(tzinfo=UTC) - AGAIN if newest else datetime(2000, 1, 1, tzinfo=UTC)
    start = (since or again).replace(minute=0, second=0, microsecond=0)
    log = open_store(settings.predictions, make=False)
    try:
        made, known = log.made(service, start), log.with_outcomes(service, start)
    finally:
        log.close()
    clean = load_params(settings.root / "params.yaml").clean
    metrics = [*volume_metrics(made, service), *error_metrics(known, service, clean)]
    store.replace(metrics)
    return len(metrics)


def collect_all(
    settings: Settings, services: tuple[str, ...] = SERVICES, since: datetime | None = None
) -> dict[str, int]:
    """Write every month's metrics and the log's hours; return how many months and how many live metrics were written."""
    store = open_metrics(settings.metrics)
    try:
        results = [one for service in services for one in read_results(settings.reports, service).values()]
        for result in results:
            collect_month(store, settings, result)
        live = sum(collect_live(store, settings, service, since) for service in services)
    finally:
        store.close()
    return {"months": len(results), "live": live}
