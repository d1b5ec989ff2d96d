"""PostgreSQL from an empty server by one command: roles, databases, tables, and who may what."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sql
from sqlalchemy.exc import ProgrammingError

from taxi.database import StoreDown
from taxi.errors import UsageError
from taxi.monitoring.metric_store import open_metrics
from taxi.operations.databases import DATABASES, ROLES, init_databases
from taxi.predictions.store import open_store
from tests.support.postgres import Postgres, running_postgres, why_not
from tests.support.prediction_rows import make_row

PASSWORD = "p/w'of%the:"


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    """A server of its own, which asks for passwords, and an administrator who is no superuser."""
    if reason := why_not():
        pytest.skip(reason)
    with running_postgres() as made:
        with sql.create_engine(made.address).begin() as connection:
            connection.execute(sql.text("CREATE ROLE master LOGIN CREATEROLE CREATEDB PASSWORD 'm'"))
        rules = made.folder / "data" / "pg_hba.conf"
        rules.write_text("host all postgres all trust\nhost all all all scram-sha-256\n")
        made.stop("fast")
        made.start()
        yield made


@pytest.fixture
def environment(server: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Give the administrator and all passwords, one of them in a file; return the server's part of an address."""
    place = f"127.0.0.1:{server.port}"
    monkeypatch.setenv("TAXI_DB_ADMIN", f"postgresql+psycopg2://master:m@{place}/postgres")
    for variable in ROLES.values():
        monkeypatch.setenv(variable, PASSWORD)
    (tmp_path / "password").write_text(PASSWORD + "\n")
    monkeypatch.delenv("TAXI_DB_PASSWORD_JOBS")
    monkeypatch.setenv("TAXI_DB_PASSWORD_JOBS_FILE", str(tmp_path / "password"))
    return place


def address(role: str, database: str, place: str) -> str:
    url = sql.URL.create("postgresql+psycopg2", role, PASSWORD, *place.split(":"), database)
    return url.render_as_string(hide_password=False)


def test_a_missing_password_is_said_before_anything_is_done(environment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TAXI_DB_PASSWORD_SERVICE")

    with pytest.raises(UsageError, match=r"expected passwords in TAXI_DB_PASSWORD_SERVICE, .* nothing was done"):
        init_databases()


def test_an_empty_server_has_all_after_one_call_and_the_second_changes_nothing(environment: str) -> None:
    first, second = init_databases(), init_databases()

    assert "database taxi_metrics of taxi_jobs: made" in first["done"]
    assert "database taxi_metrics of taxi_jobs: was there" in second["done"]
    assert set(first["set"]) == {one.variable for one in DATABASES}
    assert PASSWORD not in json.dumps([first, second]) and "PASSWORD@" in str(first["set"])


def test_the_service_may_add_predictions_and_outcomes_and_nothing_else(environment: str) -> None:
    init_databases()
    service = address("taxi_service", "taxi_predictions", environment)
    store = open_store(service)

    store.write_predictions([make_row(1, trip_id="a")])
    store.write_predictions([make_row(1, trip_id="a")])
    for minutes in (5.0, 6.0):
        store.write_outcomes([{"service": "green", "trip_id": "a", "duration": minutes}])

    owner = open_store(address("taxi_jobs", "taxi_predictions", environment))
    assert list(owner.with_outcomes("green")["duration"]) == [6.0]
    reader = open_store(address("taxi_reader", "taxi_predictions", environment), make=False)
    assert reader.count()["predictions"] == 1
    refused = ("SELECT pickup FROM predictions", "DELETE FROM predictions", "DROP TABLE outcomes", "CREATE TABLE x ()")
    for statement in refused:
        with sql.create_engine(service).begin() as connection, pytest.raises(ProgrammingError):
            connection.execute(sql.text(statement))
    with pytest.raises(StoreDown, match="did not answer"):
        open_metrics(address("taxi_service", "taxi_metrics", environment)).read("month")
    with sql.create_engine(address("taxi_service", "taxi_mlflow", environment)).begin() as connection:
        assert connection.scalar(sql.text("SELECT count(*) FROM registered_models")) == 0
