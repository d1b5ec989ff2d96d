"""Whatever the service leans on may go: MLflow, PostgreSQL and the object store, and at last the service itself."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import boto3
import httpx
import pytest
import sqlalchemy
from moto.server import ThreadedMotoServer

from tests.support.campaign import at_scale
from tests.support.load import Tally, hammer_while
from tests.support.postgres import Postgres, free_port, running_postgres, why_not
from tests.support.serving_worlds import TRIP, Running, ServingWorld, make_world, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(why_not()), reason=str(why_not()))]
OUTAGE_SECONDS = at_scale(1, 20)
BODIES = [TRIP | {"PULocationID": 1 + zone} for zone in range(0, 264, 11)]


@dataclass
class Backends:
    """An MLflow server with its files in an S3 of moto's, and a PostgreSQL."""

    place: Path
    postgres: Postgres
    port: int
    s3: ThreadedMotoServer | None = None
    mlflow: "subprocess.Popen[bytes] | None" = None
    s3_port: int = 0

    @property
    def environment(self) -> dict[str, str]:
        keys = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": "us-east-1"}
        retries = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "5", "AWS_MAX_ATTEMPTS": "1"}
        return {**keys, **retries, "MLFLOW_S3_ENDPOINT_URL": f"http://127.0.0.1:{self.s3_port}"}

    def start(self) -> None:
        self.s3 = ThreadedMotoServer("127.0.0.1", self.s3_port, verbose=False)
        self.s3.start()
        store = f"sqlite:///{self.place / 'server.db'}"
        command = [
            sys.executable,
            "-m",
            "mlflow",
            "server",
            "--host",
            "127.0.0.1",
            "--port",
            str(self.port),
            "--workers",
            "1",
        ]
        options = [
            "--backend-store-uri",
            store,
            "--default-artifact-root",
            "s3://taxi/artifacts",
            "--no-serve-artifacts",
        ]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "start_new_session": True}
        lean = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # else eight more processes start, for nothing
        self.mlflow = subprocess.Popen([*command, *options], env={**os.environ, **self.environment, **lean}, **quiet)
        wait_for(lambda: httpx.get(f"http://127.0.0.1:{self.port}/health").status_code == 200, "MLflow's server", 180)

    def kill(self) -> None:
        if self.mlflow and self.s3:
            os.killpg(self.mlflow.pid, signal.SIGKILL)
            self.mlflow.wait()
            self.s3.stop()
        self.mlflow = self.s3 = None


@pytest.fixture(scope="module")
def backends(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backends]:
    with running_postgres() as postgres, pytest.MonkeyPatch.context() as patch:
        made = Backends(tmp_path_factory.mktemp("backends"), postgres, free_port(), s3_port=free_port())
        for name, value in made.environment.items():
            patch.setenv(name, value)
        try:
            made.start()
            boto3.client("s3", endpoint_url=made.environment["MLFLOW_S3_ENDPOINT_URL"]).create_bucket(Bucket="taxi")
            yield made
        finally:
            made.kill()


@pytest.fixture(scope="module")
def world(backends: Backends, tmp_path_factory: pytest.TempPathFactory, small_models: dict[int, Path]) -> ServingWorld:
    place, address = tmp_path_factory.mktemp("outages"), f"http://127.0.0.1:{backends.port}"
    return make_world(place, small_models, address, "s3://taxi/artifacts")


@pytest.fixture(scope="module")
def service(world: ServingWorld, backends: Backends) -> Iterator[Running]:
    running = world.running("--workers", "2", TAXI_PREDICTIONS=backends.postgres.address).start().ready()
    yield running
    if running.process.poll() is None:
        running.stop()


def kept(backends: Backends) -> set[str]:
    """Return the ids of all predictions in PostgreSQL."""
    engine = sqlalchemy.create_engine(backends.postgres.address)
    try:
        with engine.connect() as connection:
            return {row[0] for row in connection.execute(sqlalchemy.text("SELECT prediction_id FROM predictions"))}
    finally:
        engine.dispose()


def ids(tally: Tally) -> set[str]:
    return {one.got["prediction_id"] for one in tally.answers}


def during(service: Running, act: Callable[[], None]) -> Tally:
    return hammer_while(act, service.url, BODIES, 4, at_scale(0.05, 0.01))


@pytest.mark.campaign
def test_an_outage_of_everything_fails_no_request_and_loses_no_row(
    service: Running, world: ServingWorld, backends: Backends
) -> None:
    def outage() -> None:
        time.sleep(1)
        backends.kill()
        backends.postgres.stop()
        wait_for(lambda: service.client.get("/readyz").json() == {"status": "degraded"}, "that it is degraded")
        time.sleep(OUTAGE_SECONDS)
        backends.postgres.start()
        backends.start()
        wait_for(lambda: service.client.get("/readyz").json() == {"status": "ready"}, "that it is ready again")
        world.registry.alias("champion", 2)
        service.serves(2)
        time.sleep(1)  # the other worker looks five times a second

    tally = during(service, outage)

    assert tally.failed == [] and tally.refused == 0
    assert {one.got["version"] for one in tally.answers} == {1, 2}
    wait_for(lambda: ids(tally) <= kept(backends), "every row in PostgreSQL")
    assert "taxi_log_lost_rows 0.0" in service.client.get("/metrics").text


def test_sigterm_under_load_answers_all_that_was_accepted_and_keeps_every_row(
    service: Running, backends: Backends
) -> None:
    before, ended, heeding = kept(backends), list[int](), list[Tally]()

    def end() -> None:
        time.sleep(1)
        ended.append(service.stop())

    def heed() -> None:
        heeding.append(hammer_while(end, service.url, BODIES, 4, 0.01, heed=True))

    strangers = during(service, heed)

    assert ended == [0], service.log.read_text()[-3000:]
    assert heeding[0].failed == [] and len(heeding[0].answers) > 50
    assert {one.status for one in strangers.answers} == {200}
    assert len(strangers.dropped) <= 4, "more than one connection a client was reset in the last moment"
    assert ids(heeding[0]) | ids(strangers) == kept(backends) - before, "no request was computed and not answered"


def test_it_starts_and_serves_with_everything_down(service: Running, world: ServingWorld, backends: Backends) -> None:
    backends.kill()
    backends.postgres.stop()
    try:
        again = world.running(TAXI_PREDICTIONS=backends.postgres.address).start().ready()
        try:
            wait_for(lambda: again.client.get("/readyz").json() == {"status": "degraded"}, "that it is degraded")
            said = again.client.post("/predict", json=TRIP).json()
        finally:
            code = again.stop()
    finally:
        backends.postgres.start()

    assert said["version"] == 2 and code == 0
    assert said["prediction_id"] not in kept(backends)
    healed = world.running(TAXI_PREDICTIONS=backends.postgres.address).start()
    wait_for(lambda: said["prediction_id"] in kept(backends), "the row that waited on disk")
    assert healed.stop() == 0
