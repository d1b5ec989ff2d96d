"""Locks between machines: one holder at a time, a killed one frees it, and one who lost it writes no more."""

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from taxi import locks
from taxi.errors import UsageError
from taxi.files import LockHeld
from taxi.locks import LockLost, hold, holder_of, lock_place
from tests.support.forks import fork
from tests.support.postgres import Postgres

KEYS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": "us-east-1"}


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (KEYS | {"AWS_ENDPOINT_URL": "http://{}:{}".format(*server.get_host_and_port())}).items():
            patch.setenv(name, value)
        boto3.client("s3").create_bucket(Bucket="locks")
        yield "s3://locks/taxi"
    server.stop()


@pytest.fixture(params=["file", "postgresql", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "file":
        return f"{tmp_path}/"
    server = request.getfixturevalue("postgres" if request.param == "postgresql" else "s3")
    return server.address if isinstance(server, Postgres) else server


def test_one_holds_a_lock_and_who_waits_too_long_is_told_who(place: str) -> None:
    with hold(place, "one") as lock:
        lock.check()
        with pytest.raises(
            LockHeld, match=f"the lock one at .* is held by process {os.getpid()} .*since 20.*Z.*; waited for 0.1 s"
        ):
            with hold(place, "one", timeout=0.1):
                pass
        with hold(place, "another", timeout=0):
            pass

    assert holder_of(place, "one") == ""
    with hold(place, "one", timeout=0):
        pass


def add_often(place: str, counter: Path, times: int) -> None:
    for _ in range(times):
        with hold(place, "counter") as lock:
            number = int(counter.read_text())
            time.sleep(0.01)
            lock.check()
            counter.write_text(str(number + 1))


def test_of_what_processes_do_under_a_lock_nothing_is_lost(place: str, tmp_path: Path) -> None:
    counter = tmp_path / "counter"
    counter.write_text("0")
    running = [fork(add_often, place, counter, 3) for _ in range(3)]
    for process in running:
        process.join()

    assert [process.exitcode for process in running] == [0, 0, 0]
    assert counter.read_text() == "9"


def hold_for_ever(place: str, ready: Path) -> None:
    with hold(place, "killed"):
        ready.touch()
        time.sleep(600)


def test_a_killed_holder_frees_the_lock(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "LEASE_SECONDS", 2.0)  # the holder's is not looked at by itself
    process = fork(hold_for_ever, place, tmp_path / "ready")
    while not (tmp_path / "ready").exists():
        assert process.is_alive()
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.join()

    with hold(place, "killed", timeout=10):
        pass


def test_who_was_taken_the_lease_from_is_told_before_it_writes(s3: str) -> None:
    with hold(s3, "stolen") as lock:
        said = json.dumps({"holder": "process 1 on another", "mark": "x"}).encode()
        boto3.client("s3").put_object(Bucket="locks", Key="taxi/stolen.lock", Body=said)
        with pytest.raises(LockLost, match="stolen was lost, and nothing more was written: it is held by process 1"):
            lock.check()

    assert holder_of(s3, "stolen") == "process 1 on another"  # and is not freed by who lost it


def test_where_locks_are_is_decided_by_the_registrys_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TAXI_LOCKS", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))

    assert lock_place(f"sqlite:///{tmp_path}/mlflow.db") == f"{tmp_path}/.mlflow.db."
    assert lock_place("postgresql://db/mlflow") == "postgresql://db/mlflow"
    assert lock_place("http://mlflow:5000") == f"{tmp_path}/.taxi/"
    monkeypatch.setenv("TAXI_LOCKS", "s3://bucket/locks")
    assert lock_place("http://mlflow:5000") == "s3://bucket/locks"
    with pytest.raises(UsageError, match=r"expected TAXI_LOCKS as .*; got 'ftp://x'"):
        with hold("ftp://x", "green"):
            pass
