"""Locks that machines share: a file, an advisory lock of a PostgreSQL session, or an object on S3 with a lease.

Whoever changes what machines share (a service's aliases, a month's versions) holds one, and asks ``check`` before each write: a
connection may have broken, or a lease run out, meanwhile. A holder that is killed or cut off loses it within 30 s.
"""

import hashlib
import json
import logging
import os
import random
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from threading import Event, RLock, Thread
from typing import Any, Protocol
from urllib.parse import urlsplit

import sqlalchemy as sql

from taxi.addresses import redact, shown, sqlite_file
from taxi.config import expand_home, load_locks
from taxi.database import StoreDown, open_engine, reaching
from taxi.errors import NoAnswer, UsageError
from taxi.files import LockFailed, LockHeld, lock_holder, lock_is_held, locked

_LOG = logging.getLogger(__name__)
WAIT_SECONDS = 3600.0
QUIET_SECONDS = 2.0  # of waiting, before it is said who is waited for


class LockLost(LockFailed, NoAnswer):
    """This process held the lock and holds it no more: its connection broke, or its lease ran out; nothing more was written."""


class LocksDown(LockFailed, NoAnswer):
    """What keeps the locks did not answer, or refused."""


class Lock(Protocol):
    """A lock as one process sees it."""

    def take(self) -> bool:
        """Take the lock if it is free, at once; return whether it was."""

    def check(self) -> None:
        """Raise LockLost unless this process holds the lock now."""

    def holder(self) -> str:
        """Return who holds the lock and since when, as far as that can be known; "" if it is free."""

    def release(self) -> None:
        """Give the lock back, if it is held."""


def lock_place(tracking_uri: str) -> str:
    """Return where a registry's locks are: TAXI_LOCKS, or its PostgreSQL server, or beside its SQLite file.

    An MLflow server has none of its own: without TAXI_LOCKS they are files in ``~/.taxi``, which hold for one machine.
    A place of files is what their paths begin with.
    """
    if declared := load_locks():
        return declared if urlsplit(declared).scheme else f"{declared}/"
    if database := sqlite_file(tracking_uri):
        return f"{database.absolute().parent}/.{database.name}."
    if urlsplit(tracking_uri).scheme.startswith("postgresql"):
        return tracking_uri
    return f"{expand_home(Path('~/.taxi'))}/"


def is_shared(place: str) -> bool:
    """Say whether the locks hold between machines: those that are files do so only on a folder that machines share."""
    return bool(urlsplit(place).scheme)


def _open(place: str, name: str) -> Lock:
    scheme = urlsplit(place).scheme.partition("+")[0]
    if scheme == "postgresql":
        return _SessionLock(place, name)
    if scheme == "s3" and urlsplit(place).netloc:
        return _LeasedLock(place, name)
    if not scheme:
        return _FileLock(Path(f"{place}{name}.lock"))
    raise UsageError(
        f"expected TAXI_LOCKS as postgresql+psycopg2://…, s3://bucket/prefix or a folder; got {shown(place)!r}"
    )


@contextmanager
def hold(place: str, name: str, timeout: float = WAIT_SECONDS) -> Iterator[Lock]:
    """Hold the lock ``name`` at ``place`` (``lock_place``); raises LockHeld, which names the holder, after ``timeout`` s."""
    lock = _open(place, name)
    try:
        _wait(lock, f"{name} at {shown(place)}", timeout)
        yield lock
    finally:
        lock.release()


def _wait(lock: Lock, what: str, timeout: float) -> None:
    begun, told = time.monotonic(), False
    while not lock.take():
        waited = time.monotonic() - begun
        if waited >= timeout:
            holder = lock.holder() or "one who has just let go of it"
            raise LockHeld(
                f"the lock {what} is held by {holder}; waited for {timeout:g} s: wait for its end, or end that process"
            )
        if waited > QUIET_SECONDS and not told:
            _LOG.warning("waiting for the lock %s, held by %s", what, lock.holder())
            told = True
        time.sleep(min(random.uniform(0.05, 0.3), timeout))


def holder_of(place: str, name: str) -> str:
    """Return who holds the lock now, "" if nobody does; nothing is taken or made."""
    lock = _open(place, name)
    try:
        return lock.holder()
    finally:
        lock.release()


def _signature() -> str:
    """Return this process and the time, as others read them in messages; 63 characters at most, a session's name on PostgreSQL."""
    at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return f"process {os.getpid()} since {at} on {socket.gethostname()}"[:63]


# --- One machine: a file. The system lets go of the lock when its process ends, however it ends.


class _FileLock:
    def __init__(self, path: Path) -> None:
        self._path, self._held = path, ExitStack()

    def take(self) -> bool:
        try:
            self._held.enter_context(locked(self._path, timeout=0))
        except LockHeld:
            return False
        return True

    def check(self) -> None:
        """Nothing takes the lock from a process that lives."""

    def holder(self) -> str:
        return lock_holder(self._path) if lock_is_held(self._path) else ""

    def release(self) -> None:
        self._held.close()


# --- PostgreSQL: an advisory lock ends with its session, which the server ends when the client's machine no longer answers.

ROOM = 7_012_026  # the first number of our advisory locks: pg_locks.classid
SESSION = {
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "20000",
    "idle_session_timeout": "0",
}
_SET = "SELECT set_config(key, value, false) FROM json_each_text(:session) JOIN pg_settings ON name = key"
_HELD = """SELECT application_name, pid FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE locktype = 'advisory' AND granted
 AND classid = :room AND objid = :key AND objsubid = 2 AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"""


class _SessionLock:
    def __init__(self, address: str, name: str) -> None:
        self._address, self._name, self._held = shown(address), name, False
        self._keys = {"room": ROOM, "key": int.from_bytes(hashlib.sha256(name.encode()).digest()[:4]) >> 1}
        self._engine = open_engine(address, "place of the locks", "TAXI_LOCKS")
        self._session: sql.Connection | None = None

    def _ask(self, statement: str, **given: Any) -> Any:
        if self._session is not None and self._session.invalidated:
            raise StoreDown(f"its session at {self._address} is gone")
        with reaching("place of the locks", self._address):
            if self._session is None:
                self._session = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
                self._session.execute(sql.text(_SET), {"session": json.dumps(SESSION)})
            return self._session.execute(sql.text(statement), self._keys | given).all()

    def take(self) -> bool:
        ((self._held,),) = self._ask("SELECT pg_try_advisory_lock(:room, :key)")
        if self._held:
            self._ask("SELECT set_config('application_name', :by, false)", by=f"taxi {_signature()}"[:63])
        return self._held

    def check(self) -> None:
        try:
            if self._ask(f"{_HELD} AND pid = pg_backend_pid()"):
                return
            why = "its session is another one now: locks need a connection without a pooler between"
        except StoreDown as error:
            why = str(error)
        raise LockLost(f"the lock {self._name} was lost, and nothing more was written: {why}; run the command again")

    def holder(self) -> str:
        held = self._ask(_HELD)
        return " and ".join(f"{name.removeprefix('taxi ')} (session {pid})" for name, pid in held)

    def release(self) -> None:
        try:
            if self._held:
                self._ask("SELECT pg_advisory_unlock(:room, :key)")
        except StoreDown as error:
            _LOG.warning("the lock %s ends with its session: %s", self._name, error)
        finally:
            if self._session is not None:
                self._session.close()
            self._engine.dispose()


# --- S3: an object that says who holds it, changed only by conditional writes. Its age, by S3's own clock, is the lease's.

LEASE_SECONDS = 20.0  # an object that was not written for so long is free to take
RENEW_SECONDS = 4.0
CHANGED = (404, 409, 412)  # gone, written by two at once, or not what If-Match named


@contextmanager
def _asking(address: str) -> Iterator[None]:
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except (BotoCoreError, ClientError) as error:
        raise LocksDown(
            f"the locks at {address} cannot be read or written: {redact(str(error))}; "
            "the bucket must be there, with s3:GetObject, s3:PutObject and s3:ListBucket allowed"
        ) from error


class _LeasedLock:
    def __init__(self, address: str, name: str) -> None:
        import boto3
        from botocore.config import Config

        parts, self._address, self._name = urlsplit(address), shown(address), name
        self._object = {"Bucket": parts.netloc, "Key": f"{parts.path}/{name}.lock".strip("/").replace("//", "/")}
        patience = Config(connect_timeout=3, read_timeout=3, retries={"total_max_attempts": 2, "mode": "standard"})
        with _asking(self._address):
            self._client = boto3.session.Session().client("s3", config=patience)
        self._etag, self._since = "", ""
        self._one_at_a_time, self._ended = RLock(), Event()
        self._renewing = Thread(target=self._keep, name="lease", daemon=True)

    def _read(self) -> tuple[dict[str, Any], str, float] | None:
        """Return what the object says, its ETag, and the seconds since it was written; None where there is none."""
        from botocore.exceptions import ClientError

        with _asking(self._address):
            try:
                got = self._client.get_object(**self._object)
            except ClientError as error:
                if error.response["Error"]["Code"] == "NoSuchKey":
                    return None
                raise
            said = json.loads(got["Body"].read())
        now = parsedate_to_datetime(got["ResponseMetadata"]["HTTPHeaders"]["date"])
        return said, got["ETag"], (now - got["LastModified"]).total_seconds()

    def _write(self, holder: str, **condition: str) -> bool:
        """Write the object if the condition holds; a write whose answer was lost, and that was sent again, is known by its mark."""
        from botocore.exceptions import ClientError

        mark = uuid.uuid4().hex
        said = {"holder": holder, "mark": mark}
        with _asking(self._address):
            try:
                self._etag = self._client.put_object(**self._object, Body=json.dumps(said).encode(), **condition)[
                    "ETag"
                ]
            except ClientError as error:
                if error.response["ResponseMetadata"]["HTTPStatusCode"] not in CHANGED or _has_no_bucket(error):
                    raise
                there = self._read()
                if there is None or there[0]["mark"] != mark:
                    return False
                self._etag = there[1]
        return True

    def take(self) -> bool:
        there = self._read()
        if there is not None and there[0]["holder"] and there[2] < LEASE_SECONDS:
            return False
        said, etag, _ = there or ({"holder": ""}, "", 0.0)
        self._since = _signature()
        if not self._write(self._since, **({"IfMatch": etag} if etag else {"IfNoneMatch": "*"})):
            return False
        # not every server that speaks S3's language looks and writes in one step: of two that were let in, one is sent back here
        if not self._renew():
            return False
        if said["holder"]:
            _LOG.warning("the lock %s is taken from %s, who renewed it last long ago", self._name, said["holder"])
        self._renewing.start()
        return True

    def _renew(self) -> bool:
        with self._one_at_a_time:
            return self._write(self._since, IfMatch=self._etag)

    def _keep(self) -> None:
        while not self._ended.wait(RENEW_SECONDS):
            try:
                if not self._renew():
                    _LOG.error("the lock %s was lost: another took it", self._name)
                    return
            except LocksDown as error:
                _LOG.warning("the lease of the lock %s could not be renewed: %s", self._name, error)

    def check(self) -> None:
        """Renew the lease, which only the holder can, so that all of it is left for the write; raises LockLost otherwise."""
        try:
            if self._renew():
                return
            there = self._read()
            why = f"it is held by {there[0]['holder'] or 'nobody'}" if there else "it is gone"
        except LocksDown as error:
            why = str(error)
        raise LockLost(f"the lock {self._name} was lost, and nothing more was written: {why}; run the command again")

    def holder(self) -> str:
        there = self._read()
        if there is None or there[2] >= LEASE_SECONDS:
            return ""
        return str(there[0]["holder"])

    def release(self) -> None:
        self._ended.set()
        if not self._renewing.ident:
            return
        self._renewing.join()
        try:
            self._write("", IfMatch=self._etag)
        except LocksDown as error:
            _LOG.warning("the lock %s is free in %g s: %s", self._name, LEASE_SECONDS, error)


def _has_no_bucket(error: Any) -> bool:
    return bool(error.response["Error"]["Code"] == "NoSuchBucket")
