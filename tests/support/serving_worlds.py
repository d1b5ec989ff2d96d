"""A registry with versions of small models, and services that run on it as processes of their own."""

import os
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import mlflow
import pandas as pd
import yaml
from mlflow.models import infer_signature
from mlflow.tracking import MlflowClient

from taxi.data.schema import AT_PICKUP
from taxi.data.synthetic_city import build_city, write_lookup, write_shapes
from taxi.data.zones import read_zones
from taxi.files import remove, sha256_tree
from taxi.models.fitting import fit_model
from taxi.models.model import load_model, save_model
from taxi.params import load_params
from taxi.registry.golden import write_golden
from taxi.registry.integrity import write_manifest
from taxi.registry.versions import model_name
from tests.support.builders import build_sample_trips
from tests.support.databases import give_registry
from tests.support.worlds import Forked, fork_taxi

ROOT = Path(__file__).resolve().parents[2]
TRIP = {"PULocationID": 74, "DOLocationID": 138, "pickup_datetime": "2024-02-06T08:15:00"}
ADDRESS = re.compile(r"is served on http://([^:]+):(\d+)")
Waits = Callable[[], Any]
Spoil = Callable[[Path], None]


def wait_for(true: Waits, what: str, seconds: float = 120) -> Any:
    """Return the first thing that is true; fail with ``what`` and the last error after ``seconds``."""
    until, last = time.monotonic() + seconds, None
    while time.monotonic() < until:
        try:
            if found := true():
                return found
        except (httpx.HTTPError, sqlite3.Error, AssertionError) as error:
            last = error
        time.sleep(0.05)
    raise AssertionError(f"{what}: not within {seconds:g} s; last: {last!r}")


def write_zones(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    write_lookup(build_city(), folder / "taxi_zone_lookup.csv")
    write_shapes(build_city(), folder / "taxi_zones.zip")
    return folder


def train(folder: Path, zones: Path, seed: int = 1, rounds: int = 20) -> Path:
    """Fit a small model on a month of the sample city and save it in ``folder``."""
    params = load_params(ROOT / "params.yaml")
    changes = {"rounds": rounds, "max_depth": 4, "interval_rounds": 10, "seed": seed, "threads": 1}
    trips = build_sample_trips("2024-01", 3000, seed=seed)
    save_model(fit_model(trips, read_zones(zones), params.model.model_copy(update=changes), params.features), folder)
    return folder


@dataclass
class Registry:
    """An MLflow of its own, on SQLite, or the server at ``uri`` with its files at ``artifacts``."""

    place: Path
    uri: str = ""
    artifacts: str = ""
    service: str = "green"

    def __post_init__(self) -> None:
        self.uri = self.uri or give_registry(self.place)
        self.client = MlflowClient(self.uri, self.uri)
        self.client.create_registered_model(model_name(self.service))
        self.experiment = self.client.create_experiment(
            "serving", self.artifacts or (self.place / "mlartifacts").as_uri()
        )

    def register(self, folder: Path, spoil: Spoil | None = None, **tags: str) -> int:
        """Register a model's folder as the package does; ``spoil`` changes MLflow's files afterwards, ``tags`` win."""
        return self._made(folder, folder, spoil, tags)

    def _made(self, folder: Path, like: Path, spoil: Spoil | None, tags: dict[str, str]) -> int:
        example, model = build_sample_trips("2024-02", 200)[AT_PICKUP], load_model(like)
        tags = {"golden": write_golden(model, example)} | tags
        few = example.head(5).astype(dict.fromkeys(AT_PICKUP[1:], "float64"))
        mlflow.set_tracking_uri(self.uri)
        mlflow.set_registry_uri(self.uri)
        named = folder.parent / "named" / folder.name / "winner"  # the manifest knows a model's folder by this name
        shutil.copytree(folder, named, dirs_exist_ok=True)
        with mlflow.start_run(experiment_id=self.experiment) as run:
            info = mlflow.pyfunc.log_model(
                name="winner",
                loader_module="taxi.pyfunc",
                data_path=str(named),
                signature=infer_signature(few, model.predict(few)),
                pip_requirements=["numpy"],
            )
        with TemporaryDirectory() as copy:
            got = Path(mlflow.artifacts.download_artifacts(artifact_uri=f"models:/{info.model_id}", dst_path=copy))
            remove(got / "registered_model_meta")
            marks = {"model_sha256": sha256_tree(folder), "manifest": write_manifest(got)}
        if spoil:
            spoil(Path(self.client.get_logged_model(info.model_id).artifact_location.removeprefix("file://")))
        about = {"trained_from": "2024-01", "trained_to": "2024-01", "fingerprint": info.model_id, "role": "winner"}
        made = self.client.create_model_version(
            model_name(self.service),
            f"models:/{info.model_id}",
            run.info.run_id,
            about | marks | tags,
            model_id=info.model_id,
        )
        return int(made.version)

    def register_unloaded(self, folder: Path, like: Path) -> int:
        """Register a folder that cannot be loaded, with right digests and the golden trips of ``like``."""
        return self._made(folder, like, None, {})

    def alias(self, name: str, version: int) -> None:
        self.client.set_registered_model_alias(model_name(self.service), name, str(version))


@dataclass
class Running:
    """A service that runs, on the socket that is ``held`` for it if any; its log is in ``place/serve.log``.

    It is forked from a process that has the imports behind it, unless it is held a socket or is to be an ``interpreter`` of its own.
    """

    place: Path
    environment: dict[str, str]
    words: tuple[str, ...] = ()
    service: str = "green"
    held: socket.socket | None = None
    interpreter: bool = False
    process: "subprocess.Popen[bytes] | Forked" = field(init=False)

    def start(self) -> "Running":
        self.log, words = self.place / "serve.log", ("serve", "--service", self.service, "--port", "0", *self.words)
        self.log.touch()
        begun = self.log.stat().st_size
        if self.held or self.interpreter:
            self.process = self._start_interpreter(words)
        else:
            self.process = fork_taxi(words, self.environment, self.place / "checkout", Path(os.devnull), self.log)
        found = wait_for(lambda: self._address(begun), "the address in the log")
        self.url = f"http://127.0.0.1:{found.group(2)}"
        self.client = httpx.Client(base_url=self.url, timeout=30)
        return self._wait(lambda: self.client.get("/healthz").status_code == 200, "a worker that answers")

    def _start_interpreter(self, words: tuple[str, ...]) -> "subprocess.Popen[bytes]":
        passed = [self.held.fileno()] if self.held else []
        command = [sys.executable, "-m", "pipelines.cli", *words, *(f"--fd={descriptor}" for descriptor in passed)]
        with self.log.open("ab") as stream:
            return subprocess.Popen(
                command, env=self.environment, cwd=self.place / "checkout", stderr=stream, pass_fds=passed,
                start_new_session=True,
            )  # fmt: skip

    def _wait(self, true: Waits, what: str, seconds: float = 120) -> "Running":
        try:
            wait_for(true, what, seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}\nIt wrote:\n{self.log.read_text()[-4000:]}") from error
        return self

    def _address(self, begun: int) -> re.Match[str] | None:
        assert self.process.poll() is None, self.log.read_text()
        return ADDRESS.search(self.log.read_bytes()[begun:].decode())

    def ready(self) -> "Running":
        return self._wait(lambda: self.client.get("/readyz").status_code == 200, "a ready service")

    def serves(self, version: int, arm: str = "champion", seconds: float = 120) -> "Running":
        def serving() -> bool:
            return (self.client.get("/model").json()[arm] or {}).get("version") == version

        return self._wait(serving, f"{arm} {version}", seconds)

    def stop(self) -> int:
        self.client.close()
        self.process.terminate()
        return self.process.wait(120)


@dataclass
class ServingWorld:
    """A checkout of its own (params.yaml may be changed), data, a registry, and trained models by seed."""

    place: Path
    models: dict[int, Path]
    registry: Registry

    def running(self, *words: str, **environment: str) -> Running:
        return Running(self.place, self.environment | environment, words, self.service)

    @property
    def service(self) -> str:
        return self.registry.service

    @property
    def environment(self) -> dict[str, str]:
        own = {"TAXI_DATA": str(self.place / "data"), "MLFLOW_TRACKING_URI": self.registry.uri, "PYTHONPATH": str(ROOT)}
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("TAXI_API", "PYTHONDONT"))}
        return {**kept, **own, "TAXI_REPORTS": str(self.place / "reports")}

    @property
    def params(self) -> Path:
        return self.place / "checkout" / "params.yaml"

    def set_params(self, section: str, **values: Any) -> None:
        """Change ``params.yaml`` as an operator does while the service runs."""
        content = yaml.safe_load(self.params.read_text(encoding="utf-8"))
        content[section] = content.get(section, {}) | values
        self.params.write_text(yaml.safe_dump(content), encoding="utf-8")


def make_world(
    place: Path, models: Mapping[int, Path], uri: str = "", artifacts: str = "", service: str = "green"
) -> ServingWorld:
    """Make a world whose registry has a version of each of ``models`` (by number); the first is the champion."""
    write_zones(place / "data" / "zones")
    (place / "checkout" / "notebooks").mkdir(parents=True)
    shutil.copyfile(ROOT / "params.yaml", place / "checkout" / "params.yaml")
    own = {number: Path(shutil.copytree(folder, place / "models" / str(number))) for number, folder in models.items()}
    made = ServingWorld(place, own, Registry(place, uri, artifacts, service))
    made.set_params("serve", poll_seconds=0.5)
    for number, folder in own.items():
        assert made.registry.register(folder) == number
    made.registry.alias("champion", min(own))
    return made


def offline(folder: Path, trips: list[dict[str, Any]]) -> pd.DataFrame:
    """Return what a model's folder predicts for requests' bodies, by the batch."""
    frame = pd.DataFrame(
        {
            "pickup": pd.to_datetime([trip["pickup_datetime"] for trip in trips]).astype("datetime64[us]"),
            "PULocationID": [trip["PULocationID"] for trip in trips],
            "DOLocationID": [trip["DOLocationID"] for trip in trips],
            **{
                column: pd.Series([trip.get(name) for trip in trips], dtype="float64")
                for column, name in {
                    "passenger_count": "passenger_count",
                    "trip_type": "trip_type",
                    "VendorID": "vendor",
                }.items()
            },
        }
    )
    return load_model(folder).predict(frame[AT_PICKUP])
