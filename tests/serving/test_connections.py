"""A connection answers what it accepted, in order, and holds out neither silence nor endless heads."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.in_process import Here, get, post, read_replies, running_here
from tests.support.serving_worlds import TRIP


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory, small_models: dict[int, Path]) -> Iterator[Here]:
    with running_here(tmp_path_factory.mktemp("here"), small_models[1], body_seconds=1.0) as running:
        yield running


HEAD = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n"
LONG = b"x" * 100_000


@pytest.mark.parametrize(
    "sent",
    [
        get("/healthz", b"X-Long: " + LONG),
        get("/healthz", *(b"X-%d: %s" % (one, b"y" * 100) for one in range(1000))),
        get("/healthz?" + "q" * 70_000),
        get("/" + "p" * 70_000),
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Endless: " + LONG,
        b"GET /" + LONG,
        b"POST /predict HTTP/1.1\r\nX-Endless" + LONG,
    ],
    ids=[
        "a header",
        "many headers",
        "a query",
        "a path",
        "no end of a header",
        "no end of an address",
        "no end of a name",
    ],
)
def test_an_address_and_headers_of_more_than_64_kib_are_refused_at_once(here: Here, sent: bytes) -> None:
    began = time.monotonic()

    (reply,) = read_replies(here.talk(sent))

    assert (reply.status, reply.code, reply.headers["connection"]) == (431, "large-head", "close")
    assert time.monotonic() - began < 0.8


def test_a_head_of_a_hundred_megabytes_stalls_nobody_and_its_sender_reads_the_answer(here: Here) -> None:
    began = time.monotonic()
    (reply,) = read_replies(here.talk(b"GET / HTTP/1.1\r\nX: ", *[b"x" * 2**20] * 100))

    assert reply.status == 431 and time.monotonic() - began < 3


def test_a_large_body_is_no_large_head(here: Here) -> None:
    body = json.dumps(TRIP).encode().ljust(900_000)

    replies = read_replies(
        here.talk(post(body) + post(body) + post(TRIP, "/predict", "localhost", b"Connection: close"))
    )

    assert [reply.status for reply in replies] == [200, 200, 200]


@pytest.mark.parametrize("begun", [b"", b"\r\n" * 3, b"GET /hea", HEAD, HEAD + b"\r\n{", b"GET / HTTP/1.1\r\nX: y\r\n"])
def test_a_request_that_is_not_whole_in_time_is_given_up_head_or_body(here: Here, begun: bytes) -> None:
    (reply,) = read_replies(here.talk(begun))

    assert (reply.status, reply.code) == (408, "late")


def test_a_head_that_comes_drop_by_drop_is_given_up_too(here: Here) -> None:
    began = time.monotonic()

    (reply,) = read_replies(here.talk(b"GET /healthz HTTP/1.1\r\n", *[b"X: y\r\n"] * 30, pause=0.1))

    assert reply.status == 408 and time.monotonic() - began < 5


@pytest.mark.parametrize("sent", [HEAD + b'\r\n{"PULocation', HEAD, b"POST /predict HT", HEAD + b"Transfer-Enc"])
def test_a_request_that_is_cut_off_is_answered(here: Here, sent: bytes) -> None:
    (reply,) = read_replies(here.talk(sent, cut=True))

    assert (reply.status, reply.code, reply.headers["connection"]) == (400, "cut-off", "close")


def test_a_whole_request_of_a_client_that_sends_no_more_is_answered(here: Here) -> None:
    replies = read_replies(here.talk(post(TRIP) + post(TRIP), cut=True))

    assert [reply.status for reply in replies] == [200, 200]
    assert here.talk(b"", cut=True) == b""


@pytest.mark.parametrize(
    ("after", "status"),
    [
        (b"\x16\x03\x01 garbage\r\n\r\n", 400),
        (b"GET / HTTP/9.9\r\n\r\n", 400),
        (get("/", b"X: " + LONG), 431),
        (b"POST /pre", 408),
        (HEAD + b"\r\n{", 408),
        (b"POST /predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
    ],
    ids=["garbage", "another protocol", "a large head", "half a head", "half a body", "a malformed chunk"],
)
@pytest.mark.parametrize("before", [1, 3])
def test_requests_before_one_that_is_refused_are_answered_first(
    here: Here, before: int, after: bytes, status: int
) -> None:
    replies = read_replies(here.talk(post(TRIP) * before + after))

    assert [reply.status for reply in replies] == [*[200] * before, status]
    assert all(json.loads(reply.body)["version"] == 1 for reply in replies[:-1])


def test_a_request_cut_off_behind_others_is_answered_behind_them(here: Here) -> None:
    replies = read_replies(here.talk(post(TRIP) * 2 + HEAD + b"\r\n{", cut=True))

    assert [reply.status for reply in replies] == [200, 200, 400] and replies[-1].code == "cut-off"


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/model", "/metrics", "/openapi.json"])
def test_what_can_be_got_can_be_asked_for_its_head(here: Here, path: str) -> None:
    (head,) = read_replies(here.talk(get(path, method="HEAD")), bodiless=True)
    (whole,) = read_replies(here.talk(get(path)))

    assert head.status == whole.status == 200 and head.body == b""
    assert head.headers["content-type"] == whole.headers["content-type"]
    assert read_replies(here.talk(get("/predict", method="HEAD")), bodiless=True)[0].status == 405


@pytest.mark.parametrize(
    ("target", "host", "status"),
    [
        ("/model", "localhost", 200),
        ("/model", "127.0.0.1:8000", 200),
        ("/model", "localhost:evil", 421),
        ("/model", "localhost:80@evil", 421),
        ("/model", "localhost:", 200),
        ("/model", "localhost:123456", 421),
        ("/model", "user@localhost", 421),
        ("/model", "[::1]:80.evil", 421),
        ("/model", "localhost\r\nHost: evil.example", 421),
        ("/model", "evil.example\r\nHost: localhost", 421),
        ("http://evil.example/model", "localhost", 421),
        ("http://user@localhost/model", "localhost", 421),
        ("http://localhost:8000/model", "evil.example", 200),
        ("//evil.example/model", "localhost", 404),
    ],
)
def test_only_this_machine_by_its_name_is_served_without_keys(here: Here, target: str, host: str, status: int) -> None:
    sent = f"GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()

    assert read_replies(here.talk(sent))[0].status == status
