"""Real trips as live traffic to the real service: what it answers is what the batch says, and every outcome is joined."""

from pathlib import Path

import pyarrow.parquet as parquet
import pytest

from taxi.data.schema import check_trips, read_published, to_arrow
from taxi.data.trips import split_trips
from taxi.params import load_params
from taxi.serving.replay import read_traffic
from tests.support.replayed import differences, replay_to
from tests.support.serving_worlds import make_world

pytestmark = [pytest.mark.slow, pytest.mark.real]
MONTH, TRIPS = "2023-04", 4000  # benchmarks.replay sends whole months


def test_real_trips_sent_to_the_service_get_the_batchs_numbers_and_their_outcomes(
    real_source: Path, small_models: dict[int, Path], tmp_path: Path
) -> None:
    published = read_published(next(real_source.rglob(f"green_tripdata_{MONTH}.parquet")), "green")
    kept = check_trips(split_trips(published, MONTH, load_params().clean)[0])
    parquet.write_table(to_arrow(kept), tmp_path / f"{MONTH}.parquet")
    trips = read_traffic(tmp_path / f"{MONTH}.parquet", TRIPS)
    world = make_world(tmp_path / "world", {1: small_models[1]})

    result, log = replay_to(world, trips, MONTH, batch=100)

    assert (result["answered"], result["failed"], result["outcomes"]) == (TRIPS, 0, TRIPS)
    found = differences(result, log, trips, world.models[1], "green", MONTH)
    assert found == pytest.approx({"answers": 0, "outcomes": 0, "scores": 0, "rows": 0}, abs=1e-6)
