"""Fetch of the publisher's months and zone files: whole, checked, and with a sidecar that says where they came from."""

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as arrow
import pyarrow.parquet as parquet
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from taxi.config import MonthPaths
from taxi.data.download import Unreachable
from taxi.data.origin import Edition, Origin, read_origin
from taxi.data.schema import synthetic_mark
from taxi.data.source import Shown, Source, month_name, open_source
from taxi.data.zones import parse_shapes, read_lookup
from taxi.errors import BadFile, TaxiError
from taxi.files import locked, publish, sha256_file, write_model

_LOG = logging.getLogger(__name__)
ZONE_FILES: dict[str, Callable[[Path], object]] = {"taxi_zone_lookup.csv": read_lookup, "taxi_zones.zip": parse_shapes}


def read_synthetic(path: Path) -> dict[str, Any] | None:
    """Return what the sample source wrote into a month about itself; None for real trips. Raises BadFile if it is no Parquet."""
    with open(path, "rb") as stream:
        head = stream.read(4)
    if head != b"PAR1":
        raise BadFile("not-parquet", f"expected Parquet (bytes that begin with PAR1); {path.name} begins with {head!r}")
    try:
        schema = parquet.read_schema(path)
    except (arrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise BadFile(
            "truncated", f"expected a whole Parquet file; the end of {path.name} cannot be read: {error}"
        ) from error
    return synthetic_mark(schema)


@contextmanager
def _progress(name: str) -> Iterator[Shown]:
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(name)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@dataclass(frozen=True)
class Fetched:
    """What came of a fetch: ``new``, ``same``, ``republished``, or ``unchecked`` (the source did not answer)."""

    path: Path
    outcome: str


def _still_there(kept: Edition, source: Source, name: str) -> bool | None:
    """Say whether the source still has the edition that is kept; None, with a warning, if it does not answer."""
    try:
        found = source.ask(name)
    except Unreachable as error:
        _LOG.warning("%s; going on with the edition of %s that is on hand", error, kept.fetched_at)
        return None
    return kept.address == source.address(name) and (kept.etag, kept.size) == (found["etag"], found["size"])


def _whole(path: Path, sidecar: Path) -> Origin | None:
    kept = read_origin(sidecar) if path.is_file() else None
    return kept if kept and kept.size == path.stat().st_size and kept.sha256 == sha256_file(path) else None


def fetch_file(
    source: Source,
    name: str,
    path: Path,
    describe: Callable[[Path], dict[str, Any]],
    before_replace: Callable[[Path], None] | None = None,
) -> Fetched:
    """Bring one file to ``path`` with its sidecar (JSON) beside it, unless what is there is what the source has.

    ``describe`` checks the new bytes (BadFile: they are kept as ``.rejected`` and the old file stays) and adds to the sidecar.
    ``before_replace`` is called with the old file before another edition takes its place. Safe for two processes at once.
    """
    sidecar, address = path.with_suffix(".json"), source.address(name)
    try:
        with locked(path.parent / f".{path.name}.lock"):
            return _fetch_locked(source, name, path, sidecar, address, describe, before_replace)
    except PermissionError as error:
        raise TaxiError(
            f"cannot write to {path.parent}: {error.strerror}; make it writable or set TAXI_DATA"
        ) from error


def _fetch_locked(
    source: Source,
    name: str,
    path: Path,
    sidecar: Path,
    address: str,
    describe: Callable[[Path], dict[str, Any]],
    before_replace: Callable[[Path], None] | None,
) -> Fetched:
    kept = _whole(path, sidecar)
    if kept:
        there = _still_there(kept, source, name)
        if there is not False:
            return Fetched(path, "same" if there else "unchecked")
    part = path.with_name(f".{path.name}.download")
    with _progress(path.name) as shown:
        found = source.bring(name, part, shown)
    sha256 = sha256_file(part)
    described = found | _described(part, path, describe)
    changed = kept is not None and kept.sha256 != sha256
    origin = Origin(
        **described,
        address=address,
        sha256=sha256,
        fetched_at=datetime.now(UTC).isoformat(timespec="seconds"),
        previous=[kept, *kept.previous] if kept else [],
    )
    if kept and changed:
        _LOG.warning("%s was republished: %s is replaced by %s", path.name, kept.sha256[:12], sha256[:12])
        if before_replace:
            before_replace(path)
    publish(part, path)
    write_model(sidecar, origin)
    _LOG.info("fetched %s (%s bytes)", address, f"{origin.size:,}")
    return Fetched(path, "republished" if changed else "same" if kept else "new")


def _described(part: Path, path: Path, describe: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    try:
        return describe(part)
    except BadFile as error:
        rejected = path.with_suffix(".rejected")
        publish(part, rejected)
        raise BadFile(error.rule, f"{error}. What came is kept as {rejected}") from error


def fetch_month(
    source: Source, service: str, month: str, paths: MonthPaths, before_replace: Callable[[Path], None] | None = None
) -> Fetched:
    """Bring the published month to ``paths.raw``; NotPublished, BadFile or Unreachable (nothing on hand) as they come."""
    paths.raw.parent.mkdir(parents=True, exist_ok=True)
    return fetch_file(
        source, month_name(service, month), paths.raw, lambda path: {"synthetic": read_synthetic(path)}, before_replace
    )


def _checked_by(read: Callable[[Path], object]) -> Callable[[Path], dict[str, Any]]:
    def describe(path: Path) -> dict[str, Any]:
        read(path)
        return {}

    return describe


def fetch_zones(source: Source, folder: Path) -> None:
    """Bring the zone lookup and the zone shapes into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)

    for name, read in ZONE_FILES.items():
        fetch_file(source, f"misc/{name}", folder / name, _checked_by(read))


def unchanged(address: str, service: str, month: str, paths: MonthPaths) -> bool:
    """Say whether the source still has the edition that is on hand; true, with a warning, if it does not answer."""
    kept, source = _whole(paths.raw, paths.sidecar), open_source(address)
    return kept is not None and _still_there(kept, source, month_name(service, month)) is not False
