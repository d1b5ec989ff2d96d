"""Installations that share a registry, each with data of its own: one history, no move lost, no month run twice."""

import shutil
import signal
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import boto3
import pytest

from taxi.config import Settings
from taxi.locks import lock_place
from taxi.processes import import_before_forking
from taxi.registry.events import EVENT, fold_aliases, fold_tags
from taxi.registry.mlflow_client import connect, prepare
from taxi.registry.provenance import result_digest
from taxi.registry.versions import read_registered, versions
from taxi.runs.month_result import read_result, result_file
from tests.support.aliased import fill
from tests.support.campaign import at_scale
from tests.support.contenders import move_often, read_lines, run_month
from tests.support.forks import fork
from tests.support.mlflow_server import KEYS, USER, running_mlflow, running_s3
from tests.support.month_results import write_acceptance
from tests.support.postgres import Postgres, make_databases
from tests.support.registered import settings_with_months, small_model

pytestmark = [pytest.mark.slow, pytest.mark.campaign, pytest.mark.timeout(at_scale(600, 3600))]
PROCESSES, MOVES = at_scale((3, 4), (8, 25))


@pytest.fixture(params=at_scale(["postgresql"], ["postgresql", "mlflow-and-s3"]))
def uri(
    request: pytest.FixtureRequest, postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """A registry that machines may share: PostgreSQL, or MLflow's server on it with the locks on S3."""
    (database,) = make_databases(postgres, f"shared{abs(hash(tmp_path)) % 10**9}")
    prepare(database)
    import_before_forking("tests.support.contenders")
    if request.param == "postgresql":
        yield database
        return
    with running_s3() as endpoint:
        keys = KEYS | {"AWS_ENDPOINT_URL": endpoint, "MLFLOW_S3_ENDPOINT_URL": endpoint}
        for name, value in (keys | USER | {"TAXI_LOCKS": "s3://mlflow/locks"}).items():
            monkeypatch.setenv(name, value)
        boto3.client("s3").create_bucket(Bucket="mlflow")
        with running_mlflow(database, tmp_path, keys) as address:
            yield address


def check_one_history(uri: str, name: str) -> None:
    """Each event begins where those before it ended, and MLflow says what all of them say."""
    registered = read_registered(connect(uri), name)
    assert [*registered.events] == [f"{EVENT}{number:06d}" for number in range(1, len(registered.events) + 1)]
    before: dict[str, str] = {}
    for event in registered.events.values():
        assert {alias: was for alias, (was, _) in event.aliases.items()} == {
            alias: before.get(alias) for alias in event.aliases
        }
        before |= fold_aliases([event])
    assert registered.aliases == before
    tags = {str(version.version): version.tags for version in registered.versions}
    for number, changes in fold_tags(registered.events.values()).items():
        assert {tag: tags[number].get(tag, "") for tag in changes} == changes


def test_moves_of_many_processes_make_one_history_and_none_is_lost(uri: str, tmp_path: Path) -> None:
    fill(uri)
    running = [fork(move_often, uri, tmp_path / str(who), who, MOVES) for who in range(PROCESSES)]
    for process in running:
        process.join()

    assert [process.exitcode for process in running] == [0] * PROCESSES
    for name in ("taxi-green", "taxi-green-staging"):
        check_one_history(uri, name)
    told = [move for who in range(PROCESSES) for move in read_lines(tmp_path / str(who))]
    events = [
        event for name in ("taxi-green", "taxi-green-staging") for event in read_registered(connect(uri), name).events.values()
    ]  # fmt: skip
    by = Counter(event.by for event in events)
    assert len(told) == PROCESSES * MOVES
    for move in told:
        times = (0,) if move["refused"] else (0, 1) if move["did"] == "run" else (1,)
        assert by[move["by"]] in times, move
    assert set(by) <= {move["by"] for move in told} | {"taxi run"}
    assert len({move["did"] for move in told if not move["refused"]}) >= at_scale(3, 4)
    months = Counter(version.tags["fingerprint"] for version in versions(uri, "green"))
    assert {month: count for month, count in months.items() if month.startswith("2024")} == dict.fromkeys(
        (month for month in months if month.startswith("2024")), 1
    )
    print(f"{len(told)} moves, {sum(bool(move['refused']) for move in told)} refused, {len(events)} events")


@pytest.fixture
def installations(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """Some with the same months, each in a place of its own; artifacts lie where all of them reach."""
    monkeypatch.setenv("TAXI_ARTIFACTS", (tmp_path / "artifacts").as_uri())
    first = replace(settings_with_months(tmp_path / "0", small_model()), tracking_uri=uri)
    write_acceptance(first.month("green", "2023-01"))
    places = [tmp_path / str(number) for number in range(at_scale(2, 6))]
    for place in places[1:]:
        shutil.copytree(tmp_path / "0", place)
    return [replace(first, data=place / "data", reports=place / "reports") for place in places]


def test_a_month_that_installations_run_at_once_is_trained_once_and_again_only_after_a_kill(
    uri: str, installations: list[Settings], tmp_path: Path
) -> None:
    place, trained = lock_place(uri), tmp_path / "trained"
    killed = fork(run_month, installations[0], place, trained, True)
    running = [fork(run_month, settings, place, trained, False) for settings in installations]
    for process in (killed, *running):
        process.join()

    assert [process.exitcode for process in running] == [0] * len(installations)
    assert killed.exitcode in (0, -signal.SIGKILL)  # it may have come last, and taken up what the others did
    assert len(read_lines(trained)) == (2 if killed.exitcode else 1)
    assert [version.tags["role"] for version in versions(uri, "green")] == ["challenger", "winner"]
    results = [read_result(result_file(settings.month("green", "2023-01"))) for settings in installations]
    assert len({result_digest(result.as_json()) for result in results}) == 1
    check_one_history(uri, "taxi-green")
