"""Zones: geometry worked by hand, and the publisher's quirks."""

import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from taxi.data.zones import read_zone_shapes, read_zones, ring_centroid
from taxi.errors import BadFile


def test_the_centroid_of_a_rectangle() -> None:
    ring = np.array([[0, 0], [4, 0], [4, 2], [0, 2], [0, 0]], dtype=float)

    assert ring_centroid(ring) == (8.0, 2.0, 1.0)


def test_every_zone_has_a_place_but_unknown_and_outside(zones: pd.DataFrame) -> None:
    assert list(zones.index) == list(range(1, 266))
    assert zones.loc[1:263, ["x", "y", "area"]].notna().all().all()
    assert zones.loc[264:265, ["x", "y", "area"]].isna().all().all()


def test_na_in_the_lookup_is_text(zones: pd.DataFrame) -> None:
    assert zones.loc[265, "borough"] == "N/A"


def test_airports_are_known_by_their_service_zone_or_name(zones: pd.DataFrame) -> None:
    assert zones["airport"].sum() == 3


def test_an_archive_without_shapes_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "taxi_zones.zip", "w") as archive:
        archive.writestr("readme.txt", "no shapes")

    with pytest.raises(BadFile, match=r"expected \.shp, \.shx and \.dbf"):
        read_zone_shapes(tmp_path)


@pytest.mark.real
def test_the_real_zones_have_their_real_sizes(real_source: Path) -> None:
    zones = read_zones(real_source / "misc")

    assert zones.loc[132, "zone"] == "JFK Airport"
    assert zones.loc[1:263, "area"].sum() == pytest.approx(302, rel=0.05)  # square miles of land, with Newark airport
    assert zones.loc[[57, 104, 105], "area"].notna().all()
    apart = np.hypot(*(zones.loc[132, ["x", "y"]] - zones.loc[138, ["x", "y"]]).astype(float))
    assert apart == pytest.approx(10.4, rel=0.1)  # JFK to LaGuardia
