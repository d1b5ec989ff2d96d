"""MLflow's registry at every kind of address: made once, read without being made, and its failures told apart, in seconds."""

import time
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sql
from botocore.exceptions import ClientError, EndpointConnectionError
from mlflow.exceptions import MlflowException

from taxi.config import load_settings
from taxi.errors import Refused, UsageError
from taxi.files import LockFailed
from taxi.registry.aliases import open_event, roll_back
from taxi.registry.mlflow_client import (
    RegistryError,
    RegistryUnreachable,
    artifact_root,
    connect,
    move_places,
    prepare,
    reaching,
)
from taxi.registry.versions import champion_now
from taxi.serving.follower import Unreachable, _asking
from tests.support.postgres import Postgres, free_port, make_databases

SECRET = "s3cret-9f"


@pytest.mark.slow
def test_a_postgresql_registry_is_made_by_who_writes_and_a_wrong_query_is_not_told_as_one_that_is_away(
    postgres: Postgres,
) -> None:
    (uri,) = make_databases(postgres, "registry")
    engine = sql.create_engine(uri)

    assert champion_now(uri, "green") is None and open_event(uri, "green") is None
    with pytest.raises(Refused, match="no champion to roll back from, and no registry at postgresql"):
        roll_back(uri, "green", "me", "why")
    assert sql.inspect(engine).get_table_names() == []

    assert prepare(uri) and prepare(uri, make=False)
    client = connect(uri)
    client.create_registered_model("taxi-green")
    assert champion_now(uri, "green") is None
    with pytest.raises(RegistryError, match="answered with an error") as told, reaching(uri):
        client.search_logged_models(["0"], "status = 'READY'")  # the column holds a number
    assert not isinstance(told.value, RegistryUnreachable)
    with pytest.raises(Unreachable):  # and no version is refused for it
        _asking(lambda: _raise(told.value))
    engine.dispose()


def _raise(error: Exception) -> None:
    raise error


def test_a_registry_that_is_down_is_told_in_seconds_and_without_its_password() -> None:
    begun, port = time.monotonic(), free_port()

    for scheme in ("http", "postgresql+psycopg2"):
        with pytest.raises(RegistryUnreachable, match="did not answer") as told:
            champion_now(f"{scheme}://someone:{SECRET}@127.0.0.1:{port}/x?password={SECRET}", "green")
        assert SECRET not in str(told.value) and "\n" not in str(told.value)
    assert time.monotonic() - begun < 10


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (MlflowException("no such column", error_code=1), RegistryError),
        (FileNotFoundError(2, "No such file"), RegistryError),
        (ClientError({"Error": {"Code": "AccessDenied"}}, "PutObject"), RegistryError),
        (EndpointConnectionError(endpoint_url="http://127.0.0.1:9"), RegistryUnreachable),
        (ConnectionRefusedError(111, "Connection refused"), RegistryUnreachable),
        (sql.exc.ProgrammingError("SELECT x", {}, Exception("no column")), RegistryError),
    ],
)
def test_a_failure_is_told_as_what_it_is(error: Exception, kind: type[RegistryError]) -> None:
    with pytest.raises(RegistryError) as told, reaching("http://mlflow:5000"):
        raise error

    assert type(told.value) is kind


@pytest.mark.parametrize(
    "address", ["mlruns", "./mlflow.db", "file:///srv/mlruns", "sqlite://", "sqlite:///:memory:", "ftp://x"]
)
def test_an_address_that_keeps_no_registry_is_wrong_usage(address: str) -> None:
    with pytest.raises(UsageError, match="expected MLFLOW_TRACKING_URI as sqlite:///file"):
        champion_now(address, "green")


def test_a_locks_failure_is_told_as_the_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "home").touch()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr("taxi.registry.aliases.prepare", lambda uri, make: True)

    with pytest.raises(LockFailed, match=r"cannot take the lock .*/home/\.taxi/green\.lock: "):
        roll_back("http://127.0.0.1:9", "green", "me", "why")


def test_where_artifacts_go_is_decided_at_every_kind_of_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAXI_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("TAXI_ARTIFACTS", raising=False)
    settings, place = load_settings(), "/mlartifacts/green"

    def root(uri: str) -> str | None:
        return artifact_root(replace(settings, tracking_uri=uri), "green")

    assert root(f"sqlite:///{tmp_path}/mlflow.db") == f"{tmp_path.as_uri()}{place}"
    assert root("postgresql://db/mlflow") == f"{(tmp_path / 'data').as_uri()}{place}"
    assert root("http://mlflow:5000") is None  # the server's own affair
    monkeypatch.setenv("TAXI_ARTIFACTS", "s3://bucket/models/")
    assert {root("http://mlflow:5000"), root("postgresql://db/mlflow")} == {"s3://bucket/models/green"}
    monkeypatch.setenv("TAXI_ARTIFACTS", "kept")
    assert root("postgresql://db/mlflow") == f"{(settings.root / 'kept').as_uri()}/green"


def test_artifacts_on_s3_stay_there_when_the_registry_is_moved(uri: str, tmp_path: Path) -> None:
    client = connect(uri)
    made = client.create_experiment("taxi-moved", "s3://bucket/mlartifacts/moved")

    move_places(tmp_path / "mlflow.db")

    assert client.get_experiment(made).artifact_location == "s3://bucket/mlartifacts/moved"


def test_a_registry_that_may_only_be_read_is_read(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert champion_now(uri, "green")
    kept = sorted(tmp_path.iterdir())
    monkeypatch.setattr("taxi.registry.mlflow_client.locked", _no_lock)

    assert champion_now(uri, "green")
    assert sorted(tmp_path.iterdir()) == kept


def _no_lock(path: Path) -> None:
    raise LockFailed(f"cannot take the lock {path}: Read-only file system")
