"""Downloads survive every fault of a line and of a server that we could think of, and never keep a wrong byte."""

import errno
import os
import socket
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from taxi.data.download import Offline, Patience, Unreachable, ask_over_http, download, redirect_fault
from taxi.errors import NotPublished, TaxiError
from tests.support import faults
from tests.support.faults import serve

BODY = bytes(range(256)) * 400
OTHER = BODY[::-1] + b"more"
QUICK = Patience(connect=2, read=0.5, attempts=4, first_wait=0.01, longest_wait=0.05)


def fetch(site: faults.Site, part: Path, patience: Patience = QUICK) -> dict[str, Any]:
    return download(f"{site.base}/file", part, patience)


@pytest.mark.parametrize(
    ("trouble", "ranges"),
    [
        pytest.param([faults.answers(503)] * 3, [None] * 4, id="three 503s"),
        pytest.param([faults.answers(429, Retry_After="1")], [None, None], id="429"),
        pytest.param([faults.resets(60_000)], [None, "resumed"], id="reset in mid-body"),
        pytest.param([faults.stops(60_000)], [None, "resumed"], id="short body"),
        pytest.param([faults.resets(60_000), faults.stops(60_000)], [None, "resumed", "resumed"], id="twice"),
        pytest.param([faults.stops(60_000), faults.ignores_range], [None, "resumed"], id="Range ignored"),
        pytest.param([faults.stops(60_000), faults.answers(416)], [None, "resumed", None], id="Range refused"),
        pytest.param(
            [faults.stops(60_000), faults.resumes_another(OTHER)], [None, "resumed", None], id="another edition's rest"
        ),
        pytest.param([faults.says(len(BODY) + 9)], [None, "resumed"], id="a length that is too long"),
        pytest.param([faults.drips(0.02)], [None, "resumed"], id="slow drip"),
        pytest.param([faults.drips(0.9)], [None, "resumed"], id="silence"),
    ],
)
def test_the_whole_file_comes_in_spite_of(
    trouble: list[faults.Fault], ranges: list[str | None], tmp_path: Path
) -> None:
    with serve({"/file": BODY}, *trouble) as site:
        found = fetch(site, tmp_path / "part")
        asked = ["resumed" if wanted else None for wanted in site.gets()]

    assert (tmp_path / "part").read_bytes() == BODY
    assert found["size"] == len(BODY)
    assert found["etag"] == faults.etag(BODY)
    assert asked == ranges
    assert [path.name for path in tmp_path.iterdir()] == ["part"]


def test_a_resumed_download_asks_only_for_the_rest(tmp_path: Path) -> None:
    with serve({"/file": BODY}, faults.stops(60_000)) as site:
        fetch(site, tmp_path / "part")

    assert site.gets() == [None, "bytes=60000-"]


def test_a_file_replaced_between_two_starts_is_fetched_anew(tmp_path: Path) -> None:
    with serve({"/file": BODY}, *[faults.stops(60_000)] * 4) as site:
        with pytest.raises(Unreachable, match="received 60000 bytes, expected 102400"):
            fetch(site, tmp_path / "part")
        site.files["/file"] = OTHER
        fetch(site, tmp_path / "part")

    assert (tmp_path / "part").read_bytes() == OTHER


def test_a_second_start_goes_on_where_the_first_gave_up(tmp_path: Path) -> None:
    impatient = Patience(attempts=1)
    with serve({"/file": BODY}, faults.stops(60_000)) as site:
        with pytest.raises(Unreachable, match="What came is kept; run again to go on"):
            fetch(site, tmp_path / "part", impatient)
        fetch(site, tmp_path / "part", impatient)

    assert site.gets() == [None, "bytes=60000-"]
    assert (tmp_path / "part").read_bytes() == BODY


def test_a_note_that_is_damaged_begins_the_download_anew(tmp_path: Path) -> None:
    impatient = Patience(attempts=1)
    with serve({"/file": BODY}, faults.stops(60_000)) as site:
        with pytest.raises(Unreachable):
            fetch(site, tmp_path / "part", impatient)
        (tmp_path / "part.json").write_text('{"url": "htt')
        fetch(site, tmp_path / "part", impatient)

    assert site.gets() == [None, None]
    assert (tmp_path / "part").read_bytes() == BODY


@pytest.mark.parametrize("code", [403, 404])
def test_an_absent_file_is_not_published_and_not_asked_for_again(code: int, tmp_path: Path) -> None:
    with serve({"/file": BODY}, faults.answers(code)) as site:
        with pytest.raises(NotPublished, match=f"the server answered {code}"):
            fetch(site, tmp_path / "part")

    assert len(site.asked) == 1


def test_patience_ends_with_the_number_of_attempts(tmp_path: Path) -> None:
    with serve({"/file": BODY}, *[faults.answers(503)] * 9) as site:
        with pytest.raises(Unreachable, match="answered 503"):
            fetch(site, tmp_path / "part")

    assert len(site.asked) == QUICK.attempts


def test_the_wait_that_the_server_asks_for_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr("tenacity.nap.time.sleep", waits.append)

    with serve({"/file": BODY}, faults.answers(429, Retry_After="7"), faults.answers(503)) as site:
        fetch(site, tmp_path / "part", Patience(first_wait=0.01))

    assert waits[0] == 7
    assert waits[1] < 0.1


def test_an_unexpected_status_is_said_at_once(tmp_path: Path) -> None:
    with serve({"/file": BODY}, faults.answers(401)) as site:
        with pytest.raises(TaxiError, match=r"expected 200 or 206 from .*; it answered 401"):
            fetch(site, tmp_path / "part")


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with serve({"/file": BODY}) as site:
        monkeypatch.setattr("taxi.data.download.os.fsync", full)
        with pytest.raises(TaxiError, match="no space left"):
            fetch(site, tmp_path / "part")

    assert not (tmp_path / "part").exists()


def test_nobody_listening_is_told_once_within_seconds_and_names_what_to_do(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with serve({}) as site:
        pass
    begun = time.monotonic()

    for ask in (
        lambda: download(f"{site.base}/file", tmp_path / "part", Patience()),
        lambda: ask_over_http(site.base, Patience()),
    ):
        with pytest.raises(
            Offline, match=r"Connection refused; look at the network, or name another source by --source"
        ):
            ask()

    assert time.monotonic() - begun < 12
    assert caplog.messages == []


def test_a_host_that_no_network_knows_is_no_hiccup(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def unknown(host: str, *_: object, **__: object) -> None:
        asked.append(host)
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(Offline, match="name resolution"):
        ask_over_http("https://no-such-host.example/file", Patience())

    assert asked == ["no-such-host.example"]


def test_a_line_that_breaks_under_way_is_waited_for_though_nobody_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle, gone = httpx.HTTPTransport.handle_request, iter([False, *[True] * 4, False])

    def request(transport: httpx.HTTPTransport, asked: httpx.Request) -> httpx.Response:
        if next(gone):
            raise httpx.ConnectError("no route")
        return handle(transport, asked)

    monkeypatch.setattr(httpx.HTTPTransport, "handle_request", request)
    with serve({"/file": BODY}, faults.stops(60_000)) as site:
        fetch(site, tmp_path / "part", replace(QUICK, attempts=6))

    assert (tmp_path / "part").read_bytes() == BODY


def test_asking_reads_no_body() -> None:
    with serve({"/file": BODY}) as site:
        site.head_faults = [faults.answers(503)]
        found = ask_over_http(f"{site.base}/file", QUICK)

    assert found["size"] == len(BODY)
    assert found["etag"] == faults.etag(BODY)
    assert site.gets() == []


def leads_to(where: str) -> faults.Fault:
    return faults.answers(302, Location=where)


def test_a_redirect_to_the_same_host_is_followed(tmp_path: Path) -> None:
    with serve({"/file": BODY, "/old": b""}, leads_to("/file")) as site:
        download(f"{site.base}/old", tmp_path / "part", QUICK)

    assert (tmp_path / "part").read_bytes() == BODY


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("http://localhost:9/latest/meta-data", "another host, without https"),
        ("https://169.254.169.254/latest/meta-data", "a host of the local network"),
        ("https://[fe80::1]/", "a host of the local network"),
        ("file:///etc/passwd", "which is not https"),
        ("http://[::1", "leads to nowhere"),
        ("/old", "leads to nowhere"),
    ],
)
def test_a_redirect_elsewhere_is_not_followed_and_said_once(where: str, said: str, tmp_path: Path, caplog) -> None:
    with serve({"/old": b""}, *[leads_to(where)] * 9) as site:
        site.head_faults = [leads_to(where)] * 9
        for ask in (
            lambda: download(f"{site.base}/old", tmp_path / "part", QUICK),
            lambda: ask_over_http(f"{site.base}/old", QUICK),
        ):
            with pytest.raises(TaxiError, match=said):
                ask()

    assert list(tmp_path.iterdir()) == []
    assert not caplog.records


@pytest.mark.parametrize(
    ("source", "target", "said"),
    [
        ("https://8.8.8.8/a", "https://8.8.8.8/b", None),
        ("http://8.8.8.8/a", "https://1.1.1.1/a", None),
        ("https://8.8.8.8/a", "http://8.8.8.8/a", "which is not https"),
        *[("https://8.8.8.8/a", f"https://{host}/a", "a host of the local network") for host in (
            "127.0.0.1", "localhost", "2130706433", "0x7f.1", "[::1]", "[::ffff:127.0.0.1]", "10.0.0.1", "192.168.1.1", "0.0.0.0", "100.64.0.1",
        )],
        ("http://10.0.0.1/a", "https://10.0.0.2/a", None),
        ("http://10.0.0.1/a", "https://169.254.169.254/a", "a host of the local network"),
    ],
)  # fmt: skip
def test_a_public_source_leads_nowhere_inside(source: str, target: str, said: str | None) -> None:
    assert redirect_fault(httpx.URL(source), httpx.URL(target)) == said


def test_a_file_larger_than_any_is_not_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taxi.data.download.MOST_BYTES", 70_000)
    with serve({"/file": BODY}) as site:
        with pytest.raises(TaxiError, match="expected at most 70,000 bytes of part; it has"):
            fetch(site, tmp_path / "part")

    assert list(tmp_path.iterdir()) == []
