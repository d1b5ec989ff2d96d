"""Batch scoring: a month's trips in, a prediction for each that can be scored out, Parquet both."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as arrow
import pyarrow.parquet as parquet

from taxi.config import Settings
from taxi.data.schema import AT_PICKUP, check_type, open_published, read_published
from taxi.data.trips import refuse_at_pickup
from taxi.errors import BadFile, UsageError
from taxi.files import sha256_file, staged
from taxi.models.model import DurationModel
from taxi.outputs import OUTPUTS

NEEDED = ["pickup", "PULocationID", "DOLocationID"]
SCORED = arrow.schema(
    [("row", arrow.int64()), *((name, arrow.float64()) for name in OUTPUTS), ("version", arrow.int32())]
)


def read_requests(path: Path, service: str) -> pd.DataFrame:
    """Return ``row`` and what is known at pickup of every trip in a Parquet file; raise BadFile if it is no such file.

    The file is a published month, or one with this package's names: kept trips, or trips that have only begun, of which
    pickup (New York wall-clock) and both zones must be there. Without ``row`` trips are numbered from 0.
    """
    with open_published(path) as file:
        there = file.schema_arrow.names
        if "pickup" not in there:
            return read_published(path, service)[["row", *AT_PICKUP]]
        if missing := [name for name in NEEDED if name not in there]:
            raise BadFile("missing-column", f"expected columns {missing} in {path.name}; there are {there}")
        wanted = [name for name in ("row", *AT_PICKUP) if name in there]
        if repeated := [name for name in wanted if there.count(name) > 1]:
            raise BadFile("repeated-column", f"expected each column once; {repeated} are there more than once")
        for name in wanted:
            check_type(file.schema_arrow.field(name).type, name)
        found = file.read(columns=wanted).to_pandas()
    numbered = {"row": np.arange(len(found))} if "row" not in found else {}
    lacking = {name: np.nan for name in AT_PICKUP if name not in found}
    types = {"pickup": "datetime64[us]", **dict.fromkeys(AT_PICKUP[1:], "float64")}
    return found.assign(**numbered, **lacking).astype(types)[["row", *AT_PICKUP]]


def score_trips(trips: pd.DataFrame, model: DurationModel, version: int, at_once: int = 200_000) -> arrow.Table:
    """Return row, mean, median, p10 and p90 (minutes) and version of every trip, in the order given."""
    parts = [_score_part(trips[first : first + at_once], model, version) for first in range(0, len(trips), at_once)]
    return arrow.concat_tables(parts) if parts else SCORED.empty_table()


def _score_part(trips: pd.DataFrame, model: DurationModel, version: int) -> arrow.Table:
    predicted = model.predict(trips)[OUTPUTS].assign(row=trips["row"], version=version)
    return arrow.Table.from_pandas(predicted, schema=SCORED, preserve_index=False)


def score_file(
    path: Path, out: Path, service: str, month: str, model: DurationModel, version: int, marks: dict[str, str]
) -> dict[str, Any]:
    """Score the trips of ``path`` into ``out``, whole or not at all; return the counts, with the reasons of those left out.

    Only what is known at pickup decides which trips are scored. ``marks`` go into the file's metadata, to lead back from it.
    """
    trips = read_requests(path, service)
    refused = refuse_at_pickup(trips, month)
    marks = marks | {"service": service, "month": month, "scored_sha256": sha256_file(path)}
    scored = score_trips(trips[refused == ""], model, version)
    with staged(out) as part:
        parquet.write_table(
            scored.replace_schema_metadata({f"taxi.{name}": mark for name, mark in marks.items()}), part
        )
    reasons = refused[refused != ""].value_counts().sort_index()
    return {
        "service": service,
        "month": month,
        "rows": len(trips),
        "scored": scored.num_rows,
        "not_scorable": {str(name): int(count) for name, count in reasons.items()},
        "version": version,
        "out": str(out),
    }


def month_to_score(settings: Settings, service: str, month: str) -> Path:
    """Return the published month that is on hand, else its kept trips; raise UsageError that says how to get them."""
    paths = settings.month(service, month)
    for path in (paths.raw, paths.trips):
        if path.is_file():
            return path
    raise UsageError(
        f"no trips of {service} {month} are on hand: `taxi ingest --service {service} --month {month}` fetches them"
    )
