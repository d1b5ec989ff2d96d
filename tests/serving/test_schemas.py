"""Bodies are taken strictly, times are New York's, and no complaint repeats what was sent."""

import json
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as some

from taxi.serving.schemas import (
    MOST_COMPLAINTS,
    Outcome,
    Trip,
    Trips,
    Unacceptable,
    parse_outcomes,
    parse_trips,
    wall_clock,
)
from tests.support.hostile import BODIES, GOOD, MARK, OUTCOMES

ANYTHING = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats() | some.text(),
    lambda inner: (
        some.lists(inner, max_size=4) | some.dictionaries(some.sampled_from([*GOOD, "trips", "x"]), inner, max_size=4)
    ),
)


def test_there_are_more_than_a_hundred_hostile_bodies_and_each_is_another() -> None:
    assert len(set(BODIES)) == len(BODIES) > 100


@pytest.mark.parametrize("body", BODIES, ids=range(len(BODIES)))
def test_a_hostile_body_is_refused_without_being_repeated(body: bytes) -> None:
    with pytest.raises(Unacceptable) as refusal:
        parse_trips(body)

    assert MARK not in f"{refusal.value} {refusal.value.fields}"
    assert len(refusal.value.fields) <= MOST_COMPLAINTS


@pytest.mark.parametrize("body", OUTCOMES, ids=range(len(OUTCOMES)))
def test_a_hostile_outcome_is_refused_without_being_repeated(body: bytes) -> None:
    with pytest.raises(Unacceptable) as refusal:
        parse_outcomes(body)

    assert MARK not in f"{refusal.value} {refusal.value.fields}"


@pytest.mark.parametrize(
    "body",
    [
        b'{"PULocationID": 74, "PULocationID": 75, "DOLocationID": 138}',
        b'{"PULocationID": 74, "DOLocationID": 138, "DOLocationID": 138}',
        b'{"PULocationID": 74, "DOLocationID": 138, "\\u0044OLocationID": 1}',
        b'{"trips": [{"PULocationID": 74, "DOLocationID": 138}], "trips": []}',
        b'{"trips": [{"PULocationID": 74, "DOLocationID": 138, "trip_id": "a", "trip_id": "b"}]}',
    ],
    ids=["of two values", "of one value", "spelt otherwise", "the list", "in a list"],
)
def test_a_field_that_is_given_twice_is_refused_wherever_it_stands(body: bytes) -> None:
    for parse in (parse_trips, parse_outcomes):
        with pytest.raises(Unacceptable, match="each field of an object once") as refusal:
            parse(body)
        assert (refusal.value.status, refusal.value.code) == (400, "repeated-field")


def taken_or_refused(body: bytes) -> bool:
    try:
        return isinstance(parse_trips(body), Trip | Trips)
    except Unacceptable:
        return True


@pytest.mark.slow
@given(ANYTHING)
def test_whatever_is_sent_is_a_trip_or_refused(value: object) -> None:
    assert taken_or_refused(json.dumps(value).encode("utf-8", "surrogatepass"))


@given(some.binary(max_size=200))
def test_whatever_bytes_are_sent_are_refused_or_a_trip(body: bytes) -> None:
    assert taken_or_refused(body)


def test_a_whole_trip_is_taken_as_it_is() -> None:
    whole = GOOD | {
        "passenger_count": 2,
        "trip_type": 1,
        "vendor": 2,
        "planned_distance_miles": 3,
        "trip_id": "green/2024-02:7",
    }

    taken = parse_trips(json.dumps(whole).encode())

    assert taken.model_dump() == whole
    assert taken.pickup == datetime(2024, 2, 6, 8, 15)


def test_many_trips_come_in_their_order() -> None:
    taken = parse_trips(json.dumps({"trips": [GOOD | {"PULocationID": zone} for zone in range(1, 266)]}).encode())

    assert isinstance(taken, Trips)
    assert [trip.PULocationID for trip in taken.trips] == list(range(1, 266))


def test_a_time_with_an_offset_is_put_on_new_yorks_clock() -> None:
    assert wall_clock("2023-07-01T12:00:00Z") == datetime(2023, 7, 1, 8)
    assert wall_clock("2023-01-01T12:00:00+02:00") == datetime(2023, 1, 1, 5)
    assert wall_clock("2024-02-29 23:59") == datetime(2024, 2, 29, 23, 59)
    assert wall_clock("2023-03-12T02:30:00.250000") == datetime(2023, 3, 12, 2, 30, 0, 250000)  # as recorders write it


@given(some.datetimes(datetime(2009, 1, 1), datetime(2099, 12, 31)))
def test_every_time_of_the_century_is_itself(moment: datetime) -> None:
    assert wall_clock(moment.isoformat()) == moment


def test_an_outcome_is_about_a_trip_or_a_prediction() -> None:
    taken = parse_outcomes(
        b'{"outcomes": [{"trip_id": "a", "duration_minutes": 7.5}, {"prediction_id": "b", "dropoff_datetime": "2024-02-06T08:31:00"}]}'
    )

    assert taken == [
        Outcome(trip_id="a", duration_minutes=7.5),
        Outcome(prediction_id="b", dropoff_datetime="2024-02-06T08:31:00"),
    ]
