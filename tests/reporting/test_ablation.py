"""The ablation names the groups that carry the duration, and what leaves nothing out changes nothing."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from taxi.data.schema import AT_PICKUP
from taxi.features.trip_features import GROUPS, NAMES, TripFeatures
from taxi.params import load_params
from taxi.reporting.feature_tables import ablate, ablation_answer, ablation_table, signed_percent, without

pytestmark = pytest.mark.slow

Trips = Callable[..., pd.DataFrame]


@pytest.fixture(scope="module")
def past(sample_trips: Trips) -> pd.DataFrame:
    return sample_trips("2024-01", 6_000)


@pytest.fixture(scope="module")
def found(past: pd.DataFrame, sample_trips: Trips, zones: pd.DataFrame) -> pd.DataFrame:
    features = TripFeatures(zones).fit(past[AT_PICKUP], past["duration"])
    return ablate(features, past, sample_trips("2024-02", 3_000), load_params().model, rows=4_000)


def test_every_group_is_left_out_once_and_no_other_feature(found: pd.DataFrame) -> None:
    kept = {group: [NAMES[number] for number in without(GROUPS, group)] for group in GROUPS}

    assert list(found.index) == ["nothing", *GROUPS]
    assert all(set(kept[group]) == set(NAMES) - set(names) for group, names in GROUPS.items())
    assert found["features"].sum() == len(NAMES)


def test_the_change_is_measured_against_everything(found: pd.DataFrame) -> None:
    assert found["change"]["nothing"] == 0
    assert np.allclose(found["rmse"], found["rmse"]["nothing"] * (1 + found["change"]))


def test_a_group_that_alone_carries_the_duration_is_missed_most(past: pd.DataFrame, zones: pd.DataFrame) -> None:
    """Given durations that only the hour of the day decides, when groups are left out, then the calendar is missed."""
    hours = past.assign(duration=5.0 + past["pickup"].dt.hour)
    later = hours.assign(pickup=hours["pickup"] + pd.Timedelta(days=28))
    features = TripFeatures(zones, smoothing=1e9).fit(hours[AT_PICKUP], hours["duration"])

    found = ablate(features, hours, later, load_params().model)

    assert found["change"].idxmax() == "calendar"
    assert found["change"]["calendar"] > 1
    assert "Without the group *calendar* the RMSE changes by +" in ablation_answer(found)


def test_the_same_trips_give_the_same_table(
    found: pd.DataFrame, past: pd.DataFrame, sample_trips: Trips, zones: pd.DataFrame
) -> None:
    features = TripFeatures(zones).fit(past[AT_PICKUP], past["duration"])

    again = ablate(features, past, sample_trips("2024-02", 3_000), load_params().model, rows=4_000)

    pd.testing.assert_frame_equal(again, found, check_exact=True)


def test_a_reader_sees_rounded_numbers(found: pd.DataFrame) -> None:
    table = ablation_table(found)

    assert table.loc["nothing", "RMSE change"] == "0.0%"
    assert (signed_percent(0.0123), signed_percent(-0.0001)) == ("+1.2%", "0.0%")
