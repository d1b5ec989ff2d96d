"""A real Prefect server for tests and benchmarks, with a home of its own."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from tenacity import Retrying, stop_after_delay, wait_fixed

from tests.support.databases import give_prefect_home
from tests.support.postgres import free_port

LOOPS = ("SCHEDULER", "LATE_RUNS", "CANCELLATION_CLEANUP", "PAUSE_EXPIRATIONS", "FOREMAN", "TRIGGERS")
IDLE = {f"PREFECT_SERVER_SERVICES_{name}_ENABLED": "false" for name in LOOPS}


@contextmanager
def running_prefect(home: Path) -> Iterator[str]:
    """Give the API address of a server whose data lie in ``home``, a new one; stop it in the end.

    It schedules nothing and looks after no worker: what asks its database every few seconds would take as long as the tests.
    """
    give_prefect_home(home)
    port = str(free_port())
    command = [sys.executable, "-m", "uvicorn", "--factory", "prefect.server.api.server:create_app"]
    command += ["--port", port, "--log-level", "error"]  # as `prefect server start` does after seconds of imports
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, env={**os.environ, "PREFECT_HOME": str(home), **IDLE}, **quiet)
    address = f"http://127.0.0.1:{port}/api"
    try:
        for attempt in Retrying(stop=stop_after_delay(400), wait=wait_fixed(0.5)):
            with attempt:
                httpx.get(f"{address}/health").raise_for_status()
        yield address
    finally:
        process.kill()  # its home is thrown away with it
        process.wait()


def flow_runs(address: str) -> dict[str, str]:
    """Return the state of every flow run, by its id."""
    found = httpx.post(f"{address}/flow_runs/filter", json={"limit": 200}, timeout=120).raise_for_status().json()
    return {one["id"]: one["state_type"] for one in found}


def wait_until_running(address: str, runs: int) -> None:
    """Return when so many flow runs are under way; give up after some minutes, for slow machines."""
    for attempt in Retrying(stop=stop_after_delay(400), wait=wait_fixed(0.2)):
        with attempt:
            assert list(flow_runs(address).values()).count("RUNNING") == runs
