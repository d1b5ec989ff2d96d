"""Prometheus metrics of the service; with several workers they are added up over files in PROMETHEUS_MULTIPROC_DIR."""

from collections.abc import Iterable
from functools import lru_cache
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, values
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
Mode = Literal["livemax", "livesum"]
REGISTRY = CollectorRegistry()


def _counter(name: str, says: str, labels: tuple[str, ...] = ()) -> Counter:
    return Counter(f"taxi_{name}", says, labels, registry=REGISTRY)


def _gauge(name: str, says: str, labels: tuple[str, ...] = (), mode: Mode = "livemax") -> Gauge:
    return Gauge(f"taxi_{name}", says, labels, registry=REGISTRY, multiprocess_mode=mode)


REQUESTS = _counter("requests", "Requests answered.", ("route", "status"))
KEY_REQUESTS = _counter("key_requests", "Requests answered, by the name of the API key.", ("key", "status"))
LATENCY = Histogram(
    "taxi_request_seconds",
    "Seconds from the first byte read to the answer.",
    ("route",),
    buckets=SECONDS,
    registry=REGISTRY,
)
ERRORS = _counter("errors", "Answers that were the service's own fault (5xx).", ("route",))
PREDICTIONS = _counter("predictions", "Trips predicted for callers.", ("arm",))
SHADOWS = _counter("shadow_predictions", "Trips that the challenger predicted in the shadow.")
SHADOWS_DROPPED = _counter("shadow_dropped", "Trips not shadowed because the shadow was behind.")
FALLBACKS = _counter("challenger_failures", "Trips of the challenger's that the champion answered because it failed.")
SWAPS = _counter("swaps", "Times that another version took over.", ("arm",))
REFUSED = _gauge("refused_versions", "Versions that the aliases named and the service refused, now.")
VERSION = _gauge("model_version", "The version in use; 0 is none.", ("arm",))
AGE = _gauge("model_age_seconds", "Seconds since this service took up the version in use.", ("arm",))
TRAINED_TO = _gauge(
    "model_trained_to_timestamp_seconds",
    "End of the months that the version in use has learnt from, in seconds since 1970 (UTC).",
    ("arm",),
)
PENDING = _gauge("pending_swaps", "Versions that passed their examination and that a worker has not taken up, now.")
LOOKED = _gauge("registry_looked_timestamp_seconds", "When the registry was last asked what serves; 0 is never.")
DEGRADED = _gauge("degraded", "1 while the registry does not answer and the last good version serves.")
QUEUED = _gauge("log_queued_rows", "Rows of the prediction log that wait to be written.", mode="livesum")
LOST = _gauge("log_lost_rows", "Rows of the prediction log that were given up.", mode="livesum")


@lru_cache(maxsize=512)
def _requests(route: str, status: int) -> Counter:
    return REQUESTS.labels(route, str(status))


@lru_cache(maxsize=512)
def _key_requests(key: str, status: int) -> Counter:
    return KEY_REQUESTS.labels(key, str(status))


@lru_cache(maxsize=64)
def _latency(route: str) -> Histogram:
    return LATENCY.labels(route)


@lru_cache(maxsize=8)
def _predictions(arm: str) -> Counter:
    return PREDICTIONS.labels(arm)


def begin_at_zero(routes: Iterable[str], arms: Iterable[str]) -> None:
    """Export counters at 0 before they count: Prometheus' rate and increase do not see the rise to the first number of a new series."""
    for route in routes:
        ERRORS.labels(route)
        _requests(route, 200)
        _latency(route)
    for arm in arms:
        PREDICTIONS.labels(arm)
        SWAPS.labels(arm)


def count_request(route: str, status: int, seconds: float) -> None:
    """Count one answered request; ``route`` is a known path or ``other``, so that callers cannot make new series."""
    _requests(route, status).inc()
    _latency(route).observe(seconds)
    if status >= 500:
        ERRORS.labels(route).inc()


def count_key(key: str, status: int) -> None:
    """Count one answered request of the caller whose API key has the name ``key``."""
    _key_requests(key, status).inc()


def count_predictions(arm: str, trips: int = 1) -> None:
    """Count trips predicted by ``arm`` for callers."""
    _predictions(arm).inc(trips)


def _several() -> bool:
    return values.ValueClass is not values.MutexValue


def forget_process(pid: int) -> None:
    """Drop what a process that ended said of its present state; what it counted stays."""
    if _several():
        mark_process_dead(pid)


def exposition() -> bytes:
    """Return all numbers in Prometheus' text format, of all workers where there are several."""
    if not _several():
        return generate_latest(REGISTRY)
    together = CollectorRegistry()
    MultiProcessCollector(together)
    return generate_latest(together)
