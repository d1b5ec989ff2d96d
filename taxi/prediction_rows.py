"""Rows of the prediction store as plain values: checked and cast before they are written, completed when they are read."""

import math
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import pandas as pd

from taxi.clock import elapsed_minutes

Json = dict[str, Any]


def as_utc(time: datetime | str) -> datetime:
    """Return a moment as a zoneless datetime in UTC; one without a zone is taken to be in UTC already."""
    moment = datetime.fromisoformat(time) if isinstance(time, str) else time
    return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment


def _wall_clock(time: datetime | str) -> datetime:
    moment = datetime.fromisoformat(time) if isinstance(time, str) else time
    if moment.tzinfo:
        raise ValueError(f"expected New York wall-clock time without a zone; got {moment.isoformat()}")
    return moment


def _number(value: Any) -> float | None:
    number = None if value is None else float(value)
    return None if number is None or math.isnan(number) else number


def _minutes(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"expected finite minutes; got {number}")
    return number


REQUIRED: dict[str, Callable[[Any], Any]] = {
    "prediction_id": str,
    "made_at": as_utc,
    "service": str,
    "pickup": _wall_clock,
    "PULocationID": int,
    "DOLocationID": int,
    "arm": str,
    "version": int,
    **dict.fromkeys(("mean", "median", "p10", "p90"), _minutes),
}
OPTIONAL: dict[str, Callable[[Any], Any]] = {
    "trip_id": lambda value: None if value is None else str(value),
    **dict.fromkeys(("passenger_count", "trip_type", "vendor", "planned_distance_miles", "latency_ms"), _number),
    "shadow": bool,
    "fallback": bool,
}
OUTCOME = {"trip_id", "prediction_id", "duration", "dropoff", "source", "received_at", "key"}


def prediction_rows(rows: Sequence[Json]) -> list[Json]:
    """Return predictions with every column of the table; raise ValueError that names what is missing or unknown."""
    return [_prediction(row) for row in rows]


def _prediction(row: Json) -> Json:
    missing, unknown = REQUIRED.keys() - row.keys(), row.keys() - REQUIRED.keys() - OPTIONAL.keys()
    if missing or unknown:
        raise ValueError(f"expected a prediction; missing: {sorted(missing)}, unknown: {sorted(unknown)}")
    made = {name: cast(row[name]) for name, cast in REQUIRED.items()}
    return made | {name: cast(row.get(name)) for name, cast in OPTIONAL.items()}


def outcome_key(row: Json) -> str:
    """Return what an outcome is about: its trip where it names one, else its prediction; ValueError if neither."""
    for kind in ("trip", "prediction"):
        if row.get(f"{kind}_id"):
            return f"{kind}:{row[f'{kind}_id']}"
    raise ValueError("expected an outcome with trip_id or prediction_id; it has neither")


def outcome_rows(rows: Sequence[Json]) -> list[Json]:
    """Return outcomes with every column of the table, one a key: of several the one received last."""
    checked = sorted((_outcome(row) for row in rows), key=lambda one: one["received_at"])
    return list({one["key"]: one for one in checked}.values())


def _outcome(row: Json) -> Json:
    if unknown := row.keys() - OUTCOME:
        raise ValueError(f"expected an outcome with {sorted(OUTCOME)}; got also {sorted(unknown)}")
    duration, dropoff = row.get("duration"), row.get("dropoff")
    if duration is None and dropoff is None:
        raise ValueError("expected an outcome with duration or dropoff; it has neither")
    return {
        "key": outcome_key(row),
        **{name: OPTIONAL["trip_id"](row.get(name)) for name in ("trip_id", "prediction_id")},
        "duration": None if duration is None else _minutes(duration),
        "dropoff": None if dropoff is None else _wall_clock(dropoff),
        "source": str(row.get("source", "http")),
        "received_at": as_utc(row.get("received_at") or datetime.now(UTC)),
    }


def with_durations(joined: pd.DataFrame) -> pd.DataFrame:
    """Return the predictions with ``duration`` (minutes) filled from pickup and drop-off where only those are known."""
    lacking = joined["duration"].isna() & joined["dropoff"].notna()
    filled = joined["duration"].copy()
    for year, part in joined[lacking].groupby(joined["pickup"].dt.year):
        filled.loc[part.index] = elapsed_minutes(part["pickup"], part["dropoff"], f"{year}-01")
    return joined.assign(duration=filled)
