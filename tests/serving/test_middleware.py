"""Who may ask, and how often; what is said and counted when an answer fails."""

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from taxi.errors import UsageError
from taxi.serving.app import FAULTS
from taxi.serving.metrics import REGISTRY
from taxi.serving.middleware import (
    MOST_CALLERS,
    ApiKeys,
    Gate,
    RateLimit,
    Rules,
    names_local_host,
    offered_key,
    read_body,
    require_keys,
)

OLD, NEW = "old-key-0123456789abcdef", "new-key-0123456789abcdef"


def test_each_of_several_keys_opens_and_nothing_else_does() -> None:
    keys = ApiKeys([OLD, NEW])

    assert keys.find(OLD.encode()) and keys.find(NEW.encode())
    assert keys.find(OLD.encode()) != keys.find(NEW.encode())
    assert [
        keys.find(one) for one in (b"", OLD[:-1].encode(), OLD.encode() + b"x", OLD.upper().encode(), b"\xff\x00")
    ] == [None] * 5
    assert ApiKeys([]).find(b"") is None


def test_every_key_is_compared_whichever_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []
    monkeypatch.setattr(
        "taxi.serving.middleware.hmac.compare_digest", lambda one, other: compared.append(one) or one == other
    )

    for offered in (OLD, NEW, "neither"):
        ApiKeys([OLD, NEW]).find(offered.encode())

    assert len(compared) == 6


def test_keys_are_not_kept_in_clear() -> None:
    assert OLD not in repr(vars(ApiKeys([OLD])))


def test_a_short_key_is_refused_without_being_shown() -> None:
    with pytest.raises(UsageError, match="16 or more") as refusal:
        ApiKeys(["hunter2"])
    assert "hunter2" not in str(refusal.value)


def test_a_key_comes_in_either_header() -> None:
    assert offered_key([(b"accept", b"*/*"), (b"x-api-key", b" k ")]) == b"k"
    assert offered_key([(b"authorization", b"bEaReR k")]) == b"k"
    assert offered_key([(b"authorization", b"Basic k")]) == b""


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org"])
def test_only_localhost_is_served_without_keys(host: str) -> None:
    with pytest.raises(UsageError, match="TAXI_API_KEYS"):
        require_keys(host, ApiKeys([]))
    require_keys(host, ApiKeys([OLD]))
    require_keys("127.0.0.1", ApiKeys([]))


def test_a_name_that_was_rebound_to_this_machine_is_not_local() -> None:
    assert all(
        names_local_host(one) for one in (b"localhost", b"LOCALHOST:8000", b"127.0.0.1:1", b"[::1]:8000", b"[::1]")
    )
    assert not any(
        names_local_host(one)
        for one in (b"", b"evil.example:8000", b"localhost.evil.example", b"127.0.0.1.evil", b"10.0.0.1")
    )


def test_a_caller_has_a_burst_and_then_a_rate_of_its_own() -> None:
    now = [100.0]
    rate = RateLimit(2, 3, lambda: now[0])

    assert [rate.wait("a") for _ in range(4)] == [0, 0, 0, 0.5]
    assert rate.wait("b") == 0
    now[0] += 0.5
    assert rate.wait("a") == 0 < rate.wait("a")
    now[0] += 1000
    assert [rate.wait("a") for _ in range(4)] == [0, 0, 0, 0.5]


def test_callers_are_forgotten_before_they_fill_the_memory() -> None:
    rate = RateLimit(1, 1)

    for number in range(MOST_CALLERS + 50):
        rate.wait(str(number))

    assert len(rate._buckets) == MOST_CALLERS


def ask(endpoint: Callable[[Request], Awaitable[Response]], *received: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what a service whose ``POST /outcomes`` is ``endpoint`` sends to a client that sends ``received``."""
    app = Starlette(routes=[Route("/outcomes", endpoint, methods=["POST"])], exception_handlers=FAULTS)
    rules: Any = SimpleNamespace(rate_per_second=1000, burst=1000)
    headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": "/outcomes", "headers": headers, "query_string": b""}
    messages, sent = iter(received), []

    async def receive() -> Any:
        return next(messages)

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(Gate(app, Rules(rules, ApiKeys([])))(scope, receive, send))
    return sent


def counted(status: int) -> float:
    return REGISTRY.get_sample_value("taxi_requests_total", {"route": "/outcomes", "status": str(status)}) or 0


def test_whatever_fails_is_answered_in_json_without_its_reason_and_written_to_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def fail(request: Request) -> Response:
        raise ZeroDivisionError("a secret reason")

    before = counted(500)
    start, body = ask(fail)

    assert (start["status"], counted(500) - before) == (500, 1)
    assert (b"x-content-type-options", b"nosniff") in start["headers"]
    assert b'"code":"failed"' in body["body"] and b"secret" not in body["body"]
    assert "a secret reason" in caplog.text


def test_a_client_that_goes_away_before_its_body_is_whole_is_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    async def read(request: Request) -> Response:
        return Response(await read_body(request, 1000))

    before, part = counted(499), {"type": "http.request", "body": b"{", "more_body": True}
    ask(read, part, {"type": "http.disconnect"})

    assert counted(499) - before == 1 and not caplog.text
