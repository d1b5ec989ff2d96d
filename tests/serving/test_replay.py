"""Replay: a past month comes to a service as it was lived, and its errors are those of the batch."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as parquet
import pytest
from typer.testing import CliRunner

from pipelines.cli import app
from taxi.config import Settings
from taxi.data.schema import AT_PICKUP, check_trips, read_published, to_arrow
from taxi.data.trips import split_trips
from taxi.data.zones import read_zones
from taxi.errors import TaxiError, UsageError
from taxi.models.evaluate import score
from taxi.models.fitting import fit_model
from taxi.outputs import OUTPUTS
from taxi.params import load_params
from taxi.predictions.outcomes import join_month, take_month
from taxi.predictions.store import open_store
from taxi.serving.replay import Progress, outcomes, progress_line, read_traffic, replay_month, requests, schedule
from taxi.serving.schemas import parse_trips
from tests.support.builders import build_trips
from tests.support.campaign import at_scale
from tests.support.contract_server import Service, serving
from tests.support.postgres import free_port
from tests.support.prediction_rows import make_row

MONTH = "2023-03"


def minutes(trips: list[dict[str, Any]]) -> list[tuple[float, ...]]:
    """What the test's service predicts: some minutes that differ from pair to pair."""
    middles = [8.0 + (trip["PULocationID"] * 7 + trip["DOLocationID"]) % 11 for trip in trips]
    return [(middle, middle - 0.5, middle / 2, middle * 1.6) for middle in middles]


def batch(trips: pd.DataFrame) -> dict[str, float]:
    return score(trips["duration"], pd.DataFrame(minutes(trips.to_dict("records")), columns=OUTPUTS))


@pytest.fixture
def service() -> Iterator[Service]:
    with serving(Service(minutes)) as running:
        yield running


def write_month(path: Path, trips: pd.DataFrame) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(to_arrow(check_trips(trips)), path)
    return path


@pytest.fixture
def traffic(tmp_path: Path) -> pd.DataFrame:
    trips = build_trips(300, MONTH).sample(frac=1, random_state=3)
    return read_traffic(write_month(tmp_path / "green" / f"{MONTH}.parquet", trips))


def test_trips_come_in_the_order_of_their_pickups_and_may_be_the_first_few(tmp_path: Path) -> None:
    path = write_month(tmp_path / "green" / f"{MONTH}.parquet", build_trips(50, MONTH).sample(frac=1, random_state=3))

    trips = read_traffic(path)

    assert trips["pickup"].is_monotonic_increasing
    assert len(trips) == 50
    pd.testing.assert_frame_equal(read_traffic(path, 7), trips.head(7))


def test_a_month_that_is_not_on_hand_is_explained(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no kept trips of green 2023-03 are on hand"):
        read_traffic(tmp_path / "green" / "2023-03.parquet")


def test_what_happens_is_in_true_order_and_as_much_faster_as_asked() -> None:
    pickup = pd.to_datetime(["2023-03-01 00:00", "2023-03-01 00:05", "2023-03-01 00:10"])
    trips = pd.DataFrame({"pickup": pickup, "duration": [10.0, 1.0, 5.0]})

    events = schedule(trips, speed=60)

    assert list(zip(events["at"], events["trip"], events["ends"], strict=True)) == [
        (0.0, 0, False), (5.0, 1, False), (6.0, 1, True), (10.0, 2, False), (10.0, 0, True), (15.0, 2, True),
    ]  # fmt: skip


def test_without_waiting_the_order_is_the_same(traffic: pd.DataFrame) -> None:
    timed, at_once = schedule(traffic, 600), schedule(traffic, 0)

    pd.testing.assert_frame_equal(timed[["trip", "ends"]], at_once[["trip", "ends"]])
    assert (at_once["at"] == 0).all()


def test_a_request_holds_nothing_that_is_known_only_at_the_end() -> None:
    trips = build_trips(200, MONTH)

    asked = requests(trips, "green", MONTH)

    known = {"trip_id", "pickup_datetime", "PULocationID", "DOLocationID", "passenger_count", "trip_type", "vendor"}
    assert {name for one in asked for name in one} == known
    assert asked[5]["trip_id"] == "green-2023-03-5"
    assert asked[5]["pickup_datetime"] == trips["pickup"][5].isoformat()
    assert not {"passenger_count", "trip_type"} & asked[-1].keys()


def test_the_service_takes_every_request_of_a_replay() -> None:
    asked = requests(build_trips(200, MONTH), "green", MONTH)

    assert len(parse_trips(json.dumps({"trips": asked}).encode()).trips) == 200


@pytest.mark.parametrize("together", [1, 50])
@pytest.mark.slow
def test_error_and_coverage_equal_those_of_the_batch(together: int, service: Service, traffic: pd.DataFrame) -> None:
    result = replay_month(traffic, "green", MONTH, service.address, speed=0, batch=together)

    assert (result["answered"], result["failed"], result["outcomes"]) == (300, 0, 300)
    expected = batch(traffic)
    assert result["metrics"] == pytest.approx(expected, abs=1e-9)
    assert result["arms"]["champion"] == result["metrics"]
    assert result["versions"] == {"3": 300}


@pytest.mark.slow
def test_one_connection_keeps_a_strict_order_and_every_trip_ends_as_it_did(
    service: Service, traffic: pd.DataFrame
) -> None:
    replay_month(traffic, "green", MONTH, service.address, speed=0, connections=1)

    assert [one["trip_id"] for one in service.asked] == [one["trip_id"] for one in requests(traffic, "green", MONTH)]
    told = {one["trip_id"]: one["duration_minutes"] for one in service.told}
    assert told == {one["trip_id"]: one["duration_minutes"] for one in outcomes(traffic, "green", MONTH)}


def test_an_outcome_comes_when_its_trip_ends_and_not_before(service: Service) -> None:
    start = pd.Timestamp("2023-03-01 10:00")
    trips = build_trips(3, MONTH, pickup=[start, start + pd.Timedelta(minutes=4), start + pd.Timedelta(minutes=8)])
    trips = trips.assign(duration=[6.0, 10.0, 2.0])

    replay_month(trips, "green", MONTH, service.address, speed=2400, connections=1)

    names = [f"{kind} {trip[-1]}" for kind, trip in service.events]
    assert names == ["begins 0", "begins 1", "ends 0", "begins 2", "ends 2", "ends 1"]


@pytest.mark.slow
def test_failed_predictions_are_counted_by_kind_and_never_scored(service: Service, traffic: pd.DataFrame) -> None:
    service.faults["/predict"] = [500, 503, 503]

    result = replay_month(traffic, "green", MONTH, service.address, speed=0, connections=1)

    assert (result["answered"], result["failed"], result["failures"]) == (297, 3, {"500": 1, "503": 2})
    assert result["metrics"] == pytest.approx(batch(traffic[3:].reset_index(drop=True)), abs=1e-9)


def test_an_answer_that_is_none_is_a_failure(traffic: pd.DataFrame) -> None:
    with serving(Service(lambda trips: [[float("nan")] * 4 for _ in trips])) as service:
        result = replay_month(traffic.head(5), "green", MONTH, service.address, speed=0)

    assert (result["answered"], result["failures"], result["metrics"]) == (0, {"not an answer": 5}, None)


@pytest.mark.slow
def test_outcomes_that_were_not_taken_are_sent_again(service: Service, traffic: pd.DataFrame) -> None:
    service.faults["/outcomes"] = [503, 500]

    result = replay_month(traffic, "green", MONTH, service.address, speed=0)

    assert result["outcomes"] == 300
    assert len({one["trip_id"] for one in service.told}) == 300


def test_a_service_that_says_too_many_is_waited_for(service: Service, traffic: pd.DataFrame) -> None:
    service.faults["/predict"] = [429, 429, 429]

    result = replay_month(traffic.head(20), "green", MONTH, service.address, speed=0)

    assert (result["answered"], result["failed"]) == (20, 0)


def test_a_service_that_is_not_there_or_not_ready_is_explained(service: Service, traffic: pd.DataFrame) -> None:
    with pytest.raises(TaxiError, match=r"expected a service at http://127\.0\.0\.1"):
        replay_month(traffic, "green", MONTH, f"http://127.0.0.1:{free_port()}")
    service.ready = 503
    with pytest.raises(TaxiError, match="/readyz answered 503"):
        replay_month(traffic, "green", MONTH, service.address)


def test_the_key_goes_with_every_request(service: Service, traffic: pd.DataFrame) -> None:
    replay_month(traffic.head(20), "green", MONTH, service.address, speed=0, key="a key of ours")

    assert service.keys == {"a key of ours"}


def test_live_scores_are_of_trips_answered_and_ended() -> None:
    progress = Progress(np.array([10.0, 20.0, 30.0]))
    assert progress_line("now", progress) == "now  0 predicted, 0 failed, none has ended"
    answer = {"median_minutes": 12.0, "p10_minutes": 5.0, "p90_minutes": 15.0, "arm": "champion", "version": 3}

    progress.answer(0, answer | {"mean_minutes": 13.0})
    progress.answer(1, answer | {"mean_minutes": 16.0})
    progress.ended[[0, 2]] = True

    assert progress_line("now", progress).startswith(
        "now  2 predicted, 0 failed, 1 ended: RMSE 3.000, MAE 2.000, 100.0%"
    )
    progress.ended[1] = True
    assert progress.scores() == pytest.approx(
        {"rmse": np.sqrt(12.5), "mae": 5.0, "medae": 5.0, "p90": 7.4, "within5": 0.5, "n": 2, "coverage80": 0.5, "width80": 10.0}
    )  # fmt: skip


def test_the_publishers_month_gives_outcomes_to_the_trips_it_still_describes(tmp_path: Path) -> None:
    settings = Settings(tmp_path, "unused", tmp_path / "data", tmp_path, "unused")
    kept = build_trips(40, MONTH)[:30]
    write_month(settings.month("green", MONTH).trips, kept)
    store = open_store(settings.predictions)
    same = {name: kept[name].tolist() for name in ("pickup", "PULocationID", "DOLocationID")}
    rows = [
        make_row(row, trip_id=f"green-{MONTH}-{row}", **{name: values[row] for name, values in same.items()})
        for row in (1, 2, 3)
    ]
    other = make_row(4, trip_id=f"green-{MONTH}-4", PULocationID=int(kept["PULocationID"][4]) + 1)
    refused, foreign = make_row(5, trip_id=f"green-{MONTH}-35"), make_row(6, trip_id="a trip of a client")
    shadow = rows[0] | {"prediction_id": "shadow", "shadow": True}
    store.write_predictions([*rows, other, refused, foreign, shadow])

    counts = take_month(store, settings, "green", MONTH)
    again = take_month(store, settings, "green", MONTH)

    assert counts == again
    assert counts == {
        "service": "green", "month": MONTH, "predicted": 5, "outcomes": 3, "changed": 1, "not_kept": 1,
    }  # fmt: skip
    found = store.with_outcomes("green").dropna(subset="duration")
    assert sorted(found["prediction_id"]) == ["p000001", "p000002", "p000003", "shadow"]
    durations = found.set_index("trip_id")["duration"]
    assert all(durations[f"green-{MONTH}-{row}"].tolist() == kept["duration"][row] for row in (2, 3))
    assert set(found["source"]) == {"tlc"}


def test_a_month_that_nobody_replayed_has_no_outcomes() -> None:
    empty = pd.DataFrame({"trip_id": [], "pickup": pd.to_datetime([]), "PULocationID": [], "DOLocationID": []})

    found, counts = join_month(empty, build_trips(5, MONTH), "green", MONTH)

    assert found.empty
    assert counts == {"predicted": 0, "outcomes": 0, "changed": 0, "not_kept": 0}


@pytest.mark.slow
def test_the_command_replays_a_month_and_prints_what_it_came_to(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAXI_DATA", str(tmp_path))
    path = write_month(tmp_path / "trips" / "green" / f"{MONTH}.parquet", build_trips(500, MONTH))
    words = ["replay", "--service", "green", "--month", MONTH, "--speed", "0", "--url", service.address]

    done = CliRunner().invoke(app, [*words, "--trips", "400", "--json"])
    service.faults["/predict"] = [500]
    failed = CliRunner().invoke(app, [*words, "--trips", "5", "--connections", "1"])

    result = json.loads(done.stdout.splitlines()[-1])
    assert (done.exit_code, result["trips"], result["answered"], result["outcomes"]) == (0, 400, 400, 400)
    assert result["metrics"] == pytest.approx(batch(read_traffic(path, 400)))
    assert failed.exit_code == 1
    assert "4 of 5 trips predicted (4 by version 3), 1 failed, 5 outcomes" in failed.stdout
    assert "champion: RMSE" in failed.stdout


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.campaign
def test_a_real_month_replayed_has_the_errors_of_its_batch_run(real_source: Path, tmp_path: Path) -> None:
    params, zones = load_params(), read_zones(real_source / "misc")
    kept = {}
    for month in ("2023-03", "2023-04"):
        path = next(real_source.rglob(f"green_tripdata_{month}.parquet"))
        kept[month] = check_trips(split_trips(read_published(path, "green"), month, params.clean)[0])
    quick = params.model.model_copy(update={"rounds": 20, "interval_rounds": 10})
    model = fit_model(kept["2023-03"], zones, quick, params.features)
    trips = read_traffic(write_month(tmp_path / "green" / "2023-04.parquet", kept["2023-04"]), at_scale(10_000, None))

    def predict(asked: list[dict[str, Any]]) -> np.ndarray:
        frame = pd.DataFrame(asked, columns=["pickup_datetime", *AT_PICKUP[1:-1], "vendor"])
        frame = frame.rename(columns={"vendor": "VendorID"}).assign(pickup=pd.to_datetime(frame["pickup_datetime"]))
        return model.predict(frame)[OUTPUTS].to_numpy()

    with serving(Service(predict)) as service:
        result = replay_month(trips, "green", "2023-04", service.address, speed=0, batch=1000, connections=2)

    assert result["answered"] == result["outcomes"] == len(trips) >= 10_000
    assert result["metrics"] == pytest.approx(score(trips["duration"], model.predict(trips)), abs=1e-6)
