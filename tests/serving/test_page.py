"""The page's map and words, without a server; how it behaves in a browser is in test_serving."""

import re
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
import pytest

from taxi.data.zones import read_zone_shapes, read_zones
from taxi.models.calibration import HIGH
from taxi.serving.page import TEMPLATES, by_borough, draw, page_of, render, ring_path, unready_page
from taxi.serving.schemas import Caveat
from tests.support.serving_worlds import write_zones


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_zones(tmp_path_factory.mktemp("published"))


def test_every_zone_can_be_chosen_by_its_name(published: Path) -> None:
    zones = read_zones(published)
    html = render("green", zones, {}, locked=False).html

    options = re.findall(r'<option value="(\d+)">', html)
    assert sorted(map(int, options[: len(options) // 2])) == sorted(zones.index[zones["zone"].notna()])
    assert [name for name, _ in by_borough(zones)] == sorted({*zones["borough"].dropna()})


def test_a_map_has_shapes_where_they_are_known_and_circles_elsewhere(published: Path) -> None:
    zones, shapes = read_zones(published), read_zone_shapes(published)

    _, drawn = draw(zones, shapes)
    _, circles = draw(zones, {})

    assert len(drawn) == len(circles) > 200
    assert all(place["path"].startswith("M") for place in drawn)
    assert not any(place["path"] for place in circles) and all(place["r"] >= 8 for place in circles)


def test_a_square_is_drawn_from_the_north_west() -> None:
    square = np.array([[1, 1], [1, 2], [2, 2], [2, 1], [1, 1]], dtype=float)

    assert ring_path(square, west=0, north=3) == "M100 200L100 100L200 100L200 200Z"
    assert ring_path(square / 1000, west=0, north=3) == ""


def test_names_from_the_publisher_cannot_write_into_the_page(published: Path) -> None:
    zones = read_zones(published)
    zones.loc[74, ["zone", "borough"]] = ["<script>alert(1)</script>", '"><img src=x>']

    html = render("green", zones, {}, locked=False).html

    assert "<script>alert" not in html and "<img" not in html


def test_the_page_loads_nothing_and_may_run_nothing_but_its_own(published: Path) -> None:
    page = render("green", read_zones(published), {}, locked=True)

    assert not re.findall(r"""(?:src|href)=|url\(|@import|https?://""", page.html)
    assert "onclick" not in page.html and ' style="' not in page.html
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy
    assert 'id="key"' in page.html and 'id="key"' not in render("green", read_zones(published), {}, locked=False).html


def test_without_the_publishers_files_the_models_own_table_is_drawn(published: Path, tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    read_zones(published).to_parquet(tmp_path / "zones.parquet")

    drawn = page_of("green", nowhere, tmp_path, False)

    assert drawn.html.count("<circle") > 200


def test_while_no_version_can_answer_a_person_reads_why_and_what_to_do() -> None:
    page = unready_page("green", "the registry names no champion: `taxi run --service green` trains <one>")

    assert "taxi run --service green" in page.html and "&lt;one&gt;" in page.html
    assert 'http-equiv="refresh"' in page.html and "unsafe" not in page.headers["content-security-policy"]


def test_the_script_is_strict_and_writes_no_answer_of_the_service_as_markup() -> None:
    script = (TEMPLATES / "estimate.js").read_text(encoding="utf-8")

    assert script.startswith('"use strict"')
    assert ".textContent = text" in script
    assert not re.findall(r"eval\(|document\.write|outerHTML", script)


def test_the_page_has_a_sentence_for_everything_that_an_answer_is_no_knowledge_of() -> None:
    script = (TEMPLATES / "estimate.js").read_text(encoding="utf-8")

    assert [caveat for caveat in get_args(Caveat) if f'"{caveat}": ' not in script] == []
    assert "`${CUT_OFF} or more`" in script and f"CUT_OFF = {HIGH:.0f};" in script


def test_a_zone_without_a_place_is_not_on_the_map() -> None:
    zones = pd.DataFrame(
        {"zone": ["A", "B"], "borough": ["X", "X"], "x": [1.0, np.nan], "y": [1.0, np.nan], "area": [0.5, np.nan]},
        index=[5, 6],
    )

    assert [place["id"] for place in draw(zones, {})[1]] == [5]
