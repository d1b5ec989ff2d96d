"""One schema for the trips of every service and edition: how published files are read, and what kept trips look like."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pandera.pandas as pa
import pyarrow as arrow
import pyarrow.parquet as parquet

from taxi.errors import BadFile

PREFIX = {"yellow": "tpep", "green": "lpep"}
AT_PICKUP = ["pickup", "PULocationID", "DOLocationID", "passenger_count", "trip_type", "VendorID"]
REQUIRED = ["PULocationID", "DOLocationID", "VendorID", "trip_distance", "total_amount"]
OPTIONAL = ["passenger_count", "trip_type", "RatecodeID", "payment_type", "fare_amount"]
_INTEGERS = ("PULocationID", "DOLocationID")
_FLOATS = ("VendorID", "passenger_count", "trip_type", "RatecodeID", "payment_type")
_AMOUNTS = ("trip_distance", "fare_amount", "total_amount")
_CLOCK = pa.Column("datetime64[us]")

CANONICAL = pa.DataFrameSchema(
    {
        "row": pa.Column("int64", pa.Check.ge(0), unique=True),
        "pickup": _CLOCK,
        "dropoff": _CLOCK,
        **{name: pa.Column("int32", pa.Check.in_range(1, 265)) for name in _INTEGERS},
        **{name: pa.Column("float64", nullable=True) for name in _FLOATS},
        **{name: pa.Column("float64", nullable=True) for name in _AMOUNTS},
        "null_block": pa.Column("bool"),
        "distance_suspect": pa.Column("bool"),
        "duration": pa.Column("float64", pa.Check.gt(0)),
    },
    strict=True,
    ordered=True,
)
_ARROW = arrow.schema(
    [
        ("row", arrow.int64()),
        ("pickup", arrow.timestamp("us")),
        ("dropoff", arrow.timestamp("us")),
        *((name, arrow.int32()) for name in _INTEGERS),
        *((name, arrow.float64()) for name in (*_FLOATS, *_AMOUNTS)),
        ("null_block", arrow.bool_()),
        ("distance_suspect", arrow.bool_()),
        ("duration", arrow.float64()),
    ]
)


def read_table(path: Path) -> arrow.Table:
    """Read a published file as it is, all columns; raise BadFile that says what the bytes are if they are not Parquet."""
    with open(path, "rb") as stream:
        head = stream.read(4)
    if head != b"PAR1":
        raise BadFile("not-parquet", f"expected Parquet (bytes that begin with PAR1) in {path.name}; it begins with {head!r}")
    try:
        return parquet.read_table(path)
    except (arrow.ArrowInvalid, arrow.ArrowException, OSError) as error:
        raise BadFile("truncated", f"expected a whole Parquet file in {path.name}; reading it failed: {error}") from error


def published_names(table: arrow.Table, service: str) -> dict[str, str]:
    """Map canonical names to the published ones, without regard to case; raise BadFile for a wrong or missing column."""
    there = {name.lower(): name for name in table.column_names}
    prefix = PREFIX[service]
    wanted = {"pickup": f"{prefix}_pickup_datetime", "dropoff": f"{prefix}_dropoff_datetime"}
    other = next((name for name, mark in PREFIX.items() if name != service and f"{mark}_pickup_datetime" in there), None)
    if wanted["pickup"] not in there and other:
        raise BadFile("wrong-service", f"expected a {service} file; its columns are those of a {other} file")
    wanted |= {name: name for name in (*REQUIRED, *(name for name in OPTIONAL if name.lower() in there))}
    missing = [name for name in wanted.values() if name.lower() not in there]
    if missing:
        raise BadFile("missing-column", f"expected columns {missing}; there are {table.column_names}")
    return {name: there[published.lower()] for name, published in wanted.items()}


def new_columns(table: arrow.Table, known: Sequence[str]) -> list[str]:
    """Return the published columns that ``known`` (names of an earlier edition) does not have; empty without one."""
    earlier = {name.lower() for name in known}
    return [name for name in table.column_names if earlier and name.lower() not in earlier]


def _cast(column: arrow.ChunkedArray, name: str, kind: arrow.DataType) -> arrow.ChunkedArray:
    published = column.type
    numeric = arrow.types.is_integer(published) or arrow.types.is_floating(published) or arrow.types.is_null(published)
    timely = arrow.types.is_timestamp(published) and published.tz is None
    if not (timely if arrow.types.is_timestamp(kind) else numeric):
        raise BadFile("wrong-type", f"expected {name} as {kind}; it is {published}")
    try:
        return column.cast(kind, safe=not arrow.types.is_timestamp(kind))
    except arrow.ArrowInvalid as error:
        raise BadFile("wrong-type", f"expected {name} to fit {kind}; it is {published}: {error}") from error


def canonical_columns(table: arrow.Table, service: str) -> pd.DataFrame:
    """Return one row a published row: ``row``, both times, ids, counts, miles, dollars; missing values stay missing.

    Zone ids are float64 here, so that missing and impossible ones survive until a rule refuses them.
    """
    names = published_names(table, service)
    columns = {"row": arrow.array(range(table.num_rows), arrow.int64())}
    for field in _ARROW:
        if field.name in names:
            kind = arrow.float64() if field.name in _INTEGERS else field.type
            columns[field.name] = _cast(table[names[field.name]], field.name, kind)
        elif field.name in OPTIONAL:
            columns[field.name] = arrow.nulls(table.num_rows, arrow.float64())
    return arrow.table(columns).to_pandas()


def check_trips(trips: pd.DataFrame) -> pd.DataFrame:
    """Return kept trips in canonical order and types; raise pandera's SchemaError if one breaks the schema."""
    typed = trips.astype({name: "int32" for name in _INTEGERS})[_ARROW.names]
    return CANONICAL.validate(typed)


def to_arrow(trips: pd.DataFrame) -> arrow.Table:
    """Return kept trips as the Arrow table that is written to disk."""
    return arrow.Table.from_pandas(trips, schema=_ARROW, preserve_index=False)


def read_trips(paths: Path | Sequence[Path], columns: list[str] | None = None) -> pd.DataFrame:
    """Read kept trips (canonical schema, or just ``columns``) of one or more months, in the order given."""
    several = [paths] if isinstance(paths, Path) else list(paths)
    tables = [parquet.read_table(path, columns=columns) for path in several]
    schema = arrow.schema([field for field in _ARROW if columns is None or field.name in columns])
    merged = arrow.concat_tables([table.select(schema.names) for table in tables]) if tables else schema.empty_table()
    return merged.to_pandas()[columns or schema.names]

