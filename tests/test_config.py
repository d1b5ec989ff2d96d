"""Where things lie: relative, ``~`` and absolute places, in every way in which they can be given."""

from pathlib import Path

import pytest

from taxi.addresses import sqlite_file
from taxi.config import TLC_SITE, load_alarm_channels, load_api_keys, load_settings
from taxi.errors import UsageError

PLACES = ("SOURCE", "DATA", "REPORTS", "PREDICTIONS", "METRICS", "ENGINE", "SCHEDULER", "ATTEMPT")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with nothing set, seen from a folder inside of it."""
    for name in (*(f"TAXI_{place}" for place in PLACES), "MLFLOW_TRACKING_URI", "PREFECT_API_URL"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "checkout" / "notebooks").mkdir(parents=True)
    (tmp_path / "checkout" / "params.yaml").touch()
    monkeypatch.chdir(tmp_path / "checkout" / "notebooks")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "checkout"


def test_without_an_environment_everything_lies_in_the_root(root: Path) -> None:
    found = load_settings()

    assert (found.root, found.data, found.reports) == (root, root / "data", root / "reports")
    assert (found.source, found.engine, found.scheduler, found.attempt) == (TLC_SITE, "local", None, None)
    assert found.tracking_uri == f"sqlite:///{root}/mlflow.db"
    assert found.predictions == f"sqlite:///{root}/data/predictions.db"
    assert found.metrics == f"sqlite:///{root}/data/metrics.db"
    assert found.prefect is None


def test_an_empty_variable_is_one_that_is_not_set(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = load_settings()
    for name in (*(f"TAXI_{place}" for place in PLACES), "MLFLOW_TRACKING_URI", "PREFECT_API_URL"):
        monkeypatch.setenv(name, "")

    assert (load_settings(), load_settings().predictions, load_settings().prefect) == (before, before.predictions, None)


@pytest.mark.parametrize(
    ("given", "resolved"),
    [
        ("sqlite:///mlflow.db", "sqlite:///{root}/mlflow.db"),
        ("sqlite:///../other/mlflow.db", "sqlite:///{root}/../other/mlflow.db"),
        ("sqlite:///~/my mlflow.db", "sqlite:///{home}/my mlflow.db"),
        ("sqlite:///kept.db?timeout=30", "sqlite:///{root}/kept.db?timeout=30"),
        ("sqlite+pysqlite:///kept.db", "sqlite+pysqlite:///{root}/kept.db"),
        ("sqlite:////srv/mlflow.db", "sqlite:////srv/mlflow.db"),
        ("sqlite:///:memory:", "sqlite:///:memory:"),
        (
            "postgresql+psycopg2://taxi:secret@db/taxi?x=sqlite:///a",
            "postgresql+psycopg2://taxi:secret@db/taxi?x=sqlite:///a",
        ),
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000"),
    ],
)
def test_an_address_counts_from_the_root_wherever_one_stands(
    given: str, resolved: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = resolved.format(root=root, home=root.parent / "home").replace(f"{root}/..", str(root.parent))
    for name in ("MLFLOW_TRACKING_URI", "TAXI_PREDICTIONS", "TAXI_METRICS"):
        monkeypatch.setenv(name, given)

    found = load_settings()

    assert (found.tracking_uri, found.predictions, found.metrics) == (wanted, wanted, wanted)


@pytest.mark.parametrize(("given", "place"), [("there", "checkout/there"), ("../a b", "a b"), ("~/x", "home/x")])
def test_a_folder_counts_from_the_root_wherever_one_stands(
    given: str, place: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TAXI_DATA", "TAXI_REPORTS", "TAXI_SOURCE"):
        monkeypatch.setenv(name, given)

    found = load_settings()

    assert found.data == found.reports == Path(found.source) == root.parent / place


@pytest.mark.parametrize(
    ("given", "source"),
    [
        ("here", "{root}/notebooks/here"),
        ("~/x", "{home}/x"),
        ("file:here", "{root}/notebooks/here"),
        ("file://here/x", "{root}/notebooks/here/x"),
        ("file://~/my%20x", "{home}/my x"),
        ("file:///srv/x", "/srv/x"),
        ("file://localhost/srv/x", "/srv/x"),
        ("s3://bucket/tlc", "s3://bucket/tlc"),
    ],
)
def test_a_source_that_is_typed_counts_from_the_working_folder(given: str, source: str, root: Path) -> None:
    assert load_settings(given).source == source.format(root=root, home=root.parent / "home")


def test_a_database_file_is_found_under_any_query() -> None:
    assert sqlite_file("sqlite:////srv/a.db?timeout=30") == Path("/srv/a.db")
    assert sqlite_file("sqlite:///:memory:") is None
    assert sqlite_file("postgresql+psycopg2://db/taxi") is None


def test_secrets_are_read_from_a_file_first_and_its_place_counts_from_the_root(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "keys").write_text("one,two\nthree", encoding="utf-8")
    for name in ("TAXI_API_KEYS", "TAXI_ALARM_CHANNELS"):
        monkeypatch.setenv(name, "json://elsewhere")
        monkeypatch.setenv(f"{name}_FILE", "keys")

    assert load_api_keys() == ["one", "two", "three"]
    assert load_alarm_channels("TAXI_ALARM_CHANNELS") == ["one,two", "three"]

    monkeypatch.delenv("TAXI_API_KEYS_FILE")
    assert load_api_keys() == ["json://elsewhere"]


def test_a_secret_in_another_encoding_is_told_by_its_file_and_not_shown(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "keys").write_bytes("canary".encode("utf-16"))
    monkeypatch.setenv("TAXI_API_KEYS_FILE", "keys")

    with pytest.raises(
        UsageError, match=r"expected text in UTF-8 in the file that TAXI_API_KEYS_FILE names, .*keys"
    ) as said:
        load_api_keys()

    assert "canary" not in str(said.value) and said.value.__cause__ is None
