"""The commands about traffic, on a real registry: a batch is scored by the champion, a month becomes outcomes."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as arrow
import pyarrow.parquet as parquet
import pytest
from typer.testing import CliRunner

from pipelines.cli import app
from taxi.config import Settings
from taxi.data.schema import AT_PICKUP, read_published, read_trips
from taxi.errors import UsageError
from taxi.models.model import DurationModel, load_model
from taxi.outputs import OUTPUTS
from taxi.predictions.store import open_store
from tests.support.builders import build_published
from tests.support.prediction_rows import make_row
from tests.support.registered import record, settings_with_months, small_model

pytestmark = pytest.mark.slow

MONTH = "2023-03"


@pytest.fixture(scope="module")
def model() -> DurationModel:
    return small_model()


@pytest.fixture
def settings(tmp_path: Path, model: DurationModel) -> Settings:
    return settings_with_months(tmp_path, model)


@pytest.fixture
def command(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run ``taxi`` on the test's own registry and data; return what it answers as JSON."""
    monkeypatch.setenv("TAXI_DATA", str(settings.data))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", settings.tracking_uri)
    monkeypatch.delenv("TAXI_PREDICTIONS", raising=False)

    def run(*words: str) -> dict[str, Any]:
        done = CliRunner().invoke(app, [*words, "--service", "green", "--month", MONTH, "--json"])
        if done.exception:
            raise done.exception
        return dict(json.loads(done.stdout.splitlines()[-1]))

    return run


def test_a_published_month_is_scored_by_the_champion(command: Any, settings: Settings, tmp_path: Path) -> None:
    record(settings, "2023-02")
    month = build_published("green", MONTH, 500)
    paths = settings.month("green", MONTH)
    parquet.write_table(arrow.Table.from_pandas(month, preserve_index=False), paths.raw)

    answer = command("score", "--out", str(tmp_path / "scores.parquet"))

    assert (answer["rows"], answer["scored"], answer["not_scorable"], answer["version"]) == (500, 500, {}, 2)
    champion = load_model(settings.month("green", "2023-02").models / "winner")
    expected = champion.predict(read_published(paths.raw, "green")[AT_PICKUP])[OUTPUTS]
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "scores.parquet")[OUTPUTS], expected)


def test_another_version_and_another_file_can_be_named(command: Any, settings: Settings, tmp_path: Path) -> None:
    record(settings, "2023-02")
    out, trips = tmp_path / "scores.parquet", settings.month("green", MONTH).trips

    answer = command("score", "--out", str(out), "--version", "1", "--in", str(trips))

    assert answer["version"] == 1
    assert list(pd.read_parquet(out)["row"]) == list(read_trips(trips)["row"])
    with pytest.raises(UsageError, match="there are: green/1, green/2"):
        command("score", "--out", str(out), "--version", "7")


def test_a_replayed_month_becomes_outcomes(command: Any, settings: Settings) -> None:
    trips = read_trips(settings.month("green", MONTH).trips)
    known = {name: trips[name][4] for name in ("pickup", "PULocationID", "DOLocationID")}
    store = open_store(settings.predictions)
    store.write_predictions([make_row(4, trip_id=f"green-{MONTH}-4", **known)])

    answer = command("outcomes")

    counts = {"predicted": 1, "outcomes": 1, "changed": 0, "not_kept": 0}
    assert answer == {"service": "green", "month": MONTH, **counts}
    assert list(store.with_outcomes("green")["duration"]) == [trips["duration"][4]]
