"""Outcomes (ground truth): the publisher's month joined to the trips that were predicted in a replay of it."""

from typing import Any

import pandas as pd

from taxi.config import Settings
from taxi.data.schema import read_trips
from taxi.errors import UsageError
from taxi.predictions.store import Store


def replayed_id(service: str, month: str, row: int) -> str:
    """Return the id of a trip that is replayed: service, month and its row in the published file."""
    return f"{service}-{month}-{row}"


SOURCE = "tlc"
AT_ONCE = 5_000
SAME = ["pickup", "PULocationID", "DOLocationID"]


def join_month(
    logged: pd.DataFrame, kept: pd.DataFrame, service: str, month: str
) -> tuple[pd.DataFrame, dict[str, int]]:
    """Return trip_id, duration (minutes) and dropoff of the predicted trips that the month kept, and counts of trips.

    ``predicted`` = ``outcomes`` + ``not_kept`` (the month refused that row, or has none of that number) + ``changed`` (time or
    zones are not those that were predicted: the month was published anew since, and its rows are others).
    """
    trips = logged.drop_duplicates("trip_id")[["trip_id", *SAME]]
    there = kept.assign(trip_id=[replayed_id(service, month, row) for row in kept["row"]])
    joined = trips.merge(there[["trip_id", *SAME, "duration", "dropoff"]], on="trip_id", suffixes=("", "_published"))
    same = pd.concat([joined[name] == joined[f"{name}_published"] for name in SAME], axis=1).all(axis=1)
    found = joined.loc[same, ["trip_id", "duration", "dropoff"]]
    counts = {"predicted": len(trips), "outcomes": len(found), "changed": int((~same).sum())}
    return found, counts | {"not_kept": len(trips) - len(joined)}


def take_month(store: Store, settings: Settings, service: str, month: str) -> dict[str, Any]:
    """Write the outcomes of the month's replayed trips; return the counts of ``join_month``. May be repeated."""
    path = settings.month(service, month).trips
    if not path.is_file():
        raise UsageError(f"no kept trips of {service} {month} are on hand: `taxi ingest` brings them")
    kept = read_trips(path, ["row", *SAME, "dropoff", "duration"])
    found, counts = join_month(store.of_trips(service, f"{service}-{month}-"), kept, service, month)
    rows = found.assign(source=SOURCE, service=service).to_dict("records")
    for first in range(0, len(rows), AT_ONCE):
        store.write_outcomes(rows[first : first + AT_ONCE])  # type: ignore[arg-type]
    return {"service": service, "month": month, **counts}
