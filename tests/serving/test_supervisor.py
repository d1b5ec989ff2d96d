"""A worker that hangs is replaced, while its siblings answer."""

import signal
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
    running = world.running("--workers", "2", PYTHONPATH=paths).start().ready()
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


def answers(service: Running) -> bool:
    """Ask over a new connection: one that the hanging worker had accepted would wait for its end."""
    try:
        return httpx.post(f"{service.url}/predict", json=TRIP, timeout=2).status_code == 200
    except httpx.TransportError:
        return False


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGUSR1], ids=["stopped", "spinning"])
def test_a_worker_that_hangs_is_replaced_while_its_sibling_answers(service: Running, number: signal.Signals) -> None:
    before = wait_for(lambda: workers(service), "two workers")
    hanging, asked, began = min(before), list[bool](), time.monotonic()

    psutil.Process(hanging).send_signal(number)
    while psutil.pid_exists(hanging) and time.monotonic() - began < 15:
        asked.append(answers(service))
        time.sleep(0.1)

    wait_for(lambda: workers(service) - before, "another in its place", 15 - (time.monotonic() - began))
    assert sum(asked) > 5 and asked.count(False) <= 2, asked
    assert hanging not in workers(service) and before - {hanging} < workers(service)
    assert "hangs: no heartbeat" in service.log.read_text()
