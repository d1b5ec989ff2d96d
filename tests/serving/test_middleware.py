"""Who may ask, and how often; what is said and counted when an answer fails."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from taxi.serving.api_keys import ApiKeys
from taxi.serving.app import FAULTS
from taxi.serving.metrics import REGISTRY
from taxi.serving.middleware import MOST_CALLERS, Gate, RateLimit, Rules, names_local_host, read_body
from taxi.serving.responses import OPERATIONS


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


def ask(
    endpoint: Callable[[Request], Awaitable[Response]],
    *received: dict[str, Any],
    path: str = "/outcomes",
    entries: list[str] | None = None,
    **headers: str,
) -> list[dict[str, Any]]:
    """Return what a service whose ``path`` is ``endpoint`` sends to a client that sends ``received`` and these headers."""
    app = Starlette(routes=[Route(path, endpoint, methods=["POST"])], exception_handlers=FAULTS)
    params: Any = SimpleNamespace(rate_per_second=1000, burst=1000)
    given = {"host": "localhost", "content-type": "application/json"} | headers
    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in given.items()]
    scope = {"type": "http", "method": "POST", "path": path, "headers": pairs, "query_string": b""}
    messages, sent = iter(received), []

    async def receive() -> Any:
        return next(messages)

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(Gate(app, Rules(params, ApiKeys(entries or [])))(scope, receive, send))
    return sent


async def accept(request: Request) -> Response:
    return Response()


def answer(path: str, *entries: str, **headers: str) -> tuple[int, str]:
    start, body = ask(accept, path=path, entries=list(entries), **headers)
    return start["status"], json.loads(body["body"])["error"]["code"] if body["body"] else ""


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


KEY = "a-key-0123456789abcdef"
ROUTES = {route.path: route.role for route in OPERATIONS.values()}


@pytest.mark.parametrize("role", ["predict", "outcomes", "operate", "read"])
def test_a_key_opens_the_routes_of_its_roles_and_no_others(role: str) -> None:
    entry = f"name=web;roles={role};key={KEY}"

    answers = {path: answer(path, entry, x_api_key=KEY) for path in ROUTES}

    assert answers == {path: (200, "") if asks in (None, role) else (403, "role") for path, asks in ROUTES.items()}


def test_a_key_without_roles_keeps_what_it_could_do() -> None:
    assert {answer(path, KEY, x_api_key=KEY) for path in ROUTES} == {(200, "")}


def test_a_missing_role_is_named_and_the_key_is_not() -> None:
    _, body = ask(accept, path="/model/refresh", entries=[f"name=web;roles=read;key={KEY}"], x_api_key=KEY)

    assert b"'operate'" in body["body"] and b"web" in body["body"] and KEY.encode() not in body["body"]


def test_an_expired_key_is_told_from_an_unknown_one() -> None:
    entries = (f"name=old;expires=2024-01-31;key={KEY}", "name=new;expires=2999-01-31;key=another-key-0123456789")

    assert answer("/predict", *entries, x_api_key=KEY) == (401, "expired-key")
    assert answer("/predict", *entries, x_api_key=KEY + "x") == (401, "key")
    assert answer("/predict", *entries, x_api_key="another-key-0123456789") == (200, "")


@pytest.mark.parametrize("header", ["x_forwarded_for", "forwarded", "x_forwarded_host", "x_real_ip"])
def test_a_service_without_keys_answers_no_proxy(header: str) -> None:
    assert answer("/predict", **{header: "10.1.2.3"}) == (421, "host")
    assert answer("/predict") == (200, "")


def test_who_called_is_counted_by_the_name_of_the_key() -> None:
    labels = {"key": "counted", "status": "403"}
    before = REGISTRY.get_sample_value("taxi_key_requests_total", labels) or 0

    answer("/predict", f"name=counted;roles=read;key={KEY}", x_api_key=KEY)

    assert (REGISTRY.get_sample_value("taxi_key_requests_total", labels) or 0) - before == 1


@pytest.mark.parametrize(("given", "kept"), [("a-1.B_2", True), ("x" * 65, False), ("a b", False), ("", False)])
def test_a_request_id_is_answered_and_logged_where_it_is_one(
    given: str, kept: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(request: Request) -> Response:
        raise ZeroDivisionError

    start, _ = ask(fail, x_request_id=given)

    assert ((b"x-request-id", given.encode()) in start["headers"]) is kept
    assert (f"(id {given})" in caplog.text) is kept
