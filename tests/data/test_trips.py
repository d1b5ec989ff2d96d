import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taxi.data.schema import AT_PICKUP
from taxi.data.trips import refuse_at_pickup, split_trips
from taxi.params import CleanParams
from tests.support.builders import build_rows

MONTH = "2023-03"
CLEAN = CleanParams(min_minutes=1, max_minutes=60)
REASONS = {
    "out-of-month", "not-positive", "too-short", "too-long", "void", "duplicate", "unknown-zone", "collapsed-clock",
    "missing-time",
}  # fmt: skip


def with_first(rows: pd.DataFrame, **values) -> pd.DataFrame:
    """Return the rows with some columns of the first replaced."""
    return pd.concat([rows.head(1).assign(**values), rows.iloc[1:]]).astype(rows.dtypes)


def lasting(minutes: float) -> pd.DataFrame:
    rows = build_rows()
    return with_first(rows, dropoff=rows["pickup"] + pd.Timedelta(minutes=minutes))


def reasons_of(rows: pd.DataFrame) -> pd.Series:
    """Return the reason of each row, "" where it is kept."""
    numbered = rows.assign(row=np.arange(len(rows)))
    return numbered["row"].map(split_trips(numbered, MONTH, CLEAN)[1]).fillna("")


def reason_of_first(rows: pd.DataFrame) -> str:
    return reasons_of(rows).iloc[0]


@pytest.mark.parametrize(
    ("minutes", "reason"),
    [(-5, "not-positive"), (0, "not-positive"), (0.99, "too-short"), (1, ""), (60, ""), (61, "too-long")],
)
def test_a_trip_of_some_minutes_is_kept_or_named(minutes, reason):
    assert reason_of_first(lasting(minutes)) == reason


@pytest.mark.parametrize("zone", [0, -3, 266, 74.5, np.nan])
def test_a_zone_that_does_not_exist_is_unknown(zone):
    assert reason_of_first(with_first(build_rows(), DOLocationID=zone)) == "unknown-zone"


@pytest.mark.parametrize("zone", [264, 265])
def test_zones_264_and_265_are_kept_as_they_are(zone):
    assert reason_of_first(with_first(build_rows(), PULocationID=zone)) == ""


@pytest.mark.parametrize("moment", ["2008-12-31 23:00", "2023-02-28 23:59:59", "2023-04-01", "2041-08-15"])
def test_a_pickup_outside_the_month_is_out_of_month(moment):
    pickup = pd.Timestamp(moment)
    rows = with_first(build_rows(), pickup=pickup, dropoff=pickup + pd.Timedelta(minutes=9))

    assert reason_of_first(rows) == "out-of-month"


@pytest.mark.parametrize("end", ["pickup", "dropoff"])
def test_a_trip_without_a_time_is_missing_time(end):
    assert reason_of_first(with_first(build_rows(), **{end: pd.NaT})) == "missing-time"


def test_a_void_is_quarantined_and_its_original_kept():
    rows = build_rows()
    both = pd.concat([rows.head(1).assign(total_amount=-12.0), rows], ignore_index=True)

    assert reasons_of(both).head(2).tolist() == ["void", ""]


def test_a_void_without_an_original_is_a_void_too():
    assert reason_of_first(with_first(build_rows(), total_amount=-0.01)) == "void"


def test_of_the_same_trip_twice_the_first_is_kept_whatever_it_cost():
    rows = build_rows()
    both = pd.concat([rows, rows.head(1).assign(total_amount=99.0)], ignore_index=True)

    reasons = reasons_of(both)

    assert (reasons.iloc[0], reasons.iloc[-1]) == ("", "duplicate")


def test_a_distance_that_is_zero_absurd_or_missing_is_kept_and_flagged():
    rows = build_rows(trip_distance=np.resize([0.0, 360_068.0, np.nan, -1.0, 2.0], 400))

    kept, _ = split_trips(rows, MONTH, CLEAN)

    assert kept["distance_suspect"].head(5).tolist() == [True, True, True, True, False]


def test_the_null_block_is_kept_and_flagged():
    kept, reasons = split_trips(build_rows(passenger_count=np.nan, RatecodeID=np.nan), MONTH, CLEAN)

    assert len(reasons) == 0
    assert kept["null_block"].all()


def test_the_first_rule_that_refuses_a_row_names_it():
    rows = with_first(build_rows(), PULocationID=0, total_amount=-5.0, pickup=pd.Timestamp("2008-01-01"))

    assert reason_of_first(rows) == "out-of-month"


@pytest.mark.parametrize("poison", [pd.NaT, pd.Timestamp("1970-01-01"), pd.Timestamp("2041-01-01")])
def test_trips_to_predict_are_the_same_whatever_the_drop_off_says(poison):
    rows = with_first(build_rows(), PULocationID=0)

    poisoned = refuse_at_pickup(rows.assign(dropoff=poison, trip_distance=np.nan, total_amount=-1.0), MONTH)

    assert poisoned.tolist() == refuse_at_pickup(rows, MONTH).tolist() == ["unknown-zone", *[""] * 399]


def test_trips_to_predict_need_no_more_than_is_known_at_pickup():
    rows = build_rows()

    assert (refuse_at_pickup(rows[AT_PICKUP], MONTH) == "").all()


MOMENTS = ["2008-01-01", "2023-03-12 01:50", "2023-03-12 03:05", "2023-04-01"]
ROWS = st.fixed_dictionaries(
    {
        "pickup": st.sampled_from([pd.NaT, *map(pd.Timestamp, MOMENTS)]),
        "dropoff": st.sampled_from([pd.NaT, *map(pd.Timestamp, MOMENTS)]),
        "PULocationID": st.sampled_from([np.nan, -1.0, 0.0, 1.5, 74.0, 265.0, 266.0]),
        "total_amount": st.sampled_from([np.nan, -5.0, 0.0, 9.0]),
        "VendorID": st.sampled_from([np.nan, 1.0, 2.0, 6.0]),
    }
)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(st.lists(ROWS, max_size=12))
def test_every_row_is_either_kept_or_quarantined_with_a_known_reason(drawn):
    odd = pd.DataFrame(drawn, columns=["pickup", "dropoff", "PULocationID", "total_amount", "VendorID"])
    rows = build_rows(len(drawn)) if drawn else build_rows(1).head(0)
    rows = rows.assign(**{name: odd[name].astype(rows[name].dtype) for name in odd})

    kept, reasons = split_trips(rows, MONTH, CLEAN)

    assert sorted([*kept["row"], *reasons.index]) == rows["row"].tolist()
    assert set(reasons) <= REASONS
    assert kept["duration"].between(1, 60).all()


def test_the_order_of_rows_does_not_change_which_are_refused():
    rows = build_rows(2000, total_amount=np.resize([9.0, -1.0, 9.0], 2000))

    shuffled = reasons_of(rows.sample(frac=1, random_state=3))

    pd.testing.assert_series_equal(shuffled.sort_index(), reasons_of(rows))
