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
        connection.execute(text("DROP TABLE IF EXISTS predictions, outcomes, alembic_version_predictions"))
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
    assert found == expected | {"pickup_utc": None}
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
    store.write_outcomes([{"service": "green", "trip_id": "green-2023-04-1", "duration": 11.0, "source": "http"}])
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

    store.write_outcomes([{"service": "green", "trip_id": "green-2023-04-1", "duration": 20.0}])
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


UTC_OF = {"01:50-04:00": datetime(2023, 11, 5, 5, 50), "01:10-05:00": datetime(2023, 11, 5, 6, 10)}


@pytest.mark.parametrize(
    ("pickup", "dropoff", "minutes"),
    [
        (("01:50", UTC_OF["01:50-04:00"]), ("02:10", datetime(2023, 11, 5, 7, 10)), 80),
        (("01:50", UTC_OF["01:50-04:00"]), ("02:10", None), 80),
        (("00:50", None), ("01:10", UTC_OF["01:10-05:00"]), 80),
        (("01:10", UTC_OF["01:10-05:00"]), ("01:50", datetime(2023, 11, 5, 6, 50)), 40),
        (("01:50", None), ("02:10", datetime(2023, 11, 5, 7, 10)), 20),
    ],
    ids=["both exact", "pickup exact", "drop-off exact", "both in the second hour", "pickup that may be either"],
)
def test_where_the_clock_shows_an_hour_twice_exact_moments_give_the_true_duration(
    store: Store, pickup: tuple[str, datetime | None], dropoff: tuple[str, datetime | None], minutes: float
) -> None:
    day = "2023-11-05T"
    store.write_predictions([make_row(1, pickup=day + pickup[0], pickup_utc=pickup[1])])
    store.write_outcomes([{"prediction_id": "p000001", "dropoff": day + dropoff[0], "dropoff_utc": dropoff[1]}])

    assert list(store.with_outcomes("green")["duration"]) == [minutes]


def test_two_services_name_trips_alike_and_each_has_its_own_outcome(store: Store) -> None:
    store.write_predictions([make_row(1, trip_id="1001"), make_row(2, trip_id="1001", service="yellow")])

    store.write_outcomes([{"service": "yellow", "trip_id": "1001", "duration": 33.0}])

    assert store.with_outcomes("green")["duration"].isna().all()
    store.write_outcomes([{"service": "green", "trip_id": "1001", "duration": 7.0}])
    assert [list(store.with_outcomes(one)["duration"]) for one in ("green", "yellow")] == [[7.0], [33.0]]


OLD_PREDICTIONS = """CREATE TABLE predictions (prediction_id TEXT PRIMARY KEY, made_at TIMESTAMP NOT NULL, service TEXT NOT NULL,
 trip_id TEXT, pickup TIMESTAMP NOT NULL, "PULocationID" INTEGER NOT NULL, "DOLocationID" INTEGER NOT NULL,
 passenger_count DOUBLE PRECISION, trip_type DOUBLE PRECISION, vendor DOUBLE PRECISION, planned_distance_miles DOUBLE PRECISION,
 arm TEXT NOT NULL, shadow BOOLEAN NOT NULL, fallback BOOLEAN NOT NULL, version INTEGER NOT NULL, mean DOUBLE PRECISION NOT NULL,
 median DOUBLE PRECISION NOT NULL, p10 DOUBLE PRECISION NOT NULL, p90 DOUBLE PRECISION NOT NULL, latency_ms DOUBLE PRECISION)"""
OLD_OUTCOMES = """CREATE TABLE outcomes (key TEXT PRIMARY KEY, trip_id TEXT, prediction_id TEXT, duration DOUBLE PRECISION,
 dropoff TIMESTAMP, source TEXT NOT NULL, received_at TIMESTAMP NOT NULL)"""


@pytest.fixture
def old(address: str) -> str:
    """A store as the edition before had it: trips ``a`` of green, ``b`` of both services, ``c`` that nobody predicted."""
    Path(address.removeprefix("sqlite:///")).parent.mkdir(exist_ok=True) if address.startswith("sqlite") else None
    made = "'2024-05-01 12:00:00.000000'"
    predicted = [("p1", "green", "a"), ("p2", "green", "b"), ("p3", "yellow", "b"), ("p4", "green", None)]
    said = [
        ("trip:a", "a", None, 11),
        ("trip:b", "b", None, 12),
        ("trip:c", "c", None, 13),
        ("prediction:p4", None, "p4", 14),
    ]
    with create_engine(address).begin() as connection:
        connection.execute(text(OLD_PREDICTIONS))
        connection.execute(text(OLD_OUTCOMES))
        for one, service, trip in predicted:
            values = f"(:one, {made}, :service, :trip, {made}, 74, 75, 1, 1, 2, NULL, 'champion', false, false, 3, 10, 9, 5, 20, 1)"
            connection.execute(
                text(f"INSERT INTO predictions VALUES {values}"), {"one": one, "service": service, "trip": trip}
            )
        for key, trip, one, minutes in said:
            values = f"(:key, :trip, :one, :minutes, NULL, 'http', {made})"
            connection.execute(
                text(f"INSERT INTO outcomes VALUES {values}"),
                {"key": key, "trip": trip, "one": one, "minutes": minutes},
            )
    return address


def durations(store: Store, service: str) -> dict[str, float]:
    found: dict[str, float] = store.with_outcomes(service).set_index("prediction_id")["duration"].dropna().to_dict()
    return found


def test_outcomes_kept_before_services_were_told_apart_go_to_the_one_that_predicted_the_trip(old: str) -> None:
    with ThreadPoolExecutor(8) as pool:  # the first start of an edition is that of several processes
        assert list(pool.map(lambda _: durations(open_store(old), "green"), range(8))) == [{"p1": 11, "p4": 14}] * 8

    store = open_store(old)
    assert durations(store, "yellow") == {}, "whose the outcome of a trip that both predicted is, nobody knows"
    assert store.count() == {"predictions": 4, "outcomes": 4}
    store.write_predictions([make_row(5, trip_id="a", service="yellow")])
    assert durations(open_store(old), "green") == {"p1": 11, "p4": 14}
    store.write_outcomes([{"service": "yellow", "trip_id": "b", "duration": 5.0}])
    assert durations(store, "yellow") == {"p3": 5}


def test_rows_that_wait_on_disk_since_before_services_were_told_apart_are_taken(store: Store, tmp_path: Path) -> None:
    store.write_predictions(
        [make_row(1, trip_id="a"), make_row(2, trip_id="b"), make_row(3, trip_id="b", service="yellow")]
    )
    with CarriedLog(store, tmp_path / "spool") as log:
        for trip in "abc":
            log.put_outcome({"trip_id": trip, "duration": 9.0, "received_at": MADE})
    store.write_predictions([make_row(4, trip_id="c")])

    assert durations(open_store(store._engine.url.render_as_string(hide_password=False)), "green") == {
        "p000001": 9,
        "p000004": 9,
    }


def test_outcomes_in_any_order_repeated_or_not_come_to_the_same(store: Store, address: str, tmp_path: Path) -> None:
    said = [
        {"service": "green", "trip_id": trip, "duration": 10.0 + late, "received_at": MADE + timedelta(days=late)}
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
    store.write_predictions([make_row(4, service="yellow")])

    assert list(store.of_trips("green", "green-2023-04-")["prediction_id"]) == ["p000001"]
    assert list(store.of_trips("green", "green_")["prediction_id"]) == ["p000003"]


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
