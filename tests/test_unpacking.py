"""What unpacks to gigabytes, or ends the process that parses it, is refused by a look at what it says of itself."""

import json
import resource
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from taxi.config import MonthPaths
from taxi.data.acceptance import clean_month
from taxi.data.zones import parse_shapes, read_lookup
from taxi.errors import BadFile, MonthRefused, TaxiError
from taxi.models.fitting import fit_model
from taxi.models.model import load_model, save_model
from taxi.params import load_params
from taxi.unpacking import content_fault, ubjson_fault
from tests.support.builders import build_published
from tests.support.campaign import at_scale
from tests.support.registered import make_month, make_zones
from tests.support.worlds import ROOT

MANY = 1_000_000
BASE = pa.Table.from_pandas(build_published(n=1000), preserve_index=False)


def repeated(text: str, rows: int) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, dtype=np.int32)), pa.array([text]))


def replaced(name: str, column: pa.Array) -> pa.Table:
    return BASE.set_column(BASE.column_names.index(name), name, column)


def void() -> pa.Table:
    """Every row is quarantined, and so is read whole."""
    return replaced("total_amount", pa.array(np.full(len(BASE), -1.0)))


def lists(rows: int) -> pa.ListArray:
    """A list of a million numbers in every row."""
    ends = pa.array(np.arange(rows + 1) * MANY, pa.int32())
    return pa.ListArray.from_arrays(ends, pa.array(np.zeros(rows * MANY, dtype=np.int8)))


BOMBS: dict[str, tuple[Callable[[], pa.Table], str]] = {
    "rows": (lambda: BASE.slice(0, 1).take(pa.array(np.zeros(MANY, dtype=np.int64))), "too-large: .* it has 1,000,000 rows in"),
    "values in a list": (lambda: BASE.slice(0, 40).append_column("more", lists(40)), "too-large: .* at most 25,000,000"),
    "a long text, once a row": (lambda: void().append_column("more", repeated("x" * 1_000_000, len(BASE))), "too-large: .* texts of 1000 bytes"),
    "a long text for a zone": (lambda: replaced("PULocationID", repeated("x" * 1_000_000, len(BASE))), "wrong-type: .* it is string"),
    "text without end": (lambda: BASE.append_column("more", pa.array(["x" * 40_000] * len(BASE))), "too-large: .* it unpacks from"),
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_a_month_that_unpacks_to_gigabytes_is_refused_in_little_memory(name: str, tmp_path: Path) -> None:
    make, said = BOMBS[name]
    paths = MonthPaths(tmp_path / "data", tmp_path / "reports", "green", "2023-03")
    paths.raw.parent.mkdir(parents=True)
    plain = name == "text without end"
    parquet.write_table(make(), paths.raw, compression="zstd", store_schema=False, use_dictionary=not plain)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    with pytest.raises(MonthRefused, match=said):
        clean_month(paths, load_params())

    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024
    assert json.loads(paths.acceptance.read_text())["status"] == "refused"
    assert not paths.trips.exists()


def test_zone_files_that_unpack_to_gigabytes_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "taxi_zones.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("taxi_zones.shp", bytes(40 * 1024**2))
    (tmp_path / "lookup.csv").write_bytes(b"x" * (33 * 1024**2))

    with pytest.raises(BadFile, match="it unpacks to 41,943,040 bytes"):
        parse_shapes(tmp_path / "taxi_zones.zip")
    with pytest.raises(BadFile, match="expected at most 33,554,432 bytes"):
        read_lookup(tmp_path / "lookup.csv")


@pytest.mark.parametrize(
    "content",
    [
        b"LocationID,Borough,Zone,service_zone\n1,a,b,c\n1,a,b,c\n",
        b"LocationID,Borough,Zone,service_zone\nx,a,b,c\n",
        b"LocationID,Borough,Zone,service_zone\n999999999,a,b,c\n",
        b"\xff\xfe\x00",
        b"",
        b'LocationID,Borough,Zone,service_zone\n1,"a',
    ],
    ids=["twice", "text", "too many", "no text", "empty", "no end"],
)
def test_a_lookup_that_is_no_table_of_zones_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "lookup.csv").write_bytes(content)

    with pytest.raises(BadFile, match=r"lookup\.csv"):
        read_lookup(tmp_path / "lookup.csv")


def number(count: int) -> bytes:
    return b"L" + struct.pack(">q", count)


def key(name: str) -> bytes:
    return number(len(name)) + name.encode()


HOSTILE = {
    "nested lists": b"{" + key("a") + b"[" * 300_000,
    "nested objects": b"{" + (key("a") + b"{") * 300_000,
    "nested beside values": b"{" + key("a") + b"[i\x01" * 300_000,
    "numbers that are not there": b"{" + key("a") + b"[$d#" + number(2**30) + bytes(100),
    "nothing, very often": b"{" + key("a") + b"[$Z#" + number(2**60) + bytes(100),
    "fewer than none": b"{" + key("a") + b"[$d#" + number(-5) + bytes(100),
    "a text that is not there": b"{" + key("a") + b"S" + number(2**40) + bytes(100),
    "no end": b"{" + key("a") + b"[",
    "JSON": b'{"learner": {}}',
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_booster_that_would_end_the_process_is_not_parsed(name: str) -> None:
    assert "is not a whole .ubj file" in str(ubjson_fault(HOSTILE[name]))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, params = tmp_path_factory.mktemp("saved") / "model", load_params()
    quick = params.model.model_copy(
        update={
            "rounds": 3,
            "head_rounds": 2,
            "interval_rounds": 3,
            "max_depth": 3,
            "planned_rounds": 2,
            "planned_head_rounds": 2,
        }
    )
    save_model(fit_model(make_month("2023-01"), make_zones(), quick, params.features), folder)
    return folder


def hostile_files(folder: Path) -> dict[str, Callable[[], object]]:
    zones = parquet.read_table(folder / "zones.parquet")
    many = zones.slice(0, 1).take(pa.array(np.zeros(MANY, dtype=np.int64)))
    index = zones.column_names.index("zone")
    long = zones.set_column(index, "zone", repeated("x" * 2_000_000, len(zones)))
    return {
        "zones.parquet: rows": lambda: parquet.write_table(many, folder / "zones.parquet"),
        "zones.parquet: texts": lambda: parquet.write_table(long, folder / "zones.parquet", store_schema=False),
        "zones.parquet: cut off": lambda: (folder / "zones.parquet").write_bytes(b"PAR1"),
        "recipe.json: deep": lambda: (folder / "recipe.json").write_text('{"a":' + "[" * 100_000),
        "recipe.json: large": lambda: (folder / "recipe.json").write_text("{" + " " * 2_000_000),
        "recipe.json: empty": lambda: (folder / "recipe.json").write_text("{}"),
        "trunk.ubj: deep": lambda: (folder / "trunk.ubj").write_bytes(HOSTILE["nested lists"]),
        "trunk.ubj: empty": lambda: (folder / "trunk.ubj").write_bytes(b"{}"),
        "trunk.ubj: back": lambda: renumber(folder / "trunk.ubj", b"left_children", 0),
        "trunk.ubj: away": lambda: renumber(folder / "trunk.ubj", b"right_children", 1_000_000),
        "trunk.ubj: feature": lambda: renumber(folder / "trunk.ubj", b"split_indices", 100_000_000),
        "planned/trunk.ubj": lambda: (folder / "planned/trunk.ubj").write_bytes(HOSTILE["numbers that are not there"]),
        "tables.npz: claims": lambda: claim(folder / "tables.npz"),
        "tables.npz: others": lambda: np.savez(folder / "tables.npz", a=np.zeros(3)),
    }


def renumber(path: Path, name: bytes, to: int) -> None:
    """Let the root of the first tree go on at another node, or by another feature: XGBoost's predictor would end the process."""
    content = bytearray(path.read_bytes())
    begun = content.index(name) + len(name) + len(b"[$l#L") + 8
    content[begun : begun + 4] = struct.pack(">i", to)
    path.write_bytes(content)


def claim(path: Path) -> None:
    """Write an archive whose array says that it has a terabyte, and has none."""
    header = str({"descr": "<f8", "fortran_order": False, "shape": (2**37,)}).ljust(117) + "\n"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode())


NAMES = [
    "zones.parquet: rows", "zones.parquet: texts", "zones.parquet: cut off", "recipe.json: deep", "recipe.json: large", "recipe.json: empty",
    "trunk.ubj: deep", "trunk.ubj: empty", "trunk.ubj: back", "trunk.ubj: away", "trunk.ubj: feature", "planned/trunk.ubj",
    "tables.npz: claims", "tables.npz: others",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_model_with_a_bomb_or_a_damaged_file_is_refused_by_its_folder(name: str, saved: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    subprocess.run(["cp", "-r", str(saved), str(folder)], check=True)
    hostile_files(folder)[name]()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    with pytest.raises(TaxiError, match=str(folder)):
        load_model(folder)

    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024


def test_every_file_of_a_good_model_passes(saved: Path) -> None:
    assert [content_fault(path) for path in saved.rglob("*") if path.is_file()] == [None] * len(
        [path for path in saved.rglob("*") if path.is_file()]
    )


@pytest.mark.slow
@pytest.mark.campaign
@pytest.mark.timeout(at_scale(300, 6000))
def test_no_damaged_file_ends_the_process_or_escapes_the_words() -> None:
    command = [sys.executable, "-m", "tests.support.bombs", str(at_scale(4, 2000))]

    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=at_scale(240, 5400), check=False)

    assert done.returncode == 0, done.stderr[-2000:]
    for kind, found in json.loads(done.stdout.splitlines()[-1]).items():
        assert set(found["outcomes"]) <= {"read", "refused"}, kind
        assert found["outcomes"]["refused"] > found["outcomes"].get("read", 0), kind
        assert found["slowest"] < 20 and found["more_mb"] < 500, kind
