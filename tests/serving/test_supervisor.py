"""A worker that hangs is replaced, while its siblings answer; a writer that is killed costs no row."""

import signal
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.support.serving_worlds import TRIP, Running, make_world, wait_for

pytestmark = pytest.mark.slow
SPIN = """
import signal

def spin(*_):
    while True:
        pass

signal.signal(signal.SIGUSR1, spin)
"""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, small_models: dict[int, Path]) -> Iterator[Running]:
    """Two workers whose main thread can be made to spin in a loop of Python by SIGUSR1."""
    world = make_world(tmp_path_factory.mktemp("supervised"), {1: small_models[1]})
    (world.place / "spin").mkdir()
    (world.place / "spin" / "sitecustomize.py").write_text(SPIN, encoding="utf-8")
    paths = f"{world.place / 'spin'}:{world.environment['PYTHONPATH']}"
    running = world.running("--workers", "2", PYTHONPATH=paths)
    running.interpreter = True
    running.start().ready()
    yield running
    assert running.stop() == 0, running.log.read_text()


def workers(service: Running) -> set[int]:
    """Return the process ids of both workers: those that have the service's socket."""
    port = int(service.url.rpartition(":")[2])
    children = psutil.Process(service.process.pid).children(recursive=True)
    listening = {
        child.pid
        for child in children
        if any(one.laddr.port == port and one.status == "LISTEN" for one in child.net_connections())
    }
    assert len(listening) == 2
    return listening


def all_have_a_model(service: Running) -> bool:
    log = service.log.read_text()
    return log.count("serves as champion") == 2 + log.count("hangs: no heartbeat")


def answers(service: Running) -> bool:
    """Ask over a new connection: one that the hanging worker had accepted would wait for its end."""
    try:
        return httpx.post(f"{service.url}/predict", json=TRIP, timeout=2).status_code == 200
    except httpx.TransportError:
        return False


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGUSR1], ids=["stopped", "spinning"])
def test_a_worker_that_hangs_is_replaced_while_its_sibling_answers(service: Running, number: signal.Signals) -> None:
    wait_for(lambda: all_have_a_model(service), "two workers with a model")
    before = workers(service)
    hanging, asked, began = min(before), list[bool](), time.monotonic()

    psutil.Process(hanging).send_signal(number)
    while psutil.pid_exists(hanging) and time.monotonic() - began < 15:
        asked.append(answers(service))
        time.sleep(0.1)

    wait_for(lambda: workers(service) - before, "another in its place", 15 - (time.monotonic() - began))
    assert sum(asked) > 5 and asked.count(False) <= 2, asked
    assert hanging not in workers(service) and before - {hanging} < workers(service)
    assert "hangs: no heartbeat" in service.log.read_text()


def test_predictions_wait_on_disk_for_a_writer_that_was_killed(service: Running) -> None:
    serving = wait_for(lambda: workers(service), "two workers")
    warm = [child for child in psutil.Process(service.process.pid).children() if "forkserver" in str(child.cmdline())]
    others = [child for child in warm[0].children() if child.pid not in serving]
    assert len(others) == 2, "the follower and the writer"

    for child in others:
        child.kill()
    made = [httpx.post(f"{service.url}/predict", json=TRIP, timeout=30).json()["prediction_id"] for _ in range(20)]

    database = sqlite3.connect(service.place / "data" / "predictions.db")
    wanted = f"SELECT COUNT(*) FROM predictions WHERE prediction_id IN ({','.join('?' * len(made))})"
    wait_for(lambda: database.execute(wanted, made).fetchone() == (20,), "every row", 60)
    database.close()
