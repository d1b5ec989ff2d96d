"""Retention and erasure: what is too old goes when asked to, what is needed stays, and one trip goes wherever it is."""

import os
import re
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event, Thread

import pytest
import sqlalchemy as sql

from taxi.config import Settings
from taxi.monitoring.metric_store import Metric, open_metrics
from taxi.operations import retention
from taxi.operations.retention import erase_trip, prune
from taxi.params import load_params, override
from taxi.predictions.spool import REFUSED, add_segment, encode_rows
from taxi.predictions.store import PREDICTIONS, Store, open_store, prediction_rows
from tests.support.postgres import make_databases
from tests.support.prediction_rows import make_row

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name in ("TAXI_PREDICTIONS", "TAXI_METRICS"):
        monkeypatch.delenv(name, raising=False)
    return Settings(tmp_path, "unused", tmp_path / "data", tmp_path / "reports", f"sqlite:///{tmp_path}/mlflow.db")


@pytest.fixture(params=["sqlite", "postgresql"])
def stores(request: pytest.FixtureRequest, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> str:
    """The settings' prediction store, on either database."""
    if request.param == "postgresql":
        name = "kept_" + re.sub(r"\W", "_", request.node.name).lower()[:40]
        (address,) = make_databases(request.getfixturevalue("postgres"), name)
        monkeypatch.setenv("TAXI_PREDICTIONS", address)
    return settings.predictions


def put(path: Path, days: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"0123456789")
    os.utime(path, (time.time() - days * 86_400,) * 2)
    return path


def test_a_dry_run_counts_and_yes_removes_what_is_too_old(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    store, metrics = open_store(settings.predictions), open_metrics(settings.metrics)
    store.write_predictions([make_row(days, made_at=NOW - timedelta(days=days)) for days in (1, 399, 401, 900)])
    store.write_outcomes([{"prediction_id": "p000900", "duration": 5.0, "received_at": NOW - timedelta(days=899)}])
    metrics.replace([Metric("live", "green", at, "rmse", value=1.0) for at in ("2024-01-01T00", "2025-12-31T00")])
    metrics.replace([Metric("month", "green", "2020-01", "rmse", value=1.0)])
    named, unnamed, fresh = (
        put(settings.data / "editions" / "green" / f"2023-01-{digest}.parquet", days)
        for digest, days in (("a" * 12, 900), ("b" * 12, 900), ("c" * 12, 3))
    )
    monkeypatch.setattr(retention, "recorded_digests", lambda _: {"a" * 64})
    kept = put(settings.data / "backtest" / "green" / "month" / "x.json", 91)
    expected = {"predictions": (2, 0), "outcomes": (1, 0), "live metrics": (1, 0), "editions": (0, 1)}
    expected |= {"backtest": (0, 1), "model copies": (0, 0), "logs": (0, 0)}

    for do in (False, True):
        old = prune(settings, load_params(), NOW, do)
        assert {one.what: (one.rows, len(one.files)) for one in old} == expected
        assert [named.exists(), unnamed.exists(), fresh.exists(), kept.exists()] == [True, not do, True, not do]

    assert store.count() == {"predictions": 2, "outcomes": 0}
    assert (len(metrics.read("live")), len(metrics.read("month"))) == (1, 1)
    assert not any(one.rows or one.files for one in prune(settings, load_params(), NOW))


def test_predictions_of_a_running_experiment_stay(settings: Settings) -> None:
    store = open_store(settings.predictions)
    store.write_predictions([make_row(1, made_at=NOW - timedelta(days=900))])
    running = {"experiment.mode": "shadow"}

    for since, left in ((None, 1), ("2020-01-01T00:00:00Z", 1), ("2025-12-31T00:00:00Z", 0)):
        prune(settings, override(load_params(), running | {"experiment.since": since}), NOW, do=True)
        assert store.count()["predictions"] == left


def test_prune_of_an_empty_place_makes_nothing(settings: Settings) -> None:
    assert not any(one.rows or one.files for one in prune(settings, load_params(), NOW, do=True))
    assert not settings.data.exists()


def test_a_trip_is_erased_wherever_it_is_and_no_other(settings: Settings) -> None:
    store = open_store(settings.predictions)
    store.write_predictions(
        [make_row(1, trip_id="a"), make_row(2, trip_id="a", service="yellow"), make_row(3, trip_id="b")]
    )
    store.write_outcomes(
        [{"service": "green", "trip_id": "a", "duration": 5.0}, {"prediction_id": "p000001", "duration": 6.0}]
    )
    folder = settings.spool / "f"
    folder.mkdir(parents=True)
    lines, _ = encode_rows([("predictions", make_row(4, trip_id="a")), ("predictions", make_row(5, trip_id="b"))])
    add_segment(folder, lines)
    (settings.spool / REFUSED).write_text(lines[0] + 'spoilt "a1b2" line\n' + lines[1])

    first, second = (erase_trip(settings, "green", "a") for _ in range(2))

    assert first["found"] == {"predictions": 1, "outcomes": 2, "spool": 1, "refused rows": 1} and first["gone"]
    assert not any(second["found"].values())
    assert store.count() == {"predictions": 2, "outcomes": 0}
    assert "p000005" in next(folder.iterdir()).read_text() and "p000004" not in next(folder.iterdir()).read_text()
    assert "spoilt" in (settings.spool / REFUSED).read_text()


def test_what_waits_elsewhere_while_its_trip_is_erased_does_not_come_back(stores: str, settings: Settings) -> None:
    """As on a service's own disk, which an erasure elsewhere cannot see."""
    store, made = open_store(stores), datetime.now(UTC)
    store.write_predictions([make_row(1, trip_id="a", made_at=made)])
    rows = [make_row(n, trip_id=trip, made_at=made) for n, trip in ((2, "a"), (3, "b"))]
    entries = [("predictions", row) for row in [*rows, make_row(4, trip_id="a", service="yellow", made_at=made)]]
    entries += [("outcomes", {"prediction_id": "p000002", "duration": 5.0, "received_at": made})]
    entries += [("outcomes", {"trip_id": "a", "service": "green", "duration": 5.0, "received_at": made})]
    elsewhere = settings.data.parent / "elsewhere"
    elsewhere.mkdir()
    add_segment(elsewhere, encode_rows(entries)[0])

    assert erase_trip(settings, "green", "a")["gone"]
    for segment in elsewhere.iterdir():
        assert store.write_segment(segment).aside == []

    assert store.count() == {"predictions": 2, "outcomes": 0}
    assert store.trip_predictions("yellow", "a") == ["p000004"]
    store.write_predictions([make_row(5, trip_id="a", made_at=datetime.now(UTC))])
    assert store.trip_predictions("green", "a") == ["p000005"]  # one that was made afterwards is another


def test_an_erasure_waits_for_rows_that_are_being_written(stores: str, settings: Settings) -> None:
    store, other, made, answers = open_store(stores), open_store(stores), datetime.now(UTC), []
    store.upgrade()
    with store._transaction() as connection:
        assert store._without_erased(connection, [make_row(1, made_at=made)])
        erasing = Thread(target=lambda: answers.append(erase_trip(settings, "green", "green-2023-04-1")))
        erasing.start()
        erasing.join(0.3)
        assert not answers
        rows = prediction_rows([make_row(1, made_at=made)])
        connection.execute(store._insert(PREDICTIONS), rows)
    erasing.join(30)

    assert answers[0]["found"]["predictions"] == 1
    assert other.count()["predictions"] == 0


def test_rows_that_a_service_writes_while_it_is_pruned_stay(stores: str, settings: Settings, monkeypatch) -> None:
    """Killed after a batch, and done again, with a writer beside it."""
    store = open_store(stores)
    store.write_predictions([make_row(n, made_at=NOW - timedelta(days=900)) for n in range(50)])
    batches = Store.delete_before
    monkeypatch.setattr(Store, "delete_before", lambda self, moment: batches(self, moment, batch=20))
    ended, written = Event(), []

    def write() -> None:
        while not ended.is_set():
            written.append(1000 + len(written))
            open_store(stores).write_predictions([make_row(written[-1], made_at=NOW)])

    def die(self: Store, moment: datetime) -> None:
        with self._transaction() as connection:
            some = sql.select(PREDICTIONS.c.prediction_id).where(PREDICTIONS.c.made_at < datetime(2024, 1, 1)).limit(20)
            connection.execute(sql.delete(PREDICTIONS).where(PREDICTIONS.c.prediction_id.in_(some)))
        raise KeyboardInterrupt

    writer = Thread(target=write)
    writer.start()
    with monkeypatch.context() as killed, pytest.raises(KeyboardInterrupt):
        killed.setattr(Store, "delete_before", die)
        prune(settings, load_params(), NOW, do=True)
    assert prune(settings, load_params(), NOW, do=True)[0].rows == 30
    ended.set()
    writer.join(30)

    assert open_store(stores).count()["predictions"] == len(written) > 0


def test_parts_of_logs_that_were_put_aside_are_pruned_by_age(settings: Settings) -> None:
    logs = [settings.alarm_log, settings.reports / "green" / "retrain" / "decisions.jsonl", settings.spool / REFUSED]
    old = [put(log.with_name(f"{log.name}.20230101T000000000000"), 401) for log in logs]
    fresh = put(logs[0].with_name("alarms.jsonl.20250101T000000000000"), 399)
    for log in logs:
        put(log, 900)

    gone = next(one for one in prune(settings, load_params(), NOW, do=True) if one.what == "logs")

    assert sorted(gone.files) == sorted(old)
    assert not any(path.exists() for path in old) and fresh.exists() and all(log.exists() for log in logs)


@pytest.mark.parametrize("stores", ["postgresql"], indirect=True)
def test_neither_an_erasure_nor_who_writes_waits_for_a_dump(stores: str, settings: Settings) -> None:
    """`pg_dump` holds a lock on every table until it ends."""
    store = open_store(stores)
    store.write_predictions([make_row(1, trip_id="a")])
    with sql.create_engine(stores).connect() as dumping:
        dumping.execute(sql.text("LOCK TABLE predictions, outcomes, erased IN ACCESS SHARE MODE"))
        erasing = Thread(target=erase_trip, args=(settings, "green", "a"), daemon=True)
        erasing.start()
        erasing.join(20)
        store.write_predictions([make_row(2, trip_id="b")])

        assert not erasing.is_alive()
    assert store.count()["predictions"] == 1
