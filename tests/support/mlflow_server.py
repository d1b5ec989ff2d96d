"""MLflow's server on a database, with its password, and the S3 that keeps what it is given: both as production has them."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from moto.server import ThreadedMotoServer

from tests.support.postgres import free_port
from tests.support.serving_worlds import wait_for

KEYS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": "us-east-1"}
PASSWORD = "canary-password-of-mlflow"
USER = {"MLFLOW_TRACKING_USERNAME": "admin", "MLFLOW_TRACKING_PASSWORD": PASSWORD}


@contextmanager
def running_s3() -> Iterator[str]:
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    try:
        yield "http://{}:{}".format(*server.get_host_and_port())
    finally:
        server.stop()


@contextmanager
def running_mlflow(database: str, folder: Path, keys: dict[str, str]) -> Iterator[str]:
    """Give the address of an MLflow server on the database, which asks for a password; S3 keeps what it is given."""
    port = str(free_port())
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "server",
        "--backend-store-uri",
        database,
        "--port",
        port,
        "--app-name",
        "basic-auth",
    ]
    command += ["--artifacts-destination", "s3://mlflow/proxied", "--workers", "1"]
    more = keys | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # else eight more processes start, for nothing
    (folder / "auth.ini").write_text(
        f"[mlflow]\ndefault_permission = READ\ndatabase_uri = sqlite:///{folder}/auth.sqlite\nadmin_username = admin\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\nauth_cache_ttl_seconds = 600\n",
        encoding="utf-8",
    )
    more |= {"MLFLOW_AUTH_CONFIG_PATH": str(folder / "auth.ini"), "MLFLOW_AUTH_ADMIN_PASSWORD": PASSWORD}
    more |= {"MLFLOW_FLASK_SERVER_SECRET_KEY": "of a test"}
    with (folder / "mlflow.log").open("wb") as log:
        process = subprocess.Popen(command, env={**os.environ, **more}, cwd=folder, stdout=log, stderr=log)
    address = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        try:
            return httpx.get(f"{address}/health").status_code == 200
        except httpx.TransportError:
            return False

    try:
        wait_for(answers, "MLflow's server", 200)
        yield address
    finally:
        process.terminate()
        process.wait()
