"""Months come to disk whole and with their origin, whatever is published, and whoever else fetches at the same time."""

import hashlib
import io
import json
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from moto.server import ThreadedMotoServer

from taxi.config import MonthPaths
from taxi.data.download import Patience, Unreachable
from taxi.data.fetch import ZONE_FILES, fetch_month, fetch_zones, unchanged
from taxi.data.source import is_published, month_name, open_source
from taxi.data.synthetic import make_month, write_sample
from taxi.errors import BadFile, NotPublished, TaxiError, UsageError
from taxi.files import read_json
from tests.support import faults
from tests.support.faults import serve

QUICK = Patience(connect=2, read=1, attempts=2, first_wait=0.01, longest_wait=0.05)
NAME = month_name("green", "2024-01")


def month_bytes(seed: int = 7) -> bytes:
    import pyarrow.parquet as parquet

    stream = io.BytesIO()
    parquet.write_table(make_month("green", "2024-01", 300, seed), stream)
    return stream.getvalue()


FIRST, SECOND = month_bytes(1), month_bytes(2)


@pytest.fixture
def paths(tmp_path: Path) -> MonthPaths:
    return MonthPaths(tmp_path / "data", tmp_path / "reports", "green", "2024-01")


def fetch(address: str, paths: MonthPaths, **more: object) -> str:
    return fetch_month(open_source(address, QUICK), "green", "2024-01", paths, **more).outcome  # type: ignore[arg-type]


def test_the_sidecar_says_where_the_bytes_came_from(paths: MonthPaths) -> None:
    with serve({f"/{NAME}": FIRST}) as site:
        assert fetch(site.base, paths) == "new"
        origin = read_json(paths.sidecar)

    assert paths.raw.read_bytes() == FIRST
    assert origin["address"] == f"{site.base}/{NAME}"
    assert origin["etag"] == faults.etag(FIRST)
    assert origin["size"] == len(FIRST)
    assert origin["sha256"] == hashlib.sha256(FIRST).hexdigest()
    assert origin["synthetic"]["seed"] == 1
    assert origin["previous"] == []


def test_an_unchanged_month_is_not_fetched_again(paths: MonthPaths) -> None:
    with serve({f"/{NAME}": FIRST}) as site:
        outcomes = [fetch(site.base, paths), fetch(site.base, paths)]

    assert outcomes == ["new", "same"]
    assert len(site.gets()) == 1


def test_a_republished_month_replaces_the_old_one_which_is_handed_over_first(paths: MonthPaths) -> None:
    handed: list[bytes] = []

    with serve({f"/{NAME}": FIRST}) as site:
        fetch(site.base, paths)
        site.files[f"/{NAME}"] = SECOND
        assert not unchanged(site.base, "green", "2024-01", paths)
        outcome = fetch(site.base, paths, before_replace=lambda old: handed.append(old.read_bytes()))

    assert outcome == "republished"
    assert handed == [FIRST]
    assert paths.raw.read_bytes() == SECOND
    assert [one["sha256"] for one in read_json(paths.sidecar)["previous"]] == [hashlib.sha256(FIRST).hexdigest()]


def test_the_same_bytes_under_a_new_etag_are_the_same_edition(paths: MonthPaths, tmp_path: Path) -> None:
    folder = tmp_path / "mirror"
    (folder / "trip-data").mkdir(parents=True)
    (folder / NAME).write_bytes(FIRST)

    with serve({f"/{NAME}": FIRST}) as site:
        fetch(site.base, paths)
    assert fetch(str(folder), paths) == "same"
    assert read_json(paths.sidecar)["address"] == f"{folder}/{NAME}"


def test_bytes_damaged_on_disk_are_fetched_again(paths: MonthPaths) -> None:
    with serve({f"/{NAME}": FIRST}) as site:
        fetch(site.base, paths)
        paths.raw.write_bytes(FIRST[:-1] + b"?")
        fetch(site.base, paths)

    assert paths.raw.read_bytes() == FIRST


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (b"<!doctype html><html>Access denied</html>", "not-parquet"),
        (b"\x80\x04\x95pickle", "not-parquet"),
        (FIRST[:-100], "truncated"),
        (FIRST[:200], "truncated"),
        (b"", "not-parquet"),
    ],
    ids=["HTML with status 200", "pickle", "end missing", "head only", "empty"],
)
def test_what_is_no_month_is_kept_apart_and_the_good_edition_stays(
    content: bytes, rule: str, paths: MonthPaths
) -> None:
    with serve({f"/{NAME}": FIRST}) as site:
        fetch(site.base, paths)
        site.files[f"/{NAME}"] = content
        with pytest.raises(BadFile, match="What came is kept as") as refused:
            fetch(site.base, paths)

    assert refused.value.rule == rule
    assert paths.raw.read_bytes() == FIRST
    assert paths.raw.with_suffix(".rejected").read_bytes() == content


def test_a_length_that_is_too_short_is_found_by_the_footer(paths: MonthPaths) -> None:
    with serve({f"/{NAME}": FIRST}, faults.says(len(FIRST) - 50)) as site:
        with pytest.raises(BadFile, match="expected a whole Parquet file"):
            fetch(site.base, paths)


def test_a_source_that_does_not_answer_leaves_the_month_on_hand_in_use(paths: MonthPaths) -> None:
    with serve({f"/{NAME}": FIRST}) as site:
        fetch(site.base, paths)

    assert fetch(site.base, paths) == "unchecked"


def test_a_source_that_does_not_answer_is_an_error_where_nothing_is_on_hand(paths: MonthPaths) -> None:
    with serve({}) as site:
        pass

    with pytest.raises(Unreachable):
        fetch(site.base, paths)


def test_an_absent_month_is_not_published(paths: MonthPaths, tmp_path: Path) -> None:
    with serve({}) as site:
        with pytest.raises(NotPublished):
            fetch(site.base, paths)
        assert not is_published(open_source(site.base, QUICK), "green", "2024-01")
    with pytest.raises(NotPublished):
        fetch(str(tmp_path), paths)


@pytest.mark.slow
def test_two_processes_at_once_fetch_once(paths: MonthPaths) -> None:
    script = (
        "import sys; from pathlib import Path; from taxi.config import MonthPaths; "
        "from taxi.data.fetch import fetch_month; from taxi.data.source import open_source; "
        "paths = MonthPaths(Path(sys.argv[2]), Path('.'), 'green', '2024-01'); "
        "print(fetch_month(open_source(sys.argv[1]), 'green', '2024-01', paths).outcome)"
    )
    with serve({f"/{NAME}": FIRST}, faults.drips(0.00001)) as site:
        command = [sys.executable, "-c", script, site.base, str(paths.data)]
        both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
        outcomes = sorted(one.communicate(timeout=120)[0].strip() for one in both)

    assert outcomes == ["new", "same"]
    assert len(site.gets()) == 1
    assert paths.raw.read_bytes() == FIRST


def test_zone_files_are_checked(tmp_path: Path) -> None:
    write_sample(tmp_path / "source", "green", ["2024-01"], rows=50)
    fetch_zones(open_source(str(tmp_path / "source")), tmp_path / "zones")
    assert all((tmp_path / "zones" / name).is_file() for name in ZONE_FILES)

    with zipfile.ZipFile(tmp_path / "source/misc/taxi_zones.zip") as archive:
        assert archive.testzip() is None
    (tmp_path / "source/misc/taxi_zones.zip").write_bytes(b"<html>")
    with pytest.raises(BadFile, match="expected a ZIP archive"):
        fetch_zones(open_source(str(tmp_path / "source")), tmp_path / "zones")


def test_a_folder_that_cannot_be_written_is_named(paths: MonthPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("taxi.data.fetch.publish", refuse)
    with serve({f"/{NAME}": FIRST}) as site:
        with pytest.raises(TaxiError, match=r"cannot write to .*green: Permission denied; make it writable or set"):
            fetch(site.base, paths)


@pytest.mark.parametrize("address", ["ftp://host/x", "not/a/folder", "s3:", "https:", ""])
def test_an_address_that_is_no_source_is_a_usage_error(address: str) -> None:
    with pytest.raises(UsageError, match="expected a source as https"):
        open_source(address)


def test_an_address_that_is_no_source_is_named_without_its_password() -> None:
    with pytest.raises(UsageError, match="got 'ftp://host/x'") as found:
        open_source("ftp://me:canary@host/x")
    assert "canary" not in str(found.value)


def test_a_file_address_is_a_folder(tmp_path: Path) -> None:
    place = tmp_path / "with space"
    place.mkdir()

    assert open_source(place.as_uri()) == open_source(str(place))


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    system = fsspec.filesystem("s3", skip_instance_cache=True)
    system.mkdir("months")
    yield "s3://months/tlc"
    server.stop()


@pytest.mark.slow
def test_months_come_from_s3_too(bucket: str, paths: MonthPaths) -> None:
    system = fsspec.filesystem("s3", skip_instance_cache=True)
    system.pipe(f"{bucket}/{NAME}", FIRST)

    assert fetch(bucket, paths) == "new"
    assert fetch(bucket, paths) == "same"
    system.pipe(f"{bucket}/{NAME}", SECOND)
    assert fetch(bucket, paths) == "republished"
    assert paths.raw.read_bytes() == SECOND
    assert json.loads(paths.sidecar.read_text())["address"] == f"{bucket}/{NAME}"
    with pytest.raises(NotPublished):
        fetch_month(open_source(bucket), "green", "2030-01", paths)
