"""Who may ask: API keys, their names, roles and ends, and how a wrong entry is refused without being shown."""

from datetime import UTC, datetime
from hashlib import sha256

import pytest

from taxi.errors import UsageError
from taxi.serving.api_keys import ROLES, ApiKeys, offered_key, parse_key, require_keys

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
        "taxi.serving.api_keys.hmac.compare_digest", lambda one, other: compared.append(one) or one == other
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


def test_a_service_behind_a_proxy_needs_keys_on_localhost_too() -> None:
    with pytest.raises(UsageError, match="TAXI_PROXIES"):
        require_keys("127.0.0.1", ApiKeys([]), ["127.0.0.1/32"])
    require_keys("127.0.0.1", ApiKeys([OLD]), ["127.0.0.1/32"])


def test_an_entry_names_its_key_its_roles_and_its_end() -> None:
    key = parse_key(f"name=web-2;roles=predict+outcomes;expires=2027-01-31;key={OLD}")

    assert (key.name, key.roles) == ("web-2", {"predict", "outcomes"})
    assert key.expires == datetime(2027, 2, 1, tzinfo=UTC), "a day is valid to its end"
    assert key == parse_key(
        f"name=web-2;roles=outcomes+predict;expires=2027-02-01T01:00:00+01:00;sha256={sha256(OLD.encode()).hexdigest()}"
    )


def test_a_key_by_its_digest_opens_and_its_digest_does_not() -> None:
    digest = sha256(OLD.encode()).hexdigest()
    keys = ApiKeys([f"name=web;sha256={digest.upper()}"])

    assert keys.find(OLD.encode()) and not keys.find(digest.encode())
    assert keys.find(OLD.encode()).roles == set(ROLES)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        (f"name=web;{OLD}", "unknown"),
        (f"name=web;rols=predict;key={OLD}", "unknown"),
        (f"name=web;roles=;key={OLD}", "empty"),
        (f"name=web;key={OLD};key={NEW}", "twice"),
        (f"name=web;roles=admin;key={OLD}", "predict, outcomes, operate, read"),
        (f"name=web;roles={OLD};key={OLD}", "predict, outcomes, operate, read"),
        (f"name={OLD}{OLD};key={OLD}", "40 letters"),
        (f"name=web site;key={OLD}", "40 letters"),
        (f"name=web;key={OLD};sha256={'0' * 64}", "either"),
        ("name=web;roles=read", "either"),
        (f"name=web;sha256={OLD}", "64 hexadecimal"),
        (f"name=web;expires={OLD};key={OLD}", "expires"),
        (f"name=web;expires=2027-01-31T12:00;key={OLD}", "offset"),
        ("name=web;key=short", "16 or more"),
    ],
)
def test_a_wrong_entry_is_told_by_its_number_and_never_shown(entry: str, says: str) -> None:
    with pytest.raises(UsageError, match=r"TAXI_API_KEYS, entry 2: ") as refusal:
        ApiKeys([NEW, entry])

    assert says in str(refusal.value)
    assert OLD not in str(refusal.value) and NEW not in str(refusal.value) and "\n" not in str(refusal.value)


def test_a_name_or_a_key_is_given_once() -> None:
    for entries in ([f"name=web;key={OLD}", f"name=web;key={NEW}"], [f"name=web;key={OLD}", OLD]):
        with pytest.raises(UsageError, match="a name of its own"):
            ApiKeys(entries)
    assert len(ApiKeys([OLD, OLD])) == 1


def test_keys_that_expire_within_two_weeks_are_told() -> None:
    keys = ApiKeys([f"name=web;expires=2027-01-31;key={OLD}", f"name=app;expires=2027-03-31;key={NEW}"])

    assert [key.name for key in keys.expiring(datetime(2027, 1, 25, tzinfo=UTC))] == ["web"]
    assert len(keys.expiring(datetime(2028, 1, 1, tzinfo=UTC))) == len(keys) == 2, "an expired key opens to nobody"
