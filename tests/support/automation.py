"""A Prefect server with a process worker and the retrain deployment, a checkout with parameters of its own: all as processes."""

import ast
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import nbformat
import psutil
import yaml
from tenacity import Retrying, stop_after_attempt, wait_fixed

from taxi.config import TELEMETRY_OFF
from taxi.processes import PARENT_MARK
from tests.support.postgres import free_port
from tests.support.serving_worlds import ROOT, wait_for

SMALL = {
    "rounds": 100, "learning_rate": 0.1, "max_depth": 6, "trips_per_round": 100, "head_rounds": 30,
    "head_max_depth": 5, "interval_rounds": 30, "interval_max_depth": 4, "planned_rounds": 60, "planned_max_depth": 6, "threads": 1,
}  # fmt: skip
DEPLOYMENT = "on-alarm"  # not with its flow before it: Prefect looks for that in files only
PATIENCE = 900  # seconds; on a quiet machine the server takes 8


def make_checkout(folder: Path, sections: dict[str, dict[str, Any]], lean: bool = False) -> Path:
    """Make a checkout whose ``params.yaml`` differs from this one's by ``sections``; everything else is this one's.

    Where it is ``lean``, its notebooks compute and record what these do, and neither draw nor explain it.
    """
    folder.mkdir(parents=True)
    for name in ("pipelines", "prefect.yaml", "requirements.lock"):
        (folder / name).symlink_to(ROOT / name)
    if lean:
        (folder / "notebooks").mkdir()
        for notebook in (ROOT / "notebooks").glob("*.ipynb"):
            _write_lean(notebook, folder / "notebooks" / notebook.name)
    else:
        (folder / "notebooks").symlink_to(ROOT / "notebooks")
    content = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    for section, values in sections.items():
        content[section] |= values
    (folder / "params.yaml").write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return folder


def _write_lean(notebook: Path, target: Path) -> None:
    """Write a notebook's parameters, the cell that records its result, and those that this one needs."""
    content, needed, kept = nbformat.read(notebook, as_version=4), {"record"}, []
    for cell in reversed([cell for cell in content.cells if cell.cell_type == "code"]):
        tree = list(ast.walk(ast.parse(cell.source)))
        calls = {node.func.id for node in tree if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
        names = [node for node in tree if isinstance(node, ast.Name)]
        binds = {node.id for node in names if isinstance(node.ctx, ast.Store)}
        binds |= {alias.asname or alias.name for node in tree if hasattr(node, "names") for alias in node.names}
        if "record" in calls or binds & needed or "parameters" in cell.metadata.get("tags", []):
            needed |= {node.id for node in names if isinstance(node.ctx, ast.Load)}
            kept.append(cell)
    content.cells = kept[::-1]
    nbformat.write(content, target)


@dataclass
class Automation:
    """Places under ``place`` for all that runs; processes that were started are ended by ``stop``, last first."""

    place: Path
    sections: dict[str, dict[str, Any]] = field(default_factory=dict)
    lean: bool = False
    processes: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Make the checkout and the environment that every process gets."""
        self.checkout = make_checkout(self.place / "checkout", self.sections, self.lean)
        self.server = f"http://127.0.0.1:{free_port()}/api"
        own = {f"TAXI_{name.upper()}": str(self.place / name) for name in ("source", "data", "reports")}
        kept = {
            name: one for name, one in os.environ.items() if not name.startswith(("TAXI_", "PREFECT_", "PYTHONDONT"))
        }
        more = {
            "MLFLOW_TRACKING_URI": f"sqlite:///{self.place / 'mlflow.db'}",
            "PREFECT_HOME": str(self.place / "prefect"),
            "PREFECT_API_URL": self.server,
            "PREFECT_WORKER_QUERY_SECONDS": "2",
            "PREFECT_LOGGING_LEVEL": "WARNING",
        }
        self.environment = {**kept, **TELEMETRY_OFF, **own, **more}

    def start(self, name: str, *words: str) -> "subprocess.Popen[bytes]":
        """Start a module's command in a process group of its own; its output goes to ``<place>/<name>.log``."""
        with (self.place / f"{name}.log").open("ab") as log:
            command = [sys.executable, "-m", *words]
            options: dict[str, Any] = {"stdout": log, "stderr": log, "start_new_session": True}
            process = subprocess.Popen(command, env=self.environment, cwd=self.checkout, **options)
        self.processes.append(process)
        return process

    def run(self, *words: str) -> str:
        """Run a module's command to its end and return its stdout; fail with its stderr."""
        command = [sys.executable, "-m", *words]
        done = subprocess.run(
            command, env=self.environment, cwd=self.checkout, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{' '.join(words)} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
        return done.stdout

    def start_prefect(self, *more: str) -> None:
        """Start the server and a worker, and deploy the retrain with the automation that ``prefect.yaml`` gives it, and ``more``."""
        port = self.server.split(":")[2].split("/")[0]
        self.start("prefect-server", "prefect", "server", "start", "--port", port, "--log-level", "ERROR")
        wait_for(self._healthy, "a Prefect server", PATIENCE)
        self.run("prefect", "work-pool", "create", "taxi", "--type", "process")
        names = [word for name in (DEPLOYMENT, *more) for word in ("--name", name)]
        self.run("prefect", "--no-prompt", "deploy", *names)
        self.worker = self.start_worker()

    def start_worker(self) -> "subprocess.Popen[bytes]":
        """Start a worker of the pool that the deployments name."""
        return self.start("prefect-worker", "prefect", "worker", "start", "--pool", "taxi", "--type", "process")

    def ask(self, path: str, **what: Any) -> Any:
        """Return what the server answers."""
        for attempt in Retrying(stop=stop_after_attempt(5), wait=wait_fixed(1)):  # its SQLite is busy now and then: 503
            with attempt:
                answer = httpx.post(f"{self.server}{path}", json=what, timeout=60).raise_for_status()
        return answer.json()

    def state_of(self, run: str) -> str:
        """Return the type of a flow run's state."""
        time.sleep(0.5)
        return str(self.ask("/flow_runs/filter", flow_runs={"id": {"any_": [run]}})[0]["state_type"])

    def start_run(self, deployment: str, **parameters: Any) -> str:
        """Let the worker run a deployment, and return the run's id."""
        (found,) = self.ask("/deployments/filter", deployments={"name": {"any_": [deployment]}})
        return str(self.ask(f"/deployments/{found['id']}/create_flow_run", parameters=parameters)["id"])

    def kill_worker(self) -> None:
        """Kill -9 the worker and what it runs flows in, not what these have started; start another."""
        worker = psutil.Process(self.worker.pid)
        for process in [worker, *worker.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                if "-m prefect" in " ".join(process.cmdline()):
                    process.kill()
        self.worker.wait()
        self.worker = self.start_worker()

    def _healthy(self) -> bool:
        time.sleep(0.5)
        return httpx.get(f"{self.server}/health").status_code == 200

    def flow_runs(self) -> list[dict[str, Any]]:
        """Return the flow runs that automations started, oldest first."""
        time.sleep(0.5)
        asked = {"sort": "EXPECTED_START_TIME_ASC", "deployments": {"name": {"any_": ["on-alarm"]}}}
        answer = httpx.post(f"{self.server}/flow_runs/filter", json=asked, timeout=30)
        return list(answer.raise_for_status().json())

    def ended_runs(self, least: int = 1) -> list[dict[str, Any]]:
        """Return the flow runs once at least so many are there and all have ended; nothing before."""
        runs = self.flow_runs()
        ended = [one for one in runs if one["state_type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")]
        return ended if len(ended) == len(runs) >= least else []

    def stop(self) -> None:
        """End every process that was started, and what those started; what does not end when asked is killed."""
        for process in reversed(self.processes):
            _signal(process, signal.SIGTERM)
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                _signal(process, signal.SIGTERM)  # a Prefect worker may need a second one
        for process in self.processes:
            _signal(process, signal.SIGKILL)
            process.wait(15)

    def clear(self) -> None:
        """Remove all places."""
        shutil.rmtree(self.place, ignore_errors=True)


def marked_processes(data: str) -> list[str]:
    """Return what runs of ``taxi`` in the data folder have started, and still runs here."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            given = process.environ()
            if PARENT_MARK in given and given.get("TAXI_DATA") == data:
                found.append(" ".join(process.cmdline()))
    return found


def _signal(process: "subprocess.Popen[bytes]", number: int) -> None:
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return
