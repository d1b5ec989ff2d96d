"""Retention and erasure: what is too old goes when asked to, what is needed stays, and one trip goes wherever it is."""

import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from taxi.config import Settings
from taxi.monitoring.metric_store import Metric, open_metrics
from taxi.operations import retention
from taxi.operations.retention import erase_trip, prune
from taxi.params import load_params, override
from taxi.predictions.spool import REFUSED, add_segment, encode_rows
from taxi.predictions.store import open_store
from tests.support.prediction_rows import make_row

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name in ("TAXI_PREDICTIONS", "TAXI_METRICS"):
        monkeypatch.delenv(name, raising=False)
    return Settings(tmp_path, "unused", tmp_path / "data", tmp_path / "reports", f"sqlite:///{tmp_path}/mlflow.db")


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
    expected |= {"backtest": (0, 1), "model copies": (0, 0)}

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
