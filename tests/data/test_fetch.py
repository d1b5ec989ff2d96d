"""Months come to disk whole and with their origin, whatever is published, and whoever else fetches at the same time."""

import hashlib
import io
import json
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

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
    with pytest.raises(
        UsageError, match="expected a bucket 'other' of months; there is none; look at AWS_ENDPOINT_URL"
    ):
        fetch_month(open_source("s3://other/tlc"), "green", "2030-01", paths)


REFUSAL = "<Error><Code>{}</Code><Message>said</Message></Error>"
LISTED = (
    "<ListBucketResult><Contents><Key>tlc/trip-data/green_tripdata_2024-01.parquet</Key></Contents></ListBucketResult>"
)


class Store(BaseHTTPRequestHandler):
    """An S3 that answers all with a status, or cuts its answers off where ``status`` is 0; asked for a list, it says ``listed``."""

    protocol_version, status, listed = "HTTP/1.1", 0, ""

    def do_HEAD(self) -> None:
        self.send_response(self.status or 200)
        for name, value in {"Content-Length": "0" if self.status else "1000", "ETag": '"a"'}.items():
            self.send_header(name, value)
        self.send_header("Last-Modified", "Wed, 21 Oct 2020 07:28:00 GMT")
        self.end_headers()

    def do_GET(self) -> None:
        if "list-type" in self.path and self.listed:
            self.send_response(200 if "Contents" in self.listed else self.status)
            self.send_header("Content-Length", str(len(self.listed)))
            self.end_headers()
            self.wfile.write(self.listed.encode())
            return
        self.do_HEAD()
        self.wfile.write(b"x" * (0 if self.status else 300))
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, "Unable to locate credentials; look at AWS_ENDPOINT"),
        ({"AWS_PROFILE": "nobody"}, r"profile \(nobody\) could not be found; look at AWS_ENDPOINT"),
        ({"AWS_ENDPOINT_URL": "nonsense"}, "Invalid endpoint: nonsense; look at AWS_ENDPOINT_URL"),
        ({"status": "301"}, "redirected for ever; .* AWS_DEFAULT_REGION"),
        ({"status": "403"}, "may not be read with these keys"),
        (
            {"status": "403", "listed": REFUSAL.format("AccessDenied")},
            "is not there, or may not be read with these keys",
        ),
        (
            {"status": "403", "listed": REFUSAL.format("InvalidAccessKeyId")},
            r"cannot be asked for: S3 refuses the keys \(InvalidAccessKeyId\); look at AWS_ENDPOINT_URL, .*AWS_ACCESS_KEY",
        ),
        ({"status": "400", "listed": REFUSAL.format("ExpiredToken")}, r"S3 refuses the keys \(ExpiredToken\)"),
        ({"status": "403", "listed": LISTED}, r"it is there, and these keys may not read it \(s3:GetObject\)"),
        ({"status": "0"}, "reading s3://months/tlc/trip-data/.* failed: .*received 300 of 1000 bytes"),
    ],
)
def test_what_is_wrong_with_s3_is_one_line(
    environment: dict[str, str], says: str, monkeypatch: pytest.MonkeyPatch, paths: MonthPaths, tmp_path: Path
) -> None:
    environment = dict(environment)
    monkeypatch.setattr(Store, "status", int(environment.pop("status", 0)))
    monkeypatch.setattr(Store, "listed", environment.pop("listed", ""))
    with ThreadingHTTPServer(("127.0.0.1", 0), Store) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        own = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}", "AWS_EC2_METADATA_DISABLED": "true"}
        keys = dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), "testing") | {"HOME": str(tmp_path)}
        for name, value in (own | keys | environment).items():
            monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name, raising=False)
        try:
            with pytest.raises(TaxiError, match=says) as refusal:
                fetch_month(open_source("s3://months/tlc"), "green", "2024-01", paths)
        finally:
            server.shutdown()

    not_published = "is not there" in says or says.startswith("may not be read")
    assert isinstance(refusal.value, NotPublished) == not_published
    assert "\n" not in str(refusal.value) and not list(paths.raw.parent.glob(".*.download"))
