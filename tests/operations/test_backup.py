"""Backups: a copy taken beside what runs, restored elsewhere, answers as the installation does; one that does not is told."""

import json
import re
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import boto3
import pytest
import sqlalchemy as sql
from moto import mock_aws
from typer.testing import CliRunner

from pipelines.cli import app
from taxi.config import Settings
from taxi.errors import TaxiError, UsageError
from taxi.files import Damaged, read_json, sha256_file
from taxi.models.model import DurationModel
from taxi.monitoring.metric_store import Metric, open_metrics
from taxi.operations import backup
from taxi.operations.backup import (
    MANIFEST,
    MARK,
    check_copy,
    count_rows,
    drill,
    make_backup,
    restore,
    write_manifest,
)
from taxi.operations.leftovers import carry_spool
from taxi.predictions.spool import add_segment, encode_rows
from taxi.predictions.store import open_store
from taxi.registry.lineage import trace
from taxi.registry.mlflow_client import PLACES, prepare
from terraform.operate.destroy import faults_of
from tests.support.month_results import write_origin
from tests.support.postgres import Postgres, make_databases
from tests.support.prediction_rows import make_row
from tests.support.registered import CHECKOUT, MONTHS, judge, record, settings_with_months, small_model

pytestmark = pytest.mark.slow
MONTH = "2023-02"


def fill(settings: Settings) -> None:
    """Leave what a month, a service and an alarm leave."""
    for month in MONTHS[:2]:
        write_origin(settings.month("green", month), sha256_file(settings.month("green", month).raw))
    record(settings, MONTH, promote=False, scores=judge(settings, MONTH))
    store, metrics = open_store(settings.predictions), open_metrics(settings.metrics)
    store.write_predictions([make_row(number) for number in range(5)])
    metrics.replace([Metric("month", "green", MONTH, "rmse", value=5.0)])
    store.close()
    metrics.close()
    folder = settings.spool / "waiting"
    folder.mkdir(parents=True)
    add_segment(folder, encode_rows([("predictions", make_row(9))])[0])
    settings.alarm_book.write_text("{}")
    settings.alarm_log.write_text("{}\n")
    rebuilt = settings.server("green") / "versions" / "1" / "model"
    rebuilt.parent.mkdir(parents=True)
    rebuilt.write_text("fetched")


@pytest.fixture(scope="module")
def model() -> DurationModel:
    return small_model()


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory, model: DurationModel) -> Settings:
    """An installation on a laptop: SQLite files and folders."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("TAXI_PREDICTIONS", "TAXI_METRICS", "TAXI_ARTIFACTS"):
            patch.delenv(name, raising=False)
        settings = settings_with_months(tmp_path_factory.mktemp("live"), model)
        fill(settings)
    return settings


@pytest.fixture(scope="module")
def taken(live: Settings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("taken") / "copy"
    make_backup(live, folder)
    return folder


@pytest.fixture
def copy(taken: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(taken, tmp_path / "copy"))


def elsewhere(place: Path) -> Settings:
    return Settings(CHECKOUT, "unused", place / "data", place / "reports", f"sqlite:///{place / 'mlflow.db'}")


def test_a_copy_restored_in_another_folder_answers_the_same(live: Settings, copy: Path, tmp_path: Path) -> None:
    other = elsewhere(tmp_path / "other")

    restore(copy, other)

    found = trace(other, "green/1")
    assert found["verified"] and "golden trips" in {one["what"] for one in found["checks"] if one["status"] == "same"}
    with closing(sqlite3.connect(tmp_path / "other" / "mlflow.db")) as database:
        assert str(live.data.parent) not in "\n".join(database.iterdump())
    for settings in (live, other):
        with closing(sqlite3.connect(settings.tracking_uri.removeprefix("sqlite:///"))) as database:
            assert database.execute("PRAGMA journal_mode").fetchone() == ("delete",), "it is still one file"
    carry_spool(other)
    assert open_store(other.predictions).count()["predictions"] == 6
    assert [one.exists() for one in (other.alarm_book, other.alarm_log)] == [True, True]
    assert not (other.data / "serving").exists() and not (other.data / MARK).exists()


def command(live: Settings, *words: str) -> tuple[int, dict, str]:
    environment = {"TAXI_DATA": str(live.data), "TAXI_REPORTS": str(live.reports)}
    environment |= {"MLFLOW_TRACKING_URI": live.tracking_uri, "TAXI_PREDICTIONS": "", "TAXI_METRICS": ""}
    done = CliRunner().invoke(app, ["backup", *words, "--json"], env=environment)
    return done.exit_code, json.loads(done.stdout.splitlines()[-1]) if done.stdout else {}, str(done.exception)


def test_the_drill_takes_a_copy_restores_it_and_compares_the_answers(live: Settings) -> None:
    code, answer, _ = command(live, "drill")

    assert (code, answer["faults"], answer["versions"]) == (0, [], 1)
    assert answer["seconds"].keys() == {"backup", "restore", "answers"}


def test_the_drill_fails_where_a_copy_was_changed_with_its_manifest(live: Settings, copy: Path) -> None:
    changed = next(
        path for path in sorted(copy.glob("artifacts/taxi-green/**/artifacts/**/*")) if path.suffix == ".ubj"
    )
    changed.write_bytes(changed.read_bytes()[:-1] + b"\0")
    (copy / "data/raw/green/2023-01.parquet").unlink()
    with closing(sqlite3.connect(copy / "database/predictions.db")) as database, database:
        database.execute("DELETE FROM predictions WHERE prediction_id = 'p000001'")
    write_manifest(copy, "local")

    code, answer, _ = command(live, "drill", str(copy))

    assert code == 1
    assert answer["faults"][0] == "table predictions of predictions: expected 5 rows; the copy has 4"
    assert re.search(r"green/1: model file \S+\.ubj has sha256 \w+; \w+ was recorded", " ".join(answer["faults"]))
    assert any("golden trips green/" in fault for fault in answer["faults"])
    assert "green/1: raw month raw/green/2023-01.parquet is not on hand" in " ".join(answer["faults"])


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda copy: (copy / MANIFEST).unlink(), "it has no manifest.json: it was cut short"),
        (lambda copy: (copy / MANIFEST).write_text('{"files": {'), "expected JSON at"),
        (lambda copy: (copy / MANIFEST).write_text("[]"), "expected a manifest with files"),
        (
            lambda copy: (copy / "database/mlflow.db").write_bytes(b"SQLite"),
            "database/mlflow.db is not as the manifest",
        ),
        (lambda copy: (copy / "facts.json").unlink(), "facts.json is missing from the copy"),
        (lambda copy: (copy / "data/evil.json").write_text("{}"), "data/evil.json is not in the manifest"),
    ],
)
def test_a_copy_that_is_cut_short_or_changed_is_refused(damage, said: str, copy: Path, tmp_path: Path) -> None:
    damage(copy)

    with pytest.raises(Damaged, match=re.escape(said)) as refused:
        restore(copy, elsewhere(tmp_path / "other"))

    assert "\n" not in str(refused.value)
    assert not (tmp_path / "other").exists()


def test_nothing_that_is_there_is_overwritten(live: Settings, copy: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected an empty folder as TAXI_DATA"):
        restore(copy, live)
    other = elsewhere(tmp_path / "other")
    with pytest.raises(UsageError, match=r"expected an empty database at .*MLFLOW_TRACKING_URI.*it has tables"):
        restore(copy, replace(other, tracking_uri=live.tracking_uri))
    with pytest.raises(UsageError, match="expected a new folder for the copy"):
        make_backup(live, copy)
    with pytest.raises(UsageError, match="outside of TAXI_DATA"):
        make_backup(live, live.data / "copy")
    with pytest.raises(UsageError, match="expected MLFLOW_TRACKING_URI as a database"):
        make_backup(replace(live, tracking_uri="http://127.0.0.1:1"), tmp_path / "more")
    assert not (tmp_path / "more").exists() and not list(tmp_path.glob(".more*"))


def test_a_restore_that_was_killed_is_repeated(copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = elsewhere(tmp_path / "other")
    with monkeypatch.context() as patch:
        patch.setattr(backup, "_place_models", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            restore(copy, other)
    assert (other.data / MARK).exists()

    restore(copy, other)

    assert count_rows(other.tracking_uri)["model_versions"] == 1 and list(
        (tmp_path / "other/mlartifacts").rglob("*.ubj")
    )


def test_a_row_that_is_carried_while_the_copy_is_taken_is_in_it(
    live: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The moment between files and databases is the one at which a row could be in neither."""
    shutil.copytree(live.data, tmp_path / "service" / "data")
    service = replace(elsewhere(tmp_path / "service"), tracking_uri=f"sqlite:///{tmp_path}/none.db")
    copy_database = backup._copy_database

    def carry_first(address: str, role: str, folder: Path) -> str | None:
        if role == "predictions":
            carry_spool(service)
        return copy_database(address, role, folder)

    monkeypatch.setattr(backup, "_copy_database", carry_first)
    make_backup(service, tmp_path / "copy")
    other = replace(elsewhere(tmp_path / "other"), tracking_uri=service.tracking_uri)
    restore(tmp_path / "copy", other)
    carry_spool(other)

    assert open_store(other.predictions).count()["predictions"] == 6


def test_a_drill_in_which_nothing_could_answer_is_not_passed(tmp_path: Path) -> None:
    code, answer, _ = command(elsewhere(tmp_path), "drill")

    assert (code, answer["faults"]) == (1, ["the copy has no version: nothing could answer from it"])


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    for name, value in (
        ("AWS_ACCESS_KEY_ID", "x"),
        ("AWS_SECRET_ACCESS_KEY", "x"),
        ("AWS_DEFAULT_REGION", "us-east-1"),
    ):
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with mock_aws():
        boto3.client("s3").create_bucket(Bucket="artifacts")
        boto3.client("s3").create_bucket(Bucket="others")
        yield "artifacts"


def test_postgresql_and_s3_are_copied_drilled_and_restored_into_others(
    postgres: Postgres, bucket: str, model: DurationModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry, stores, registry2, stores2 = make_databases(postgres, "mlflow", "taxi", "mlflow2", "taxi2")
    for name in ("TAXI_PREDICTIONS", "TAXI_METRICS"):
        monkeypatch.setenv(name, stores)
    monkeypatch.setenv("TAXI_ARTIFACTS", f"s3://{bucket}/mlflow")
    prepare(registry)
    settings = replace(settings_with_months(tmp_path / "live", model), tracking_uri=registry)
    fill(settings)

    make_backup(settings, tmp_path / "copy", "dev")
    assert sorted(path.name for path in (tmp_path / "copy/database").iterdir()) == ["mlflow.dump", "taxi.dump"]
    assert list((tmp_path / "copy/buckets/artifacts/mlflow/green").iterdir())
    buckets = {"artifacts": bucket, "store": "others", "records": "others"}
    assert faults_of(tmp_path / "copy", "dev", boto3.client("s3"), buckets) == [], "it lets an environment be destroyed"
    assert drill(settings, tmp_path / "copy")["faults"] == []
    with sql.create_engine(registry).connect() as connection:
        assert not connection.scalar(sql.text("SELECT count(*) FROM pg_database WHERE datname LIKE 'taxi_drill%'"))

    for name in ("TAXI_PREDICTIONS", "TAXI_METRICS"):
        monkeypatch.setenv(name, stores2)
    monkeypatch.setenv("TAXI_ARTIFACTS", "s3://others/models")
    other = replace(elsewhere(tmp_path / "other"), tracking_uri=registry2)
    restore(tmp_path / "copy", other)

    there, before = (boto3.resource("s3").Bucket(name).objects.all() for name in ("others", bucket))
    assert {one.key.replace("models", "mlflow", 1) for one in there} == {one.key for one in before}
    with sql.create_engine(registry2).connect() as connection:
        for table, column in PLACES.items():
            places = connection.scalars(sql.text(f"SELECT {column} FROM {table} WHERE {column} LIKE 's3:%'")).all()
            assert places and all(place.startswith("s3://others/models/green") for place in places)
    assert open_store(other.predictions).count()["predictions"] == 5


def test_a_program_of_postgresqls_that_fails_is_told_in_one_line_without_the_password(
    live: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, postgres: Postgres
) -> None:
    address = f"postgresql+psycopg2://postgres:canary-1@127.0.0.1:{postgres.port}/nowhere"
    with pytest.raises(
        TaxiError, match=r"^pg_dump of postgresql\+psycopg2://127.0.0.1:\d+/nowhere failed: .*nowhere"
    ) as told:
        backup._call("pg_dump", address, "--format=custom")
    assert "canary-1" not in str(told.value) and "\n" not in str(told.value)

    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(Path, "glob", lambda *_: iter(()))
    with pytest.raises(UsageError, match="pg_dump is not installed: apt-get install postgresql-client"):
        backup._call("pg_dump", address)


def test_a_copy_says_when_what_and_of_which_environment(copy: Path) -> None:
    manifest, facts = read_json(copy / MANIFEST), check_copy(copy)

    assert manifest["environment"] == "local" and datetime.fromisoformat(manifest["at"]) < datetime.now(UTC)
    assert manifest["files"]["facts.json"] == sha256_file(copy / "facts.json")
    assert facts.databases == {
        "predictions": "database/predictions.db",
        "metrics": "database/metrics.db",
        "registry": "database/mlflow.db",
    }
    assert copy.stat().st_mode & 0o077 == 0
