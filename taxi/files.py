"""Atomic file writes (staged, synced, renamed), file locks between processes, and SHA-256 hashes."""

import errno
import hashlib
import json
import logging
import os
import re
import shutil
import socket
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from filelock import FileLock, Timeout

from taxi.errors import TaxiError

if TYPE_CHECKING:
    from pydantic import TypeAdapter

_LOG = logging.getLogger(__name__)
STAGING_MARK = ".part-"
Document = TypeVar("Document")


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sync_tree(path: Path) -> None:
    for inner in path.rglob("*") if path.is_dir() else ():
        _sync(inner)
    _sync(path)


def publish(staged: Path, target: Path) -> None:
    """Move a complete file or folder to ``target`` in one rename, synced to disk; replaces what was there."""
    target.parent.mkdir(parents=True, exist_ok=True)
    _sync_tree(staged)
    if target.is_dir():
        old = staging_path(target)
        target.rename(old)
        staged.rename(target)
        shutil.rmtree(old)
    else:
        os.replace(staged, target)
    _sync(target.parent)


class NoRoom(TaxiError):
    """A file could not be written whole: the disk is full, or a limit is reached; nothing else is wrong."""


NO_ROOM = {
    errno.ENOSPC: "no space left on its disk",
    errno.EDQUOT: "the quota of its disk is used up",
    errno.EFBIG: "the largest size that a file may have here (ulimit -f) is reached",
}


@contextmanager
def making_room_known(target: Path) -> Iterator[None]:
    """Turn a full disk, a quota or a file-size limit into NoRoom, which names the file; the system's error names none."""
    try:
        yield
    except OSError as error:
        if why := NO_ROOM.get(error.errno or 0):
            raise NoRoom(f"cannot write {target}: {why}; make room and run again: nothing was half-written") from error
        raise


@contextmanager
def staged(target: Path) -> Iterator[Path]:
    """Give a temporary path beside ``target``; publish it if the block ends well, remove it if it raises."""
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = staging_path(target)
    try:
        with making_room_known(target):
            yield part
            publish(part, target)
    finally:
        remove(part)


def staging_path(target: Path, end: str | None = None) -> Path:
    """Return a hidden path beside ``target`` that says who writes it; its end is random where none is given."""
    return target.with_name(f".{target.stem}{STAGING_MARK}{owner_mark()}-{end or uuid.uuid4().hex[:8]}{target.suffix}")


def remove(path: Path) -> None:
    """Remove a file or folder if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def is_left(part: Path) -> bool:
    """Say whether whoever writes a staging file or folder no longer lives."""
    return not owner_lives(part, part.name.split(STAGING_MARK, 1)[1])


def left_staging(folder: Path) -> list[Path]:
    """Return what processes that no longer live left half-written under ``folder``."""
    parts = (
        Path(place, name)
        for place, folders, files in os.walk(folder)  # which passes over what vanishes meanwhile
        for name in (*folders, *files)
        if name.startswith(".") and STAGING_MARK in name
    )
    return [part for part in parts if is_left(part)]


def remove_staging(folder: Path) -> list[Path]:
    """Remove what processes that no longer live left half-written under ``folder``; return what was removed."""
    leftovers = left_staging(folder)
    for path in leftovers:
        with suppress(FileNotFoundError):  # another start removed it first
            remove(path)
    return leftovers


# --- Who writes a file is part of its name: a process's number, and where such numbers count.

ABANDONED_SECONDS = 86_400.0  # what another machine or container writes is left alone until it is this old
_OWNER = re.compile(r"(\d+)-(?:([0-9a-f]{8})-)?")


def pid_namespace(process: int | str = "self") -> str:
    """Return the PID namespace of a process: containers have their own; "" where the system has none."""
    return str(Path(f"/proc/{process}/ns/pid").readlink())[5:-1] if Path("/proc/self/ns/pid").exists() else ""


@cache
def _pids_place() -> str:
    return hashlib.sha256(f"{socket.gethostname()}/{pid_namespace()}".encode()).hexdigest()[:8]


def owner_mark() -> str:
    """Return this process's number with the place (machine and PID namespace) that it counts in."""
    return f"{os.getpid()}-{_pids_place()}"


def owner_lives(path: Path, mark: str) -> bool:
    """Say whether the writer of ``path`` lives, by the ``owner_mark`` that ``mark`` begins with.

    Of another place nobody here can say: it counts as living while the file is not ``ABANDONED_SECONDS`` old.
    """
    owner = _OWNER.match(mark)
    if owner is None:
        return False
    if owner[2] not in (None, _pids_place()):
        with suppress(FileNotFoundError):
            return time.time() - path.stat().st_mtime < ABANDONED_SECONDS
    return Path("/proc", owner[1]).exists()


def write_json(path: Path, content: Any) -> None:
    """Write ``content`` as JSON (sorted, indented, NaN refused), whole or not at all."""
    with staged(path) as part:
        part.write_text(json.dumps(content, indent=1, sort_keys=True, allow_nan=False) + "\n", encoding="utf-8")


LOG_BYTES = 10 * 2**20  # a file that is only appended to is put aside, and a new one begun, when it has so many


def log_parts(path: Path) -> list[Path]:
    """Return the files of a rotated log, oldest first: those put aside, named after the time, then the one that is appended to."""
    return [*sorted(path.parent.glob(f"{path.name}.[0-9]*")), *([path] if path.is_file() else [])]


@contextmanager
def changing_log(path: Path) -> Iterator[None]:
    """Hold the lock of a log: whoever appends to it, puts it aside, or writes it anew."""
    with locked(path.with_name(f".{path.name}.lock"), timeout=60):
        yield


def append_lines(path: Path, lines: Iterable[str]) -> None:
    """Append lines to a log, synced to disk and rotated by size; a line that a killed process left torn is ended first."""
    with changing_log(path), making_room_known(path):
        if path.is_file() and path.stat().st_size >= LOG_BYTES:
            path.rename(path.with_name(f"{path.name}.{datetime.now(UTC):%Y%m%dT%H%M%S%f}"))
        with open(path, "ab+") as stream:
            torn = stream.tell() and stream.seek(-1, os.SEEK_END) and stream.read(1) != b"\n"
            stream.write("".join(["\n" if torn else "", *lines]).encode("utf-8", "surrogateescape"))
            stream.flush()
            os.fsync(stream.fileno())


def append_json(path: Path, rows: Iterable[Any]) -> None:
    """Append rows to a log of one JSON object a line; without rows nothing is made."""
    if lines := [json.dumps(row, sort_keys=True, allow_nan=False) + "\n" for row in rows]:
        append_lines(path, lines)


class Damaged(TaxiError):
    """A file of this installation that does not hold what it should; the message names it and says what to do."""


def read_json(path: Path, remedy: str = "Move it away and run the command again") -> Any:
    """Read a JSON file; one that is damaged raises Damaged, which names it."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise Damaged(f"expected JSON at {path}; it cannot be read as any: {error}. {remedy}") from error


def read_yaml(path: Path, remedy: str = "Restore it from git") -> Any:
    """Read a YAML file; one that is damaged, by merge marks say, raises Damaged, which names it."""
    import yaml

    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        said = " ".join(str(error).split())[:200]
        raise Damaged(f"expected YAML at {path}; it cannot be read as any: {said}. {remedy}") from error


def read_kept(path: Path) -> dict[str, Any]:
    """Read a JSON object that is kept to save work, a cache; an empty one where there is none, or it is damaged: it is made anew."""
    if not path.is_file():
        return {}
    try:
        kept = read_json(path, "It is made anew")
    except Damaged as error:
        _LOG.warning("%s", error)
        return {}
    return kept if isinstance(kept, dict) else {}


@cache
def _make_adapter(kind: Any) -> "TypeAdapter[Any]":
    from pydantic import TypeAdapter

    return TypeAdapter(kind)


def _adapter(kind: Any) -> "TypeAdapter[Any]":
    return _make_adapter(kind)


def as_json(document: object) -> Any:
    """Return a typed document (pydantic model or dataclass) as JSON-able values."""
    return _adapter(type(document)).dump_python(document, mode="json")


def from_json(content: Any, kind: type[Document]) -> Document:
    """Return JSON-able values as a typed document; raises pydantic's ValidationError if they are none."""
    document: Document = _adapter(kind).validate_python(content)
    return document


def write_model(path: Path, document: object) -> None:
    """Write a typed document as JSON, whole or not at all."""
    write_json(path, as_json(document))


def read_model(path: Path, kind: type[Document], what: str, remedy: str) -> Document:
    """Read a JSON file as a typed document.

    A damaged file, or one of something else, raises Damaged that names ``what`` was expected, the path, the faults and the
    ``remedy``.
    """
    from pydantic import ValidationError

    try:
        document: Document = _adapter(kind).validate_json(path.read_bytes())
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, fault['loc'])) or 'as a whole'}: {fault['msg']}" for fault in error.errors()]
        listed = "; ".join(faults[:3]) + f"; and {len(faults) - 3} more" * (len(faults) > 3)
        raise Damaged(f"expected {what} as JSON at {path}; it cannot be read as one: {listed}. {remedy}") from error
    return document


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_tree(folder: Path, pattern: str = "**/*") -> str:
    """Return one SHA-256 over names and bytes of the files under ``folder`` that match, whatever the order on disk."""
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.glob(pattern) if p.is_file() and "__pycache__" not in p.parts):
        digest.update(f"{path.relative_to(folder).as_posix()}\0{sha256_file(path)}\n".encode())
    return digest.hexdigest()


def sha256_json(content: Any) -> str:
    """Return the SHA-256 of ``content`` written as canonical JSON."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, allow_nan=False).encode()).hexdigest()


def lock_is_held(path: Path) -> bool:
    """Say whether a process holds the lock now; the system lets go of a lock when its process ends, however it ends."""
    if not path.is_file():
        return False
    lock = FileLock(path, thread_local=False)
    try:
        with lock.acquire(timeout=0):
            return False
    except Timeout:
        return True


def lock_holder(path: Path) -> str:
    """Return which process holds the lock, and since when it runs, as far as the system says so of this machine's (and container's)."""
    import psutil  # only where somebody waits

    table, inode = Path("/proc/locks"), path.stat().st_ino if path.exists() else 0
    lines = [line.split() for line in table.read_text().splitlines()] if table.exists() else []
    pids = [line[4] for line in lines if line[1] == "FLOCK" and line[5].endswith(f":{inode}") and int(line[4]) > 0]
    try:
        begun = datetime.fromtimestamp(psutil.Process(int(pids[0])).create_time(), UTC)
    except (IndexError, psutil.NoSuchProcess):
        return "another process"
    return f"process {pids[0]} that runs since {begun:%Y-%m-%dT%H:%M:%SZ}"


class LockFailed(TaxiError):
    """A lock between processes could not be taken: its folder cannot be written, or another process holds it too long."""


class LockHeld(LockFailed):
    """Another process holds the lock."""


@contextmanager
def locked(path: Path, timeout: float = 3600) -> Iterator[None]:
    """Hold an exclusive lock between processes, named by ``path``; raises LockFailed, after ``timeout`` s at the latest."""
    lock = FileLock(path, timeout=timeout)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        raise LockHeld(f"{lock_holder(path)} has held the lock {path} for {timeout:g} s; wait for its end") from error
    except OSError as error:
        why = f"{error.strerror or error}; the folder must be there to be written"
        raise LockFailed(f"cannot take the lock {path}: {why}") from error
    try:
        yield
    finally:
        lock.release()
