"""The prediction store, on SQLite and on a real PostgreSQL server: the same rows, the same answers."""

import itertools
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pandas as pd
import pytest
from sqlalchemy import create_engine, text

from taxi.config import Settings
from taxi.database import BadRows, StoreDown
from taxi.errors import UsageError
from taxi.predictions.store import Store, open_store
from tests.support.logs import CarriedLog
from tests.support.postgres import Postgres, free_port
from tests.support.prediction_rows import make_row, wait_for

MADE = datetime(2024, 5, 1, 12, tzinfo=UTC)


def emptied(address: str) -> str:
    with create_engine(address).begin() as connection:
        connection.execute(text("DROP TABLE IF EXISTS predictions, outcomes"))
    return address


@pytest.fixture(params=["sqlite", "postgresql"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'place' / 'predictions.db'}"
    return emptied(request.getfixturevalue("postgres").address)


@pytest.fixture
def store(address: str) -> Iterator[Store]:
    made = open_store(address)
    yield made
    made.close()


def test_a_prediction_comes_back_as_it_was_written(store: Store) -> None:
    row = make_row(
        1, made_at=MADE, planned_distance_miles=2.5, arm="challenger", shadow=True, pickup="2023-04-01T10:00"
    )

    store.write_predictions([row])

    found = store.find_prediction("p000001")
    expected = row | {"made_at": datetime(2024, 5, 1, 12), "pickup": datetime(2023, 4, 1, 10), "passenger_count": None}
    assert found == expected
    assert store.find_prediction("p000002") is None


def test_what_is_optional_may_be_left_out(store: Store) -> None:
    optional = {"trip_id", "passenger_count", "trip_type", "vendor", "shadow", "fallback", "latency_ms"}

    store.write_predictions([{name: value for name, value in make_row(1).items() if name not in optional}])

    found = store.find_prediction("p000001")
    assert found
    assert {name: found[name] for name in optional} == dict.fromkeys(optional) | {"shadow": False, "fallback": False}


def test_writing_a_prediction_again_changes_nothing(store: Store) -> None:
    store.write_predictions([make_row(1), make_row(1, mean=99.0)])

    store.write_predictions([make_row(1, mean=77.0), make_row(2)])

    found = store.find_prediction("p000001")
    assert found
    assert found["mean"] == 10.5
    assert store.count()["predictions"] == 2


def test_times_with_a_zone_are_kept_in_utc(store: Store) -> None:
    there = timezone(timedelta(hours=-4))

    store.write_predictions([make_row(1, made_at=datetime(2024, 5, 1, 8, tzinfo=there).isoformat())])

    found = store.find_prediction("p000001")
    assert found
    assert found["made_at"] == datetime(2024, 5, 1, 12)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"mean": float("nan")}, "finite minutes"),
        ({"pickup": "2023-04-01T10:00:00-04:00"}, "wall-clock time without a zone"),
        ({"colour": "red"}, r"unknown: \['colour'\]"),
        ({"PULocationID": 2**70}, "refused the rows"),
        ({"trip_id": "\ud800"}, "refused the rows"),
    ],
)
def test_a_row_that_is_no_prediction_is_refused_with_its_whole_batch(
    changes: dict[str, object], said: str, store: Store
) -> None:
    with pytest.raises(BadRows, match=said):
        store.write_predictions([make_row(1), make_row(2, **changes)])

    assert store.count()["predictions"] == 0


def test_outcomes_join_by_trip_or_prediction_whatever_came_first(store: Store) -> None:
    store.write_outcomes([{"trip_id": "green-2023-04-1", "duration": 11.0, "source": "http"}])
    store.write_predictions([make_row(number, made_at=MADE) for number in (1, 2, 3)])
    store.write_outcomes([{"prediction_id": "p000002", "dropoff": "2023-04-01T10:12:30"}])

    found = store.with_outcomes("green").set_index("prediction_id")

    assert found["duration"].dropna().to_dict() == {"p000001": 11.0, "p000002": 12.5}
    assert found.loc["p000003", ["duration", "dropoff", "source", "received_at"]].isna().all()
    assert found["p10"].dtype == "float64" and found["shadow"].dtype == "bool"
    assert found["made_at"].dtype == found["dropoff"].dtype == "datetime64[us]"
    assert list(found["passenger_count"].isna()) == [True, True, True]


def test_an_outcome_of_the_prediction_comes_before_one_of_its_trip(store: Store) -> None:
    shadow = make_row(2, trip_id="green-2023-04-1", shadow=True, arm="challenger")
    store.write_predictions([make_row(1), shadow])

    store.write_outcomes([{"trip_id": "green-2023-04-1", "duration": 20.0}])
    store.write_outcomes([{"prediction_id": "p000001", "duration": 10.0}])

    found = store.with_outcomes("green").set_index("prediction_id")["duration"]
    assert found.to_dict() == {"p000001": 10.0, "p000002": 20.0}


def test_only_the_service_and_time_that_were_asked_for_come_back(store: Store) -> None:
    rows = [make_row(number, made_at=MADE + timedelta(hours=number)) for number in range(4)]
    store.write_predictions([*rows, make_row(9, service="yellow", made_at=MADE)])
    store.write_outcomes([{"prediction_id": f"p{number:06d}", "duration": 5.0} for number in (0, 1, 2, 3, 9)])

    found = store.with_outcomes("green", since=MADE + timedelta(hours=2))

    assert list(found["prediction_id"]) == ["p000002", "p000003"]
    assert store.with_outcomes("green", since=MADE + timedelta(days=9)).empty


def test_the_drop_off_of_a_trip_across_the_clock_change_gives_its_true_duration(store: Store) -> None:
    store.write_predictions([make_row(1, pickup="2023-03-12T01:50:00"), make_row(2, pickup="2023-11-05T01:50:00")])
    store.write_outcomes(
        [
            {"prediction_id": "p000001", "dropoff": "2023-03-12T03:05:00"},
            {"prediction_id": "p000002", "dropoff": "2023-11-05T01:05:00"},
        ]
    )

    assert list(store.with_outcomes("green")["duration"]) == [15.0, 15.0]


def test_outcomes_in_any_order_repeated_or_not_come_to_the_same(store: Store, address: str, tmp_path: Path) -> None:
    said = [
        {"trip_id": trip, "duration": 10.0 + late, "received_at": MADE + timedelta(days=late)}
        for trip, late in itertools.product("abc", (0, 30, 90))
    ]
    store.write_predictions([make_row(number, trip_id=trip) for number, trip in enumerate("abc")])

    for seed in range(5):
        mixed = random.Random(seed).sample(said + said, 18)
        for part in (mixed[:7], mixed[7:8], mixed[8:]):
            store.write_outcomes(part)
        assert list(store.with_outcomes("green")["duration"]) == [100.0] * 3
    assert store.count()["outcomes"] == 3


def test_an_outcome_that_is_repeated_keeps_its_first_arrival(store: Store) -> None:
    store.write_predictions([make_row(1)])
    for late in (0, 5):
        received = MADE + timedelta(days=late)
        store.write_outcomes([{"prediction_id": "p000001", "duration": 10.0, "received_at": received}])

    assert list(store.with_outcomes("green")["received_at"]) == [pd.Timestamp("2024-05-01 12:00")]


@pytest.mark.parametrize(
    ("outcome", "said"),
    [
        ({"duration": 5.0}, "neither"),
        ({"trip_id": "a"}, "neither"),
        ({"trip_id": "a", "duration": float("inf")}, "finite"),
        ({"trip_id": "a", "duration": 5.0, "minutes": 5.0}, "minutes"),
    ],
)
def test_what_is_no_outcome_is_refused(outcome: dict[str, object], said: str, store: Store) -> None:
    with pytest.raises(BadRows, match=said):
        store.write_outcomes([outcome])


def test_trips_are_found_by_the_beginning_of_their_id_as_it_is_spelt(store: Store) -> None:
    store.write_predictions(
        [make_row(1), make_row(2, trip_id="green-2023-05-1"), make_row(3, trip_id="green_2023-04-")]
    )

    assert list(store.of_trips("green-2023-04-")["prediction_id"]) == ["p000001"]
    assert list(store.of_trips("green_")["prediction_id"]) == ["p000003"]


def test_eight_threads_start_on_a_fresh_store_at_once(address: str) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: open_store(address).write_predictions([make_row(number)]), range(8)))

    assert open_store(address).count()["predictions"] == 8


def test_a_store_that_was_made_anew_is_filled_again(store: Store, address: str) -> None:
    store.write_predictions([make_row(1)])
    with create_engine(address).begin() as connection:
        for table in ("predictions", "outcomes"):
            connection.execute(text(f"DROP TABLE {table}"))

    with pytest.raises(StoreDown):
        store.write_predictions([make_row(2)])
    store.write_predictions([make_row(2)])

    assert store.count()["predictions"] == 1


@pytest.mark.slow
def test_nothing_is_lost_while_postgresql_is_down(postgres: Postgres, tmp_path: Path) -> None:
    store = open_store(emptied(postgres.address))
    log = CarriedLog(store, tmp_path / "spool", every=0.02)
    log.put(make_row(0))
    wait_for(lambda: log.written == 1)

    postgres.stop()
    for number in range(1, 2000):
        log.put(make_row(number))
    log.put_outcome({"trip_id": "green-2023-04-5", "duration": 9.0})
    wait_for(lambda: log.down and not log.in_memory)
    written_while_down = log.written
    postgres.start()
    wait_for(lambda: log.queued == 0)
    log.close()

    assert written_while_down == 1
    assert (log.written, log.lost) == (2001, 0)
    assert store.count() == {"predictions": 2000, "outcomes": 1}
    store.close()


def test_a_server_that_is_not_there_is_down_and_its_password_is_not_told() -> None:
    store = open_store(f"postgresql+psycopg2://someone:secret@127.0.0.1:{free_port()}/taxi")

    with pytest.raises(StoreDown, match="did not answer") as raised:
        store.count()
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("address", ["mysql://somewhere/else", "nonsense", "postgresql+nothing://a/b"])
def test_an_address_that_is_no_store_is_refused(address: str) -> None:
    with pytest.raises(UsageError, match="expected"):
        open_store(address)


def test_the_store_is_a_file_beside_the_data_unless_the_environment_says_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(tmp_path, "unused", tmp_path / "data", tmp_path, "unused")
    monkeypatch.delenv("TAXI_PREDICTIONS", raising=False)
    assert settings.predictions == f"sqlite:///{tmp_path}/data/predictions.db"

    monkeypatch.setenv("TAXI_PREDICTIONS", "postgresql+psycopg2://db/taxi")

    assert settings.predictions == "postgresql+psycopg2://db/taxi"
