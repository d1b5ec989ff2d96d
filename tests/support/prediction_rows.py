"""Rows of the prediction log, and a wait that needs no server."""

import signal
from datetime import UTC, datetime
from typing import Any


def make_row(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "prediction_id": f"p{number:06d}", "made_at": datetime.now(UTC).isoformat(), "service": "green",
        "trip_id": f"green-2023-04-{number}", "pickup": datetime(2023, 4, 1, 10), "PULocationID": 74,
        "DOLocationID": 75, "passenger_count": float("nan"), "trip_type": 1.0, "vendor": 2.0, "arm": "champion",
        "shadow": False, "fallback": False, "version": 3, "mean": 10.5, "median": 9.5, "p10": 5.0, "p90": 20.0,
        "latency_ms": 1.25,
    } | changes  # fmt: skip


def wait_for(is_so: Any) -> None:
    for _ in range(2000):
        if is_so():
            return
        signal.sigtimedwait([], 0.01)
    raise AssertionError("it did not come to be within 20 s")
