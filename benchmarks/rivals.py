"""Other ways to serve a model, as processes of their own: what ``taxi serve`` is measured beside."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import httpx

from benchmarks.wrk import wrk
from taxi.registry.versions import model_name
from tests.support.postgres import free_port
from tests.support.serving_worlds import ServingWorld

PATIENCE = 180.0  # seconds to the first answer: such a service imports MLflow, and loads a model, before it
SHOWN = 4000  # characters of what a server wrote that an error repeats
Json = dict[str, Any]


def _written(log: IO[bytes]) -> str:
    log.seek(0)
    return log.read().decode(errors="replace")[-SHOWN:]


def _await_answer(process: "subprocess.Popen[bytes]", url: str, body: Json, what: str, log: IO[bytes]) -> None:
    until, last = time.monotonic() + PATIENCE, "nothing yet"
    with httpx.Client(timeout=30, trust_env=False) as client:  # no proxy between this machine and itself
        while time.monotonic() < until:
            if (code := process.poll()) is not None:
                raise RuntimeError(f"{what} ended with {code} before it answered. It wrote:\n{_written(log)}")
            try:
                answer = client.post(url, json=body)
            except httpx.HTTPError as error:
                last = repr(error)
            else:
                if answer.status_code == 200:
                    return
                last = f"{answer.status_code} {answer.text[:300]}"
            time.sleep(0.1)
    raise RuntimeError(f"{what} did not answer within {PATIENCE:g} s (last: {last}). It wrote:\n{_written(log)}")


@contextmanager
def running(what: str, words: list[str], environment: dict[str, str], url: str, body: Json) -> Iterator[None]:
    """Run a server until the block ends; RuntimeError with what it wrote where it does not come to answer ``body``."""
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(words, env=environment, stdout=log, stderr=log, start_new_session=True)
        try:
            _await_answer(process, url, body, what, log)
            yield
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def with_scripts(environment: dict[str, str]) -> dict[str, str]:
    """Return the environment with this Python's scripts on its path: MLflow starts ``uvicorn`` by that name."""
    path = os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH", os.defpath)])
    return environment | {"PATH": path}


def measure_seed(world: ServingWorld, file: Path, body: Json, seconds: float) -> Json:
    """Measure the service that loads its model per request, from what ``benchmarks.seed_service.fit`` left in ``file``."""
    port = free_port()
    words = [sys.executable, "-m", "benchmarks.seed_service", str(file), str(port)]
    url = f"http://127.0.0.1:{port}/predict"
    with running("the service that loads per request", words, world.environment, url, body):
        wrk(url, body, 2, 4)
        return wrk(url, body, seconds, 4)


def measure_mlflow(world: ServingWorld, body: Json, seconds: float) -> Json:
    """Measure ``mlflow models serve`` with one worker and our model."""
    port = free_port()
    words = [sys.executable, "-m", "mlflow", "models", "serve", "-m", f"models:/{model_name('green')}/1"]
    words += ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    url = f"http://127.0.0.1:{port}/invocations"
    with running("mlflow models serve", words, with_scripts(world.environment), url, body):
        wrk(url, body, 2)
        return wrk(url, body, seconds)
