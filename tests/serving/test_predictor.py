"""Which arm answers, what is kept of it, and that a challenger which fails costs its caller nothing."""

import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
from tenacity import Retrying, stop_after_delay, wait_fixed

from taxi.predictions.arms import assign
from taxi.serving.loader import Loaded, Slots
from taxi.serving.local_store import Entry
from taxi.serving.predictor import MOST_WAITING, NoModel, Predictor, RandomIds, Row, Shadow
from taxi.serving.schemas import NEW_YORK, Outcome, Trip

TRIP = Trip(PULocationID=74, DOLocationID=138, pickup_datetime="2024-02-06T08:15:00", vendor=2, trip_id="t1")


@dataclass
class Kept:
    """A log in memory."""

    rows: list[Row] = field(default_factory=list)
    outcomes: list[Row] = field(default_factory=list)

    def put(self, row: Row) -> None:
        self.rows.append(row)

    def put_outcome(self, row: Row) -> None:
        self.outcomes.append(row)


@dataclass(frozen=True)
class Trial:
    mode: Any = "share"
    share: float = 0.5
    salt: str = "first"


class Constant(Loaded):
    """A version that answers its own number; ``broken`` ones raise."""

    def __init__(self, version: int, broken: bool = False) -> None:
        super().__init__(version, None, None, None)  # type: ignore[arg-type]
        object.__setattr__(self, "broken", broken)

    def one(self, trip: Trip, pickup: datetime) -> Any:
        return self.many([trip], [pickup])[0]

    def many(self, trips: Any, pickups: Any) -> Any:
        if self.broken:
            raise ZeroDivisionError("a model on trial")
        return [(self.version + trip.PULocationID / 1000, 2.0, 1.0, 50.0) for trip in trips]


def make(champion: Any = None, challenger: Any = None, trial: Any = None) -> tuple[Predictor, Kept, list[Any]]:
    kept, shadowed = Kept(), []
    predictor = Predictor("green", kept, lambda loaded, tasks: shadowed.append((loaded, list(tasks))))
    predictor.slots, predictor.experiment = Slots(champion, challenger), trial
    return predictor, kept, shadowed


def trips(count: int) -> list[Trip]:
    return [Trip(PULocationID=1 + one % 265, DOLocationID=7, trip_id=f"t{one}") for one in range(count)]


def test_without_a_model_nothing_is_answered_or_kept() -> None:
    predictor, kept, _ = make()

    with pytest.raises(NoModel):
        predictor.one(TRIP)
    with pytest.raises(NoModel):
        predictor.many([TRIP])
    assert kept.rows == []


def test_the_champion_answers_and_the_row_says_what_was_asked_and_answered() -> None:
    predictor, kept, shadowed = make(Constant(3), Constant(4), Trial("none", 1.0))

    said = predictor.one(TRIP)

    row = kept.rows[0]
    assert said.mean_minutes == row["mean"] == 3.074
    assert (said.arm, said.version, said.service, said.trip_id) == ("champion", 3, "green", "t1")
    assert said.prediction_id == row["prediction_id"] and len(row["prediction_id"]) == 32
    assert (row["pickup"], row["vendor"], row["passenger_count"]) == (datetime(2024, 2, 6, 8, 15), 2, None)
    assert not row["fallback"] and not row["shadow"] and row["latency_ms"] > 0 and shadowed == []


ENTRY = Entry(3, "3-x", "x", "2023-03", "2024-01", "2024-02-01T00:00:00+00:00")


@dataclass
class Known:
    """A model that has a second one for planned distances, or not."""

    planned: Any = None


@pytest.mark.parametrize(
    ("changes", "p90", "planned", "caveats"),
    [
        ({}, 50.0, True, []),
        ({}, 59.4, True, []),
        ({}, 59.5, True, ["p90-at-cut-off"]),
        ({"pickup_datetime": "2025-01-31T23:59:59"}, 50.0, True, []),
        ({"pickup_datetime": "2025-02-02T00:00:00"}, 50.0, True, ["pickup-far-from-training"]),
        ({"pickup_datetime": "2015-02-02T00:00:00"}, 50.0, True, ["pickup-far-from-training"]),
        ({"planned_distance_miles": 60.0}, 50.0, True, []),
        ({"planned_distance_miles": 120.0}, 50.0, True, ["distance-beyond-training"]),
        ({"planned_distance_miles": 2.0}, 50.0, False, ["distance-not-used"]),
    ],
)
def test_an_answer_says_until_when_its_version_has_learnt_and_where_it_is_no_knowledge(
    changes: dict[str, Any], p90: float, planned: bool, caveats: list[str]
) -> None:
    champion = Constant(3)
    object.__setattr__(champion, "entry", ENTRY)
    object.__setattr__(champion, "model", Known(True if planned else None))
    object.__setattr__(champion, "many", lambda *_: [(10.0, 9.0, 1.0, p90)])
    predictor, _, _ = make(champion)

    said = predictor.one(TRIP.model_copy(update=changes))

    assert (said.trained_to, said.caveats) == ("2024-01", caveats)


def test_a_pickup_with_an_offset_or_now_is_kept_as_an_exact_moment_too() -> None:
    predictor, kept, _ = make(Constant(3))
    for text in ("2023-11-05T01:50:00-04:00", "2023-11-05T01:50:00-05:00", "2023-11-05T01:50:00", None):
        predictor.one(Trip(PULocationID=1, DOLocationID=2, pickup_datetime=text))
    predictor.keep_outcomes([Outcome(trip_id="t", dropoff_datetime="2023-11-05T01:10:00-05:00")])

    assert {row["pickup"] for row in kept.rows[:3]} == {datetime(2023, 11, 5, 1, 50)}
    assert [row["pickup_utc"] for row in kept.rows[:3]] == [
        datetime(2023, 11, 5, 5, 50),
        datetime(2023, 11, 5, 6, 50),
        None,
    ]
    assert abs(kept.rows[3]["pickup_utc"] - datetime.now(UTC).replace(tzinfo=None)).total_seconds() < 5
    assert (kept.outcomes[0]["service"], kept.outcomes[0]["dropoff_utc"]) == ("green", datetime(2023, 11, 5, 6, 10))


def test_a_share_of_the_trips_is_the_challengers_and_stays_so() -> None:
    predictor, kept, _ = make(Constant(3), Constant(4), Trial("share", 0.3))
    asked = trips(1000)

    together, alone = predictor.many(asked), [predictor.one(trip) for trip in asked]

    for trip, batch, single in zip(asked, together, alone, strict=True):
        expected = "challenger" if assign(trip.trip_id or "", "first", 0.3) else "champion"
        assert batch.arm == single.arm == expected
        assert (
            batch.mean_minutes
            == single.mean_minutes
            == (4 if expected == "challenger" else 3) + trip.PULocationID / 1000
        )
    assert 0.25 < sum(row["arm"] == "challenger" for row in kept.rows) / len(kept.rows) < 0.35


def test_without_a_challenger_a_share_changes_nothing() -> None:
    predictor, _, _ = make(Constant(3), None, Trial("share", 1.0))

    assert {said.arm for said in predictor.many(trips(50))} == {"champion"}


def test_a_challenger_that_fails_is_stood_in_for_and_counted() -> None:
    predictor, kept, _ = make(Constant(3), Constant(4, broken=True), Trial("share", 1.0))

    said = [predictor.one(TRIP), *predictor.many(trips(5))]

    assert {(one.arm, one.version) for one in said} == {("champion", 3)}
    assert [row["fallback"] for row in kept.rows] == [True] * 6


def test_a_champion_that_fails_is_an_error_and_not_an_answer() -> None:
    predictor, kept, _ = make(Constant(3, broken=True))

    with pytest.raises(ZeroDivisionError):
        predictor.one(TRIP)
    assert kept.rows == []


def test_now_is_new_yorks() -> None:
    predictor, kept, _ = make(Constant(3))

    predictor.one(Trip(PULocationID=1, DOLocationID=2))

    assert abs(kept.rows[0]["pickup"] - datetime.now(NEW_YORK).replace(tzinfo=None)).total_seconds() < 5


def test_in_the_shadow_the_champion_answers_and_the_challenger_is_kept_beside() -> None:
    kept = Kept()
    shadow = Shadow("green", kept)
    predictor = Predictor("green", kept, shadow.add)
    predictor.slots, predictor.experiment = Slots(Constant(3), Constant(4)), Trial("shadow")

    said = predictor.many(trips(700))
    shadow.close()

    assert {one.arm for one in said} == {"champion"}
    beside = {row["prediction_id"]: row for row in kept.rows if row["shadow"]}
    assert set(beside) == {f"{one.prediction_id}-shadow" for one in said}
    assert {(row["arm"], row["version"], row["fallback"]) for row in beside.values()} == {("challenger", 4, False)}


def test_a_shadow_that_fails_or_is_behind_harms_nobody() -> None:
    kept = Kept()
    shadow = Shadow("green", kept)
    predictor = Predictor("green", kept, shadow.add)
    predictor.slots, predictor.experiment = Slots(Constant(3), Constant(4, broken=True)), Trial("shadow")

    predictor.many(trips(3))
    for attempt in Retrying(stop=stop_after_delay(10), wait=wait_fixed(0.05)):
        with attempt:
            assert not shadow._waiting
    predictor.slots = Slots(Constant(3), Constant(5))
    predictor.one(TRIP)
    shadow.add(Constant(5), [object()] * (MOST_WAITING + 1))  # type: ignore[list-item]
    shadow.close()

    assert [row["version"] for row in kept.rows if row["shadow"]] == [5]


def test_an_outcome_by_prediction_counts_for_its_shadow_too() -> None:
    predictor, kept, _ = make(Constant(3), Constant(4), Trial("shadow"))

    predictor.keep_outcomes(
        [Outcome(prediction_id="p", duration_minutes=7), Outcome(trip_id="t", dropoff_datetime="2024-02-06T08:31:00")]
    )

    assert [one["prediction_id"] for one in kept.outcomes] == ["p", "p-shadow", None]
    assert kept.outcomes[-1]["dropoff"] == datetime(2024, 2, 6, 8, 31)


def test_ids_are_never_given_twice_by_several_threads() -> None:
    ids, taken = RandomIds(), []
    threads = [threading.Thread(target=lambda: taken.extend(ids.take() for _ in range(3000))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(set(taken)) == 12_000
