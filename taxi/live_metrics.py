"""Live traffic as metrics: volume, error, coverage and latency of each arm, by the hour (UTC) in which predictions were made."""

import pandas as pd

from taxi.arms import VALUES, with_known_duration
from taxi.evaluate import score
from taxi.metric_store import Metric
from taxi.params import CleanParams

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
        scores = score(own["duration"], own[VALUES])
        values = {"judged": scores["n"]} | {name: scores[name] for name in SCORED}
        found += [Metric("live", service, str(hour), name, str(part), float(value)) for name, value in values.items()]
    return found
