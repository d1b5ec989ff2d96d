"""Who may ask, and how often."""

import pytest

from taxi.errors import UsageError
from taxi.serving.middleware import MOST_CALLERS, ApiKeys, RateLimit, names_local_host, offered_key, require_keys

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
