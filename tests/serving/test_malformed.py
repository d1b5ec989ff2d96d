"""Malformed requests by the thousand: each gets a clear answer in JSON, soon, that is no failure of the service."""

import json
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.campaign import at_scale
from tests.support.hostile import BODIES, MARK, OUTCOMES
from tests.support.in_process import Here, get, post, read_replies, running_here
from tests.support.serving_worlds import TRIP

REQUESTS = at_scale(150, 3000)
SLOWEST = 1.0
Draw = random.Random
PATHS = [
    "/predict",
    "/outcomes",
    "/model",
    "/model/refresh",
    "/healthz",
    "/nothing",
    "/PREDICT",
    "/predict/",
    "/%00",
    "/..",
    "*",
]
METHODS = ["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "BREW", "get", "", "G E T", "\x00"]
VERSIONS = ["HTTP/1.0", "HTTP/1.1", "HTTP/2.0", "HTTP/0.9", "HTTP/11", "http/1.1", "HTTP/1.1 ", "", "ICY/1.0"]
HEADERS = [
    b"Content-Length: -1", b"Content-Length: 1e9", b"Content-Length: 99999999999999999999", b"Content-Length: 5, 5", b"Content-Length: ",
    b"Content-Length: 3\r\nContent-Length: 4", b"Transfer-Encoding: chunked\r\nContent-Length: 3", b"Transfer-Encoding: gzip",
    b"Transfer-Encoding: chunked, identity", b"Transfer-Encoding : chunked", b" folded: yes", b"X: a\r\n b", b"No colon at all", b": no name",
    b"X\x00: y", b"X: \x00", b"X: \xff\xfe", b"X: a\nY: b", b"X: a\rY: b", b"Host: evil.example", b"Host: localhost:evil", b"Expect: 100-continue",
    b"Expect: 200-ok", b"Upgrade: websocket\r\nConnection: Upgrade", b"Upgrade: h2c\r\nConnection: Upgrade", b"Connection: close, keep-alive",
    b"X: " + b"y" * 70_000, b"Content-Type: text/plain", b"Content-Type: application/json; charset=utf-16", b"Content-Encoding: gzip", b"\x16\x03\x01",
]  # fmt: skip
CHUNKS = [
    b"zz\r\n",
    b"-1\r\n",
    b"3\r\nabcd\r\n",
    b"ffffffffffffffffff\r\n",
    b"3;x=" + b"y" * 5000 + b"\r\nabc\r\n",
    b"0\r\nX: y\r\n\r\n",
    b"3\r\nab",
]


def line(draw: Draw) -> bytes:
    """A request line of parts that do not go together."""
    method, path, version = draw.choice([*METHODS, "POST"]), draw.choice(PATHS), draw.choice(VERSIONS)
    target = draw.choice(
        [
            path,
            path,
            f"http://{draw.choice(['localhost', 'evil.example', ''])}{path}",
            path + "?" + "q" * draw.choice([1, 70_000]),
        ]
    )
    return f"{method} {target} {version}\r\nHost: localhost\r\n\r\n".encode()


def head(draw: Draw) -> bytes:
    """A good trip under headers that are none, contradict each other or do not fit."""
    return post(TRIP, draw.choice(PATHS[:2]), "localhost", *draw.sample(HEADERS, draw.randint(1, 3)))


def chunked(draw: Draw) -> bytes:
    """A body in chunks that are none."""
    begun = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    return begun + b"".join(draw.sample(CHUNKS, draw.randint(1, 3)))


def body(draw: Draw) -> bytes:
    """A hostile body, or two."""
    path, bodies = draw.choice([("/predict", BODIES), ("/outcomes", OUTCOMES)])
    return b"".join(post(draw.choice(bodies), path) for _ in range(draw.randint(1, 2)))


def mutated(draw: Draw) -> bytes:
    """A good request with bytes changed, lost, doubled or put in."""
    sent = bytearray(
        draw.choice(
            [
                post(TRIP),
                post({"trips": [TRIP] * 2}),
                get("/model"),
                post({"trip_id": "a", "duration_minutes": 3}, "/outcomes"),
            ]
        )
    )
    for _ in range(draw.randint(1, 4)):
        at = draw.randrange(len(sent))
        sent[at : at + draw.choice([0, 1, 1, 3])] = draw.choice(
            [b"", bytes([draw.randrange(256)]), b"\r\n", b"\x00", b"{", b'"', sent[at : at + 20]]
        )
    return bytes(sent)


def cut(draw: Draw) -> bytes:
    """A good request that ends too early."""
    sent = post(TRIP)
    return sent[: draw.randrange(4, len(sent))]


def piped(draw: Draw) -> bytes:
    """Good requests before a malformed one."""
    return post(TRIP) * draw.randint(1, 3) + draw.choice([line, head, chunked, mutated, cut])(draw)


KINDS: list[Callable[[Draw], bytes]] = [line, head, chunked, body, mutated, cut, piped]


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory, small_models: dict[int, Path]) -> Iterator[Here]:
    with running_here(tmp_path_factory.mktemp("malformed"), small_models[1]) as running:
        yield running


@pytest.mark.slow
@pytest.mark.campaign
@pytest.mark.timeout(at_scale(120, 1200))
def test_malformed_requests_are_answered_in_json_soon_and_never_as_a_failure_of_the_service(here: Here) -> None:
    draw, slowest, statuses = random.Random(17), 0.0, dict[int, int]()
    for number in range(REQUESTS):
        sent = KINDS[number % len(KINDS)](draw)
        began = time.monotonic()
        got = here.talk(sent, cut=True)
        slowest = max(slowest, time.monotonic() - began)
        replies = read_replies(got)
        assert replies, sent[:300]
        for reply in replies:
            statuses[reply.status] = statuses.get(reply.status, 0) + 1
            assert reply.status < 500, (reply, sent[:300])
            assert json.loads(reply.body) and reply.headers["content-type"] == "application/json", (reply, sent[:300])
            assert reply.status < 400 or MARK not in reply.body.decode()
    print(f"{REQUESTS} malformed requests: {dict(sorted(statuses.items()))}, slowest {slowest:.2f} s")
    assert slowest < SLOWEST
    assert len(statuses) > 5
    assert [reply.status for reply in read_replies(here.talk(post(TRIP), cut=True))] == [200]
