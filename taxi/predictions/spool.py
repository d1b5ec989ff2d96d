"""Rows that wait on disk for their database: small files, each whole, oldest first; a dead writer's are taken over."""

import json
import logging
import shutil
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from pydantic_core import to_json

from taxi.files import lock_is_held

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
        except ValueError:
            bad.append(line + "\n")
    return entries, bad


class Spool:
    """One writer's folder of segments below ``place``, held by a lock as long as its process lives.

    ``adopted`` are the folders taken over from writers that no longer live; their segments come first. A segment is made with one
    rename after one write, without a sync: kill -9 cannot tear it, a power cut can lose the newest.
    """

    def __init__(self, place: Path) -> None:
        self.folder, self.adopted = place / uuid.uuid4().hex, list[Path]()
        place.mkdir(parents=True, exist_ok=True)
        self._number = 0
        self._locks = {self.folder: _lock_of(self.folder)}
        self._locks[self.folder].acquire(timeout=0)
        self.folder.mkdir()

    def take_over(self) -> list[Path]:
        """Take the folders of writers that no longer live; return the segments in them, also those they did not finish."""
        others = [path for path in sorted(self.folder.parent.iterdir()) if path.is_dir() and path not in self._locks]
        dead = [folder for folder in others if self._adopt(folder)]
        self.adopted += dead
        return [segment for folder in dead for segment in _in_order(folder)]

    def _adopt(self, folder: Path) -> bool:
        lock = _lock_of(folder)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return False
        self._locks[folder] = lock
        return True

    def add(self, lines: Sequence[str]) -> int:
        """Write the lines as one segment; return its bytes. Raises OSError if the disk does not take them."""
        part = self.folder / f"{self._number:012d}{PART}"
        content = "".join(lines).encode()
        try:
            part.write_bytes(content)
            part.rename(part.with_suffix(WHOLE))
        except OSError:
            part.unlink(missing_ok=True)
            raise
        self._number += 1
        return len(content)

    def segments(self) -> list[Path]:
        """Return the segments that wait, oldest first."""
        old = [segment for folder in self.adopted for segment in _in_order(folder)]
        return [*old, *sorted(self.folder.glob(f"*{WHOLE}"))]

    def refuse(self, lines: Sequence[str]) -> Path:
        """Put rows that no database will take aside, for a person to look at; return where."""
        aside = self.folder.parent / REFUSED
        with aside.open("a", encoding="utf-8") as stream:
            stream.writelines(lines)
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
    """Return the folders of rows below ``place`` whose writer no longer lives."""
    there = sorted(path for path in place.iterdir() if path.is_dir()) if place.is_dir() else []
    return [path for path in there if _in_order(path) and not lock_is_held(Path(_lock_of(path).lock_file))]


def _in_order(folder: Path) -> list[Path]:
    return sorted(folder.glob("[0-9]*"))


def _lock_of(folder: Path) -> FileLock:
    return FileLock(folder.with_name(f".{folder.name}.lock"), thread_local=False)
