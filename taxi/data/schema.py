"""Schema of trips, one for every service and edition: how published files are read, what kept trips look like."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pandera.pandas as pa
import pyarrow as arrow
import pyarrow.compute as compute
import pyarrow.parquet as parquet

from taxi.errors import BadFile
from taxi.files import Damaged
from taxi.params import AcceptParams
from taxi.unpacking import parquet_fault

PREFIX = {"yellow": "tpep", "green": "lpep"}
OTHER_SERVICES = {"fhvhv": "hvfhs_license_num", "fhv": "dispatching_base_num"}
SYNTHETIC_KEY = b"taxi.synthetic"
IS_TEXT = (arrow.types.is_string, arrow.types.is_large_string, arrow.types.is_binary, arrow.types.is_large_binary)
MOST_TEXT = 1000  # bytes of one text; real ones have one letter
SYNTHETIC_NOTE = "They come from the built-in sample source, not from the publisher."
SYNTHETIC_BANNER = f"Synthetic trips. {SYNTHETIC_NOTE}"
AT_PICKUP = ["pickup", "PULocationID", "DOLocationID", "passenger_count", "trip_type", "VendorID"]
REQUIRED = ["PULocationID", "DOLocationID", "VendorID", "trip_distance", "total_amount"]
OPTIONAL = ["passenger_count", "trip_type", "RatecodeID", "payment_type", "fare_amount"]
_INTEGERS = ("PULocationID", "DOLocationID")
_FLOATS = ("VendorID", "passenger_count", "trip_type", "RatecodeID", "payment_type")
_AMOUNTS = ("trip_distance", "fare_amount", "total_amount")


def _all_different(row: pd.Series) -> bool:
    """Say whether no row number comes twice; in the order of the file, as they come, that is seen without sorting."""
    return bool((np.diff(row) > 0).all()) or row.is_unique


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
_DTYPES = _ARROW.empty_table().to_pandas(use_threads=False).dtypes  # kernels are forked from a process of one thread


def _is_canonical(trips: pd.DataFrame) -> bool:
    """Say whether columns, order and types are canonical; a column each would take pandera longer than all the rules."""
    return trips.dtypes.equals(_DTYPES)


CANONICAL = pa.DataFrameSchema(
    {
        "row": pa.Column(
            checks=[pa.Check.ge(0), pa.Check(_all_different, error="field 'row' contains duplicate values")]
        ),
        "pickup": pa.Column(),
        "dropoff": pa.Column(),
        **{name: pa.Column(checks=pa.Check.in_range(1, 265)) for name in _INTEGERS},
        "duration": pa.Column(checks=pa.Check.gt(0)),
    },
    checks=pa.Check(_is_canonical, error=f"expected these columns in this order: {_DTYPES.astype(str).to_dict()}"),
)


@contextmanager
def open_published(path: Path, dictionaries: Sequence[str] = ()) -> Iterator[parquet.ParquetFile]:
    """Open a published file; raise BadFile, which says what the bytes are, if it is not Parquet or not whole.

    Columns in ``dictionaries`` are read as such: each of their texts is there once.
    """
    with path.open("rb") as stream:
        head = stream.read(4)
    if not head:
        raise BadFile("empty", f"expected a Parquet file as {path.name}; it has no bytes")
    if head != b"PAR1":
        raise BadFile("not-parquet", f"expected Parquet (bytes that begin with PAR1) as {path.name}; got {head!r}")
    try:
        with parquet.ParquetFile(path, read_dictionary=list(dictionaries)) as file:
            yield file
    except (arrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise BadFile(
            "truncated", f"expected a whole Parquet file as {path.name}; reading it failed: {error}"
        ) from error


def check_size(path: Path, accept: AcceptParams) -> None:
    """Raise BadFile if the file's footer says that it unpacks to more than a month can have; nothing else of it is read."""
    limits = accept.most_rows, accept.least_row_bytes, accept.most_unpacked
    with open_published(path) as file:
        if fault := parquet_fault(file.metadata, path.stat().st_size, *limits):
            raise BadFile("too-large", f"expected a month that fits into memory as {path.name}; it {fault}")


def take_rows(path: Path, rows: np.ndarray) -> arrow.Table:
    """Read some rows of a published file, all columns, by their numbers in rising order; one row group at a time in memory."""
    with open_published(path) as file:
        plain = file.schema_arrow
    texts = [field.name for field in plain if any(is_text(field.type) for is_text in IS_TEXT)]
    with open_published(path, texts) as file:
        parts, first = [plain.empty_table()], 0
        for group in range(file.num_row_groups):
            after = first + file.metadata.row_group(group).num_rows
            wanted = rows[(rows >= first) & (rows < after)] - first
            if len(wanted):
                table = file.read_row_group(group)
                _check_texts(table, path)
                parts.append(table.take(arrow.array(wanted, arrow.int64())).cast(plain))
            first = after
    return arrow.concat_tables(parts)


def _check_texts(table: arrow.Table, path: Path) -> None:
    """Raise BadFile for a text too long for so many rows: read as a dictionary it is there once, unpacked once a row."""
    for name, column in zip(table.column_names, table.columns, strict=True):
        texts = [chunk.dictionary for chunk in column.chunks if arrow.types.is_dictionary(column.type)]
        longest = max((compute.max(compute.binary_length(one)).as_py() or 0 for one in texts), default=0)
        if longest > MOST_TEXT:
            fault = f"expected texts of {MOST_TEXT} bytes at most in {path.name}; {name} has one of {longest:,}"
            raise BadFile("too-large", fault)


def _refuse_other_services(there: set[str], service: str) -> None:
    marks = {name: f"{prefix}_pickup_datetime" for name, prefix in PREFIX.items()} | OTHER_SERVICES
    if marks[service] in there:
        return
    for other, mark in marks.items():
        if mark in there:
            raise BadFile("wrong-service", f"expected a {service} file; its columns are those of a {other} file")


def published_names(published: Sequence[str], service: str) -> dict[str, str]:
    """Map canonical names to the published ones, whatever their case; raise BadFile if one is missing or repeated."""
    names = [name.lower() for name in published]
    _refuse_other_services(set(names), service)
    ends = {end: f"{PREFIX[service]}_{end}_datetime" for end in ("pickup", "dropoff")}
    wanted = ends | {name: name.lower() for name in (*REQUIRED, *OPTIONAL) if name in REQUIRED or name.lower() in names}
    if missing := [name for name in wanted.values() if name not in names]:
        raise BadFile("missing-column", f"expected columns {missing}; there are {list(published)}")
    if repeated := [name for name in wanted.values() if names.count(name) > 1]:
        raise BadFile("repeated-column", f"expected each column once; {repeated} are there more than once")
    return {name: published[names.index(lower)] for name, lower in wanted.items()}


def _is_number(kind: arrow.DataType) -> bool:
    known = arrow.types.is_integer, arrow.types.is_floating, arrow.types.is_decimal, arrow.types.is_null
    return any(is_known(kind) for is_known in known)


def check_type(published: arrow.DataType, name: str) -> None:
    """Raise BadFile unless a canonical column can be made of one of this type; nothing of it is read for that."""
    kind = _ARROW.field(name).type
    is_time = arrow.types.is_timestamp(published) and published.tz is None
    if not (is_time if arrow.types.is_timestamp(kind) else _is_number(published)):
        wanted = "a timestamp without a zone" if arrow.types.is_timestamp(kind) else kind
        raise BadFile("wrong-type", f"expected {name} as {wanted}; it is {published}")


def _cast(column: arrow.ChunkedArray, name: str, kind: arrow.DataType) -> arrow.ChunkedArray:
    check_type(published := column.type, name)
    try:
        return column.cast(kind, safe=not arrow.types.is_timestamp(kind))
    except arrow.ArrowInvalid as error:
        raise BadFile("wrong-type", f"expected {name} to fit {kind}; it is {published}: {error}") from error


def canonical_columns(table: arrow.Table, service: str) -> pd.DataFrame:
    """Return one row a published row: ``row``, both times, ids, counts, miles, dollars; missing values stay missing.

    Zone ids are float64 here, so that missing and impossible ones survive until a rule refuses them.
    """
    names = published_names(table.column_names, service)
    columns = {"row": arrow.array(np.arange(table.num_rows))}
    for field in _ARROW:
        if field.name in names:
            kind = arrow.float64() if field.name in _INTEGERS else field.type
            columns[field.name] = _cast(table[names[field.name]], field.name, kind)
        elif field.name in OPTIONAL:
            columns[field.name] = arrow.nulls(table.num_rows, arrow.float64())
    return arrow.table(columns).to_pandas()


def read_published(path: Path, service: str) -> pd.DataFrame:
    """Read a published file's rows by canonical names (``canonical_columns``); raise BadFile if it cannot be."""
    with open_published(path) as file:
        names = published_names(file.schema_arrow.names, service)
        for name, published in names.items():
            check_type(file.schema_arrow.field(published).type, name)
        table = file.read(columns=list(names.values()))
    return canonical_columns(table, service)


def synthetic_mark(schema: arrow.Schema) -> dict[str, Any] | None:
    """Return how the file was synthesised (seed and so on) if it says so, or None for a publisher's file."""
    if (mark := (schema.metadata or {}).get(SYNTHETIC_KEY)) is None:
        return None
    try:
        return dict(json.loads(mark))
    except (ValueError, TypeError, RecursionError) as error:
        raise BadFile("wrong-type", f"expected how it was made as JSON in the file's metadata: {error}") from error


def quarantine_table(rows: arrow.Table, reasons: pd.Series) -> arrow.Table:
    """Return refused rows as published, with ``row`` and ``reason``; a published column of such a name, or there twice, is renamed.

    Pandas' own notes on the published table are left out: they would be taken for this one's.
    """
    names, taken = [], {"row", "reason"}
    for name in rows.column_names:
        while name in taken:
            name = f"published_{name}"
        names.append(name)
        taken.add(name)
    notes = {key: value for key, value in (rows.schema.metadata or {}).items() if key != b"pandas"}
    whole = rows.rename_columns(names).replace_schema_metadata(notes)
    numbers = arrow.array(reasons.index.to_numpy(np.int64))
    return whole.append_column("row", numbers).append_column("reason", arrow.array(reasons.to_numpy(), arrow.string()))


def check_trips(trips: pd.DataFrame) -> pd.DataFrame:
    """Return kept trips in canonical order and types; raise pandera's SchemaError if one breaks the schema."""
    typed = trips.assign(**{name: trips[name].astype("int32") for name in _INTEGERS}).reindex(columns=_ARROW.names)
    return CANONICAL.validate(typed, inplace=True)  # its own copy would be the second


def to_arrow(trips: pd.DataFrame) -> arrow.Table:
    """Return kept trips as the Arrow table that is written to disk."""
    return arrow.Table.from_pandas(trips, schema=_ARROW, preserve_index=False)


@contextmanager
def _open_kept(path: Path) -> Iterator[parquet.ParquetFile]:
    try:
        with parquet.ParquetFile(path) as file:
            yield file
    except (arrow.ArrowException, EOFError, UnicodeDecodeError) as error:
        raise Damaged(
            f"expected Parquet at {path}; it cannot be read as any: {error}. Remove it and run `taxi clean`"
        ) from error


def check_kept(path: Path) -> None:
    """Raise Damaged, which names it, if a Parquet file of our own has no whole end: it was truncated or is something else."""
    with _open_kept(path):
        pass


def read_kept_rows(path: Path, columns: list[str] | None = None) -> arrow.Table:
    """Read a Parquet file of our own, trips or quarantine; raise Damaged, which names it, if it cannot be."""
    with _open_kept(path) as file:
        return file.read(columns=columns)


def read_trips(paths: Path | Sequence[Path], columns: list[str] | None = None) -> pd.DataFrame:
    """Read kept trips (canonical schema, or just ``columns``) of one or more months, in the order given."""
    several = [paths] if isinstance(paths, Path) else list(paths)
    tables = [read_kept_rows(path, columns) for path in several]
    schema = arrow.schema([field for field in _ARROW if columns is None or field.name in columns])
    merged = arrow.concat_tables([table.select(schema.names) for table in tables]) if tables else schema.empty_table()
    return merged.to_pandas()[columns or schema.names]
