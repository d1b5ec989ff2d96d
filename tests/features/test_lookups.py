"""Zones and pairs of zones seen along more axes than east and north."""

import numpy as np
import pandas as pd
import pytest

from taxi.features.history import ZONES, zone_pair
from taxi.features.lookups import PAIR, TURNS, ZONE, pair_arrays, zone_arrays


@pytest.mark.parametrize("turn", TURNS)
def test_a_place_along_an_axis_is_its_projection(zones: pd.DataFrame, turn: int) -> None:
    table, axis = zone_arrays(zones), np.deg2rad(turn)

    along = table[:, ZONE.index(f"along_{turn}")]

    assert along[7] == pytest.approx(zones.loc[7, "x"] * np.cos(axis) + zones.loc[7, "y"] * np.sin(axis))
    assert table.shape == (ZONES, len(ZONE)) and np.isnan(along[[0, 264, 265]]).all()


def test_a_pairs_way_and_middle_follow_from_its_ends(zones: pd.DataFrame) -> None:
    places = zone_arrays(zones)
    pair = pair_arrays(places)[zone_pair(np.array(7), np.array(74))]

    for turn in TURNS:
        start, end = (places[zone, ZONE.index(f"along_{turn}")] for zone in (7, 74))
        assert pair[PAIR.index(f"way_along_{turn}")] == pytest.approx(end - start)
        assert pair[PAIR.index(f"middle_along_{turn}")] == pytest.approx((start + end) / 2)
    assert pair[PAIR.index("miles")] == pytest.approx(np.hypot(*(places[74, :2] - places[7, :2])))
