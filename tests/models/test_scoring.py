"""Batch scoring: every trip that can be predicted is, judged by its pickup alone; the file is whole or not there."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as arrow
import pyarrow.parquet as parquet
import pytest

from taxi.config import Settings
from taxi.data.schema import AT_PICKUP, check_trips, read_published, to_arrow
from taxi.data.trips import split_trips
from taxi.errors import BadFile, UsageError
from taxi.files import sha256_file
from taxi.models.fitting import fit_model
from taxi.models.model import DurationModel
from taxi.models.scoring import SCORED, month_to_score, score_file, score_trips
from taxi.outputs import OUTPUTS
from taxi.params import load_params
from tests.support.builders import build_published, build_trips

MONTH, PARAMS = "2023-03", load_params()
MARKS = {"version": "green/3", "model_sha256": "abc"}


@pytest.fixture(scope="module")
def model(zones: pd.DataFrame) -> DurationModel:
    quick = PARAMS.model.model_copy(update={"rounds": 5, "interval_rounds": 5, "max_depth": 4})
    return fit_model(build_trips(2000, "2023-02"), zones, quick, PARAMS.features)


@pytest.fixture
def score(model: DurationModel, tmp_path: Path) -> Callable[[pd.DataFrame | arrow.Table], pd.DataFrame]:
    """Score a frame by way of a Parquet file; the counts are in ``attrs``."""

    def run(trips: pd.DataFrame | arrow.Table) -> pd.DataFrame:
        path, out = tmp_path / "in.parquet", tmp_path / "to" / "out.parquet"
        table = trips if isinstance(trips, arrow.Table) else arrow.Table.from_pandas(trips, preserve_index=False)
        parquet.write_table(table, path)
        counts = score_file(path, out, "green", MONTH, model, 3, MARKS)
        frame = pd.read_parquet(out)
        frame.attrs = counts
        return frame

    return run


def with_faults(n: int = 400) -> pd.DataFrame:
    """A published month with one fault a row in its first rows: seven seen at drop-off only, then four at pickup."""
    month = build_published("green", MONTH, n).astype({"PULocationID": "float64", "lpep_dropoff_datetime": "object"})
    start = month["lpep_pickup_datetime"]
    month.loc[0, "lpep_dropoff_datetime"] = None
    month.loc[1, "lpep_dropoff_datetime"] = start[1]
    month.loc[2, "lpep_dropoff_datetime"] = start[2] + pd.Timedelta(hours=9)
    month.loc[3, "lpep_dropoff_datetime"] = start[3] - pd.Timedelta(hours=1)
    month.loc[4, "total_amount"] = -5.0
    month.loc[6] = month.loc[5]
    month.loc[7, "lpep_pickup_datetime"] = pd.NaT
    month.loc[8, "lpep_pickup_datetime"] = pd.Timestamp("2009-01-01")
    month.loc[9, "PULocationID"] = np.nan
    month.loc[10, "DOLocationID"] = 300
    return month.astype({"lpep_dropoff_datetime": "datetime64[us]"})


@pytest.mark.slow
def test_a_published_month_loses_only_trips_whose_pickup_cannot_be_used(score: Any) -> None:
    scored = score(with_faults())

    assert list(scored["row"]) == [*range(7), *range(11, 400)]
    assert scored.attrs["rows"] == 400
    assert scored.attrs["scored"] == 396
    assert scored.attrs["not_scorable"] == {"missing-time": 1, "out-of-month": 1, "unknown-zone": 2}


def test_nothing_known_at_drop_off_moves_a_prediction(score: Any) -> None:
    month = with_faults()
    before = score(month)

    poisoned = month.assign(
        lpep_dropoff_datetime=month["lpep_dropoff_datetime"] + pd.Timedelta(days=3),
        trip_distance=1e6,
        total_amount=-1.0,
        fare_amount=np.nan,
    )

    pd.testing.assert_frame_equal(score(poisoned), before)


def test_predictions_are_those_of_the_model_and_in_order(score: Any, model: DurationModel) -> None:
    trips = build_trips(300, MONTH)

    scored = score(to_arrow(check_trips(trips)))

    pd.testing.assert_frame_equal(scored[OUTPUTS], model.predict(trips[AT_PICKUP])[OUTPUTS])
    assert list(scored.columns) == ["row", *OUTPUTS, "version"]
    assert set(scored["version"]) == {3}
    assert (scored["p10"] <= scored["median"]).all() and (scored["median"] <= scored["p90"]).all()


def test_a_kept_month_and_its_published_file_give_the_same_numbers(score: Any, tmp_path: Path) -> None:
    published = score(build_published("green", MONTH, 400))
    kept, _ = split_trips(read_published(tmp_path / "in.parquet", "green"), MONTH, PARAMS.clean)

    scored = score(to_arrow(check_trips(kept)))

    pd.testing.assert_frame_equal(scored, published[published["row"].isin(kept["row"])].reset_index(drop=True))


def test_trips_that_have_only_begun_need_no_more_than_time_and_zones(score: Any) -> None:
    trips = build_trips(50, MONTH)[["pickup", "PULocationID", "DOLocationID"]]

    scored = score(trips)

    assert list(scored["row"]) == list(range(50))
    assert np.isfinite(scored[OUTPUTS].to_numpy()).all()


def test_parts_come_to_the_same_as_the_whole(model: DurationModel) -> None:
    trips = build_trips(100, MONTH)

    assert score_trips(trips, model, 3, at_once=7).equals(score_trips(trips, model, 3))


def test_a_file_of_no_trips_gives_a_file_of_no_predictions(score: Any) -> None:
    scored = score(build_published("green", MONTH, 400)[:0])

    assert len(scored) == 0
    assert list(scored.columns) == SCORED.names


def test_the_file_says_what_made_it(score: Any, tmp_path: Path) -> None:
    score(build_published("green", MONTH, 40))

    metadata = parquet.read_schema(tmp_path / "to" / "out.parquet").metadata

    assert metadata[b"taxi.version"] == b"green/3"
    assert metadata[b"taxi.scored_sha256"].decode() == sha256_file(tmp_path / "in.parquet")


def test_a_run_that_fails_leaves_the_earlier_file_as_it_was(score: Any, tmp_path: Path, monkeypatch: Any) -> None:
    score(build_published("green", MONTH, 40))
    out = tmp_path / "to" / "out.parquet"
    before = out.read_bytes()

    def fail(table: arrow.Table, part: Path) -> None:
        part.write_bytes(b"PAR1 half")
        raise OSError("no space left on the device")

    monkeypatch.setattr(parquet, "write_table", fail)
    source = tmp_path / "in.parquet"
    with pytest.raises(OSError, match="no space"):
        score_file(source, out, "green", MONTH, fit_nothing(), 3, MARKS)

    assert out.read_bytes() == before
    assert [path.name for path in out.parent.iterdir()] == ["out.parquet"]


def fit_nothing() -> Any:
    """A model that answers 10 minutes."""

    class Ten:
        def predict(self, trips: pd.DataFrame) -> pd.DataFrame:
            return pd.DataFrame(10.0, index=trips.index, columns=OUTPUTS)

    return Ten()


@pytest.mark.parametrize(
    ("trips", "said"),
    [
        (pd.DataFrame({"pickup": [pd.Timestamp("2023-03-01")], "PULocationID": [1]}), "DOLocationID"),
        (
            pd.DataFrame({"pickup": ["2023-03-01"], "PULocationID": [1], "DOLocationID": [1]}),
            "timestamp without a zone",
        ),
        (pd.DataFrame({"a": [1]}), "expected columns"),
    ],
)
def test_a_file_without_what_is_needed_is_refused(trips: pd.DataFrame, said: str, score: Any) -> None:
    with pytest.raises(BadFile, match=said):
        score(trips)


def test_the_published_month_comes_before_the_kept_one(tmp_path: Path) -> None:
    settings = Settings(tmp_path, "unused", tmp_path / "data", tmp_path, "unused")
    paths = settings.month("green", MONTH)
    with pytest.raises(UsageError, match="taxi ingest --service green --month 2023-03"):
        month_to_score(settings, "green", MONTH)

    for path in (paths.trips, paths.raw):
        path.parent.mkdir(parents=True)
        path.touch()
        assert month_to_score(settings, "green", MONTH) == path


@pytest.mark.real
def test_a_real_published_month_is_scored_but_for_impossible_pickups(
    real_source: Path, model: DurationModel, tmp_path: Path
) -> None:
    path = next(real_source.rglob(f"green_tripdata_{MONTH}.parquet"))

    counts = score_file(path, tmp_path / "out.parquet", "green", MONTH, model, 3, MARKS)

    assert counts["rows"] == parquet.read_metadata(path).num_rows
    assert counts["scored"] + sum(counts["not_scorable"].values()) == counts["rows"]
    assert counts["scored"] > 0.999 * counts["rows"]
