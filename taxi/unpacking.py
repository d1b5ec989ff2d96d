"""Bounds on what a file unpacks to, looked at before it is parsed: a bomb of a few megabytes must not become gigabytes.

Each check returns the fault, or None. None of them trusts a count that the file cannot hold.
"""

import struct
import zipfile
import zlib
from collections.abc import Iterable
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as arrow
import pyarrow.parquet as parquet

# --- What the files of a model may hold: nothing that needs pickle, and no more than memory should.

BEGINNINGS = {".json": (b"{",), ".npz": (b"PK\x03\x04",), ".parquet": (b"PAR1",), ".ubj": (b"{",)}
MEBIBYTE = 1024**2
MOST_BYTES = {".npz": 512 * MEBIBYTE, ".ubj": 512 * MEBIBYTE}
MOST_TEXT = MEBIBYTE
MOST_ROWS, MOST_TABLE = 1000, MEBIBYTE // 4  # of a model's table of zones, which has 265 rows and 20 kB


def content_fault(path: Path) -> str | None:
    """Return why a model's file may not be parsed; None if it begins as its format does, unpacks to little and holds no pickle."""
    expected, size = BEGINNINGS.get(path.suffix), path.stat().st_size
    if size > (most := MOST_BYTES.get(path.suffix, MOST_TEXT)):
        return f"has {size:,} bytes; at most {most:,} are allowed"
    with open(path, "rb") as stream:
        begins = stream.read(4)
    if expected and not begins.startswith(expected):
        kind = "a pickle" if begins[:1] == b"\x80" else "gzip" if begins[:2] == b"\x1f\x8b" else repr(begins)
        return f"is not a {path.suffix} file: it begins as {kind}"
    if path.suffix == ".npz":
        return npz_fault(path, MOST_BYTES[".npz"])
    if path.suffix == ".ubj":
        return ubjson_fault(path.read_bytes())
    return _table_fault(path) if path.suffix == ".parquet" else None


def _table_fault(path: Path) -> str | None:
    try:
        return parquet_fault(parquet.read_metadata(path), path.stat().st_size, MOST_ROWS, 0, 0, MOST_TABLE)
    except (arrow.ArrowException, OSError, ValueError) as error:
        return f"is not a .parquet file: {error}"


DEEPEST = 32
_NUMBERS = {b"Z": 0, b"N": 0, b"T": 0, b"F": 0, b"i": 1, b"U": 1, b"C": 1, b"I": 2, b"l": 4, b"d": 4, b"L": 8, b"D": 8}
_WHOLE = (b"i", b"U", b"I", b"l", b"L")


# What Python's own parser of archives raises over bytes that are none.
NO_ARCHIVE = (
    zipfile.BadZipFile, zlib.error, struct.error, ValueError, KeyError, EOFError, OSError, NotImplementedError, RuntimeError,
)  # fmt: skip


def zip_fault(members: Iterable[zipfile.ZipInfo], most: int) -> str | None:
    """Return why an archive may not be unpacked: its members have more than ``most`` bytes; none unpacks to more than it says."""
    size = sum(member.file_size for member in members)
    return f"unpacks to {size:,} bytes; at most {most:,} are allowed" if size > most else None


def npz_fault(path: Path, most: int) -> str | None:
    """Return why NumPy's archive may not be loaded: too large, a pickle, or an array that claims more than it holds."""
    try:
        with zipfile.ZipFile(path) as archive:
            if fault := zip_fault(archive.infolist(), most):
                return fault
            for member in archive.infolist():
                with archive.open(member) as stream:
                    if fault := _array_fault(stream, member):
                        return fault
    except NO_ARCHIVE as error:
        return f"is not a .npz file: {error}"
    return None


def _array_fault(stream: IO[bytes], member: zipfile.ZipInfo) -> str | None:
    header = _array_header(stream) if member.filename.endswith(".npy") else None
    if header is None or header[1].hasobject:
        return f"holds '{member.filename}', which is not a plain array: it would need pickle"
    shape, kind = header
    claimed = prod(shape) * kind.itemsize
    fault = f"holds '{member.filename}', which claims {claimed:,} bytes and has {member.file_size:,}"
    return fault if claimed > member.file_size or len(shape) > DEEPEST else None


def _array_header(stream: Any) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = np.lib.format.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"arrays of format {version} are not read")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, kind = read(stream)
    return shape, kind


SMALL_ROWS, SMALL_BYTES = 100_000, 16 * MEBIBYTE


def parquet_fault(
    metadata: Any, size: int, most_rows: int, least_bytes: float, most_unpacked: float, small: int = SMALL_BYTES
) -> str | None:
    """Return why a Parquet file of ``size`` bytes may not be read, by its footer: too many values, or too tightly packed.

    A row takes ``least_bytes`` of the file, and the file unpacks to ``most_unpacked`` times its size; what is small may be packed tightly.
    """
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    columns = [[group.column(number) for group in groups] for number in range(metadata.num_columns)]
    rows = max([metadata.num_rows, *(sum(one.num_values for one in column) for column in columns)])
    unpacked = sum(one.total_uncompressed_size for column in columns for one in column)
    if rows > most_rows:
        return f"has {rows:,} rows; at most {most_rows:,} are read"
    if rows > SMALL_ROWS and rows * least_bytes > size:
        return f"has {rows:,} rows in {size:,} bytes; a real one takes {least_bytes:g} bytes a row or more"
    if unpacked > max(small, most_unpacked * size):
        return f"unpacks from {size:,} to {unpacked:,} bytes; at most {max(small, most_unpacked * size):,.0f} are read"
    return None


# --- UBJSON, in which XGBoost keeps its models: its own parser ends the process over what is nested deeply, or claims too much.


def ubjson_fault(data: bytes) -> str | None:
    """Return why a document of UBJSON may not be parsed: nested too deeply, or with counts that it does not hold.

    Source: ubjson.org, draft 12; the types of arrays and objects (``$``) and their counts (``#``) included.
    """
    try:
        end = _skip(data, 1, data[:1], 0)
    except (ValueError, IndexError, KeyError) as error:
        return f"is not a whole .ubj file: {error}"
    return None if end <= len(data) else "is not a whole .ubj file: it ends too early"


def _count(data: bytes, at: int) -> tuple[int, int]:
    """Return a length or count, and where it ends."""
    kind = data[at : at + 1]
    if kind not in _WHOLE:
        raise ValueError(f"expected a length; got {kind!r}")
    after = at + 1 + _NUMBERS[kind]
    count = int.from_bytes(data[at + 1 : after], "big", signed=kind != b"U")
    if not 0 <= count <= len(data) - after:
        raise ValueError(f"a length of {count:,} in {len(data):,} bytes")
    return count, after


def _skip(data: bytes, at: int, kind: bytes, depth: int) -> int:
    """Return where a value of ``kind`` ends that begins at ``at``."""
    if kind in _NUMBERS:
        return at + _NUMBERS[kind]
    if kind in (b"S", b"H"):
        count, at = _count(data, at)
        return at + count
    if kind not in (b"[", b"{") or depth > DEEPEST:
        raise ValueError(
            f"nested more than {DEEPEST} times" if kind in (b"[", b"{") else f"no value begins with {kind!r}"
        )
    return _skip_container(data, at, kind, depth)


def _skip_container(data: bytes, at: int, kind: bytes, depth: int) -> int:
    of, count = b"", -1
    if data[at : at + 1] == b"$":
        of, at = data[at + 1 : at + 2], at + 2
    if data[at : at + 1] == b"#":
        count, at = _count(data, at + 1)
    if kind == b"[" and of in _NUMBERS and count >= 0:
        size = count * _NUMBERS[of]
        if size > len(data) - at:
            raise ValueError(f"{count:,} numbers in {len(data) - at:,} bytes")
        return at + size
    closing, tree = b"]" if kind == b"[" else b"}", dict[bytes, tuple[int, int]]()
    while count:
        if count < 0 and data[at : at + 1] == closing:
            at += 1
            break
        name = b""
        if kind == b"{":
            length, at = _count(data, at)
            name, at = data[at : at + length], at + length
        inner, at = (of, at) if of else (data[at : at + 1], at + 1)
        begun, at = at, _skip(data, at, inner, depth + 1)
        if name in TREE:
            tree[name] = (begun, at)
        count -= 1
    if tree:
        _check_tree({name: _numbers(data[begun:end], TREE[name]) for name, (begun, end) in tree.items()})
    return at


# The arrays of a booster's tree that its predictor follows without a look: where each node goes on, by which feature, and how.
TREE = {b"left_children": b"l", b"right_children": b"l", b"split_indices": b"l", b"split_type": b"U"}
MOST_FEATURES = 1000


def _numbers(value: bytes, of: bytes) -> np.ndarray:
    if not value.startswith(b"$" + of + b"#"):
        raise ValueError("a tree whose nodes are not as XGBoost writes them")
    count, begun = _count(value, 3)
    return np.frombuffer(value, {b"l": ">i4", b"U": "u1"}[of], count, begun)


def _check_tree(arrays: dict[bytes, np.ndarray]) -> None:
    """Raise ValueError unless every way down from the root ends, at nodes that are there, and no feature is out of reach."""
    left, right, feature, kind = (arrays.get(name, np.empty(0)) for name in TREE)
    children = np.concatenate([left, right])
    children = children[children != -1]
    whole = 0 < len(left) == len(right) == len(feature) == len(kind)
    there = ((children > 0) & (children < len(left))).all()
    once = there and (np.bincount(children, minlength=1) <= 1).all()
    if not (whole and once and ((feature >= 0) & (feature < MOST_FEATURES)).all() and not kind.any()):
        raise ValueError("a tree that leads back, or to what is not there")
