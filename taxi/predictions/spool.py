"""Rows that wait on disk for their database: small files, each whole, oldest first; those of a service that is gone are taken over."""

import json
import logging
import os
import shutil
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from pydantic_core import to_json

from taxi.files import append_lines, lock_is_held

_LOG = logging.getLogger(__name__)
Entry = tuple[str, dict[str, Any]]  # a table and a row of it
PART, WHOLE, REFUSED = ".part", ".jsonl", "refused.jsonl"


def _plain(value: Any) -> Any:
    return value.item()  # numpy's


def encode_rows(entries: Sequence[Entry]) -> tuple[list[str], int]:
    """Return one line of JSON an entry (table, row), and how many could not be written as one."""
    lines = []
    for entry in entries:
        try:
            lines.append(to_json(entry, fallback=_plain, inf_nan_mode="constants").decode() + "\n")
        except (TypeError, ValueError, AttributeError) as error:
            _LOG.error("a row for %s cannot be written as JSON and is lost: %s", entry[0], error)
    return lines, len(entries) - len(lines)


def read_rows(segment: Path) -> tuple[list[Entry], list[str]]:
    """Return the entries of a segment, and its lines that are none; a last line without an end is left out as torn."""
    entries, bad = [], []
    for line in segment.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]:
        try:
            table, row = json.loads(line)
            entries.append((table, row))
        except (ValueError, TypeError, RecursionError):
            bad.append(line + "\n")
    return entries, bad


def add_segment(folder: Path, lines: Sequence[str]) -> int:
    """Write the lines as one segment of ``folder``; return its bytes. Raises OSError if the disk does not take them.

    Several processes may add to one folder. A segment is made with one rename after one write, without a sync: kill -9 cannot
    tear it, a power cut can lose the newest. Its name says when, by whom, and how many rows.
    """
    whole = folder / f"{time.time_ns():020d}-{os.getpid()}-{len(lines)}{WHOLE}"
    part, content = whole.with_suffix(PART), "".join(lines).encode()
    try:
        part.write_bytes(content)
        part.rename(whole)
    except OSError:
        part.unlink(missing_ok=True)
        raise
    return len(content)


def count_rows(segment: Path) -> int:
    """Return how many rows a segment has, by its name where that says so."""
    named = segment.stem.split("-")[2:]
    return int(named[0]) if named and segment.suffix == WHOLE else segment.read_bytes().count(b"\n")


def segments_of(folder: Path, unfinished: bool = False) -> list[Path]:
    """Return the segments of a folder, oldest first; with those that nobody will finish any more where ``unfinished``."""
    return sorted(folder.glob("[0-9]*" if unfinished else f"[0-9]*{WHOLE}"))


class Spool:
    """The folders of segments below ``place`` that this process holds, each by a lock that ends with it, however it ends."""

    def __init__(self, place: Path) -> None:
        self.place, self._locks = place, dict[Path, FileLock]()
        place.mkdir(parents=True, exist_ok=True)

    @property
    def folders(self) -> list[Path]:
        """The folders that are held."""
        return list(self._locks)

    def make_folder(self) -> Path:
        """Return a new folder that nobody takes over as long as this process lives."""
        folder = self.place / uuid.uuid4().hex
        self._hold(folder)
        folder.mkdir()
        return folder

    def take_over(self) -> list[Path]:
        """Take the folders that no living process holds; return those that were not held here before."""
        others = [path for path in sorted(self.place.iterdir()) if path.is_dir() and path not in self._locks]
        return [folder for folder in others if self._hold(folder)]

    def _hold(self, folder: Path) -> bool:
        lock = _lock_of(folder)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return False
        self._locks[folder] = lock
        return True

    def refuse(self, lines: Sequence[str]) -> Path:
        """Put rows that no database will take aside, for a person to look at; return where."""
        aside = self.place / REFUSED
        append_lines(aside, lines)
        return aside

    def close(self) -> None:
        """Let go of the folders; those with nothing left to write are removed, the others wait for the next start."""
        for folder, lock in self._locks.items():
            if folder.is_dir() and not any(folder.iterdir()):
                shutil.rmtree(folder)
            lock.release()
            if not folder.is_dir():
                Path(lock.lock_file).unlink(missing_ok=True)


def waiting_folders(place: Path) -> list[Path]:
    """Return the folders of rows below ``place`` whose service no longer lives."""
    there = sorted(path for path in place.iterdir() if path.is_dir()) if place.is_dir() else []
    return [
        path
        for path in there
        if segments_of(path, unfinished=True) and not lock_is_held(Path(_lock_of(path).lock_file))
    ]


def _lock_of(folder: Path) -> FileLock:
    return FileLock(folder.with_name(f".{folder.name}.lock"), thread_local=False)
