"""A real Prefect server for tests and benchmarks, with a home of its own."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
from tenacity import Retrying, stop_after_delay, wait_fixed

from taxi.files import locked, staged
from tests.support.databases import give_prefect_home
from tests.support.postgres import free_port

LOOPS = ("SCHEDULER", "LATE_RUNS", "CANCELLATION_CLEANUP", "PAUSE_EXPIRATIONS", "FOREMAN", "TRIGGERS")
IDLE = {f"PREFECT_SERVER_SERVICES_{name}_ENABLED": "false" for name in LOOPS}


@contextmanager
def running_prefect(home: Path, **more: str) -> Iterator[str]:
    """Give the API address of a server whose data lie in ``home``, a new one; stop it in the end.

    It schedules nothing and looks after no worker: what asks its database every few seconds would take as long as the tests.
    """
    give_prefect_home(home)
    port = str(free_port())
    command = [sys.executable, "-m", "uvicorn", "--factory", "prefect.server.api.server:create_app"]
    command += ["--port", port, "--log-level", "error"]  # as `prefect server start` does after seconds of imports
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, env={**os.environ, "PREFECT_HOME": str(home), **IDLE, **more}, **quiet)
    address = f"http://127.0.0.1:{port}/api"
    try:
        for attempt in Retrying(stop=stop_after_delay(400), wait=wait_fixed(0.5)):
            with attempt:
                httpx.get(f"{address}/health").raise_for_status()
        yield address
    finally:
        process.kill()  # its home is thrown away with it
        process.wait()


def shared_prefect(place: Path, owner: int) -> str:
    """Return the API address of the server in ``place``; who asks first starts it, and it ends with the process ``owner``."""
    said = place / "address"
    with locked(place.with_suffix(".lock")):
        if not said.exists():
            quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            command = [sys.executable, "-m", __name__, str(place), str(owner)]
            subprocess.Popen(command, start_new_session=True, **quiet)
            for attempt in Retrying(stop=stop_after_delay(400), wait=wait_fixed(0.2)):
                with attempt:
                    said.read_text()
    return said.read_text()


def flow_runs(address: str, like: str = "") -> dict[str, str]:
    """Return the state of every flow run whose name has ``like`` in it, by its id."""
    asked = {"limit": 200, "flow_runs": {"name": {"like_": like}}}
    runs = httpx.post(f"{address}/flow_runs/filter", json=asked, timeout=120).raise_for_status().json()
    return {run["id"]: run["state_type"] for run in runs}


def wait_until_running(address: str, runs: int) -> None:
    """Return when so many flow runs are under way; give up after some minutes, for slow machines."""
    for attempt in Retrying(stop=stop_after_delay(400), wait=wait_fixed(0.2)):
        with attempt:
            assert list(flow_runs(address).values()).count("RUNNING") == runs


if __name__ == "__main__":
    with running_prefect(Path(sys.argv[1])) as serving:
        with staged(Path(sys.argv[1]) / "address") as part:
            part.write_text(serving)
        while psutil.pid_exists(int(sys.argv[2])):
            time.sleep(1)
