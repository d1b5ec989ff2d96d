"""CPU seconds that short commands cost, as ratios to ``python -c pass`` in the same run: help, status, a finished month, a typing error.

The places are the measurement's own: a small checkout, one sample month that is run first, and a registry. ``--python``
measures another checkout's installation in the same way.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from taxi.data.synthetic import write_sample
from taxi.files import write_json
from tests.support.automation import SMALL, make_checkout

ONE = ("--service", "green", "--month", "2024-01", "--no-version")


def _seconds(command: list[str], environment: dict[str, str], folder: Path, code: int) -> tuple[float, float]:
    """Return the CPU and wall seconds of a command and of what it started; raise RuntimeError if it ends with another code."""
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)
    after, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter() - begun
    if done.returncode != code:
        raise RuntimeError(f"expected {command} to end with {code}; got {done.returncode}: {done.stderr[-2000:]}")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall


def _environment(place: Path) -> dict[str, str]:
    places = {f"TAXI_{name.upper()}": str(place / name) for name in ("source", "data", "reports")}
    own = {"MLFLOW_TRACKING_URI": f"sqlite:///{place}/mlflow.db", "PREFECT_HOME": str(place / "prefect")}
    return {**os.environ, **places, **own}


def measure(place: Path, python: str, times: int) -> dict[str, Any]:
    """Return each command's median CPU seconds, their ratio to an empty Python, and its median wall seconds."""
    checkout, broken = (
        make_checkout(place / name, {"model": model}) for name, model in (("good", SMALL), ("bad", {"rouds": 3}))
    )
    write_sample(place / "source", "green", ["2024-01"], rows=3000)
    used, empty, taxi = _environment(place), _environment(place / "empty"), [str(Path(python).with_name("taxi"))]
    _seconds([*taxi, "run", *ONE], used, checkout, 0)
    commands = {
        "python -c pass": ([python, "-c", "pass"], used, checkout, 0),
        "taxi --help": ([*taxi, "--help"], used, checkout, 0),
        "taxi run --help": ([*taxi, "run", "--help"], used, checkout, 0),
        "taxi status, nothing there": ([*taxi, "status"], empty, checkout, 0),
        "taxi status": ([*taxi, "status"], used, checkout, 0),
        "taxi run, finished": ([*taxi, "run", *ONE], used, checkout, 0),
        "taxi run, a wrong month": ([*taxi, "run", "--service", "green", "--month", "2024-13"], used, checkout, 2),
        "taxi run, params.yaml wrong": ([*taxi, "run", *ONE], used, broken, 2),
        "taxi serve, params.yaml wrong": ([*taxi, "serve", "--service", "green"], used, broken, 2),
    }
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for _ in range(times):  # by turns: what else the machine does falls on all alike
        for name, command in commands.items():
            taken[name].append(_seconds(*command))
    cpu = {name: median(one for one, _ in seconds) for name, seconds in taken.items()}
    return {
        name: {
            "cpu_seconds": round(cpu[name], 3),
            "ratio": round(cpu[name] / cpu["python -c pass"], 1),
            "wall_seconds": round(median(wall for _, wall in seconds), 2),
        }
        for name, seconds in taken.items()
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", default=sys.executable, help="The interpreter whose installation is measured.")
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("build/bench/startup.json"))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="taxi-startup-") as folder:
        result = measure(Path(folder), given.python, given.times)
    write_json(given.out, result)
    print(json.dumps(result, indent=1))
