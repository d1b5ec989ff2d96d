"""What is wrong with an installation and what crashes leave: found by a look that changes nothing, repaired only when asked."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from pipelines.commands import operations
from pipelines.flow_runs import judge
from pipelines.monthly import take_incumbent
from taxi import processes
from taxi.addresses import shown, why_unreachable
from taxi.config import Settings
from taxi.errors import TaxiError
from taxi.files import locked, sha256_tree, staging_path
from taxi.operations import doctor, leftovers
from taxi.operations.doctor import Diagnosis, Probe, as_answer, examine, worst
from taxi.predictions.spool import Spool, add_segment, encode_rows
from taxi.predictions.store import open_store
from taxi.processes import SOCKETS, lives, lives_here, machine_mark, mark_of, own_sockets
from taxi.registry.aliases import open_event
from taxi.registry.events import Event, write_event
from taxi.registry.mlflow_client import connect, prepare
from taxi.serving.local_store import Entry, Place, Refusal, State
from tests.support.aliased import fill
from tests.support.postgres import Postgres, free_port, make_databases
from tests.support.prediction_rows import make_row, wait_for
from tests.support.prefect_server import flow_runs, running_prefect, wait_until_running
from tests.support.worlds import ROOT, World


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name in ("TAXI_PREDICTIONS", "TAXI_METRICS", "PREFECT_API_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    made = Settings(
        ROOT, str(tmp_path / "source"), tmp_path / "data", tmp_path / "reports", f"sqlite:///{tmp_path}/mlflow.db"
    )
    for folder in (made.data, made.reports, tmp_path / "source"):
        folder.mkdir()
    return made


@pytest.fixture
def ended() -> int:
    """The number of a process that ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def check(name: str, settings: Settings, repair: bool = False) -> Diagnosis:
    """What the check of that name finds."""
    checks = [one for one in (*doctor.CHECKS, *leftovers.CHECKS) if one.name == name]
    return examine(checks, settings, repair)[0]


def test_half_written_files_of_the_dead_are_found_and_only_repair_removes_them(settings: Settings, ended: int) -> None:
    dead, living = (settings.data / f".month.part-{owner}-abc.parquet" for owner in (ended, os.getpid()))
    dead.touch(), living.touch()

    assert check("staging", settings).level == "warn"
    assert dead.exists()
    found = check("staging", settings, repair=True)

    assert (found.level, found.repaired) == ("ok", True)
    assert "1 half-written" in found.says
    assert living.exists() and not dead.exists()


def test_half_written_files_of_another_container_are_left_alone_until_they_are_a_day_old(
    settings: Settings, ended: int
) -> None:
    here = staging_path(settings.data / "month.parquet").name.split("-")[2]
    young, old = (settings.data / f".{name}.part-{ended}-0123abcd-{'1' * 8}.parquet" for name in ("young", "old"))
    dead = settings.data / f".month.part-{ended}-{here}-{'1' * 8}.parquet"
    young.touch(), old.touch(), dead.touch()
    os.utime(old, (0, time.time() - 90_000))

    assert check("staging", settings, repair=True).repaired
    assert [path.exists() for path in (young, old, dead)] == [True, False, False]


def test_a_lock_that_is_held_is_told_from_a_file_without_a_holder_and_neither_is_deleted(settings: Settings) -> None:
    folder = settings.data / ".locks"
    with locked(folder / "green-2024-01.lock"):
        pass
    (folder / "free.lock").touch()

    elsewhere = replace(settings, root=settings.data)  # a checkout in which a month was run has a lock file of its own
    with locked(folder / "green-2024-01.lock"):
        found = check("locks", elsewhere, repair=True)

    assert found.level == "ok"
    assert "1 lock files without a holder" in found.says and "1 held by living processes" in found.says
    assert {path.name for path in folder.iterdir()} >= {"green-2024-01.lock", "free.lock"}


SLEEPING = [sys.executable, "-c", "import time; time.sleep(60)"]


@pytest.fixture
def start() -> Iterator[Callable[..., "subprocess.Popen[bytes]"]]:
    """Start a sleeping process in an environment; it ends with the test."""
    started: list[subprocess.Popen[bytes]] = []

    def start(**environment: str) -> "subprocess.Popen[bytes]":
        started.append(subprocess.Popen(SLEEPING, env={**os.environ, **environment}))
        wait_for(lambda: "time.sleep(60)" in " ".join(psutil.Process(started[-1].pid).cmdline()[-1:]))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_a_process_that_outlived_its_run_is_found_and_ended_and_one_with_a_parent_is_not(
    settings: Settings, start: Callable[..., "subprocess.Popen[bytes]"], tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to(settings.data)
    lost = [start(TAXI_PARENT="1:0.00", TAXI_DATA=str(data)) for data in (settings.data, tmp_path / "link")]
    kept = start(TAXI_PARENT=mark_of(), TAXI_DATA=str(settings.data))

    found = check("processes", settings).says
    assert all(str(process.pid) in found for process in lost) and str(kept.pid) not in found

    assert check("processes", settings, repair=True).repaired
    assert all(process.wait(10) is not None for process in lost)
    assert kept.poll() is None


def test_processes_of_other_installations_and_containers_are_neither_listed_nor_ended(
    settings: Settings,
    start: Callable[..., "subprocess.Popen[bytes]"],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "other").mkdir()
    ours = str(settings.data)
    strangers = [
        start(TAXI_PARENT="1:0.00", TAXI_DATA=str(tmp_path / "other")),
        start(TAXI_PARENT="1:0.00", TAXI_DATA=str(tmp_path / "gone")),
        start(TAXI_PARENT="1:0.00"),
        start(TAXI_PARENT="somebody else's", TAXI_DATA=ours),
        start(TAXI_DATA=ours),
    ]
    assert check("processes", settings, repair=True).level == "ok"

    inside = start(TAXI_PARENT="1:0.00", TAXI_DATA=ours)
    monkeypatch.setattr(processes, "pid_namespace", lambda process="self": f"pid:[{process == 'self'}]")
    assert check("processes", settings, repair=True).level == "ok"
    assert [process.poll() for process in (*strangers, inside)] == [None] * 6


def test_sockets_of_a_kernel_that_is_gone_are_removed_and_those_of_another_container_are_not(
    settings: Settings, ended: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    here = own_sockets().split("-")[-2]
    gone, there, elsewhere, older = (
        tmp_path / f"{SOCKETS}{owner}-xyz"
        for owner in (f"{ended}-{here}", f"{os.getpid()}-{here}", f"{ended}-0123abcd", ended)
    )
    for folder in (gone, there, elsewhere, older):
        folder.mkdir()

    assert check("sockets", settings, repair=True).repaired
    assert [folder.exists() for folder in (gone, older, there, elsewhere)] == [False, False, True, True]


@pytest.mark.slow
def test_a_promotion_that_was_killed_halfway_is_broken_until_it_is_settled(settings: Settings) -> None:
    assert check("promotions", settings).level == "ok"
    prepare(settings.tracking_uri)
    client = connect(settings.tracking_uri)
    client.create_registered_model("taxi-green")
    client.set_registered_model_tag("taxi-green", "journal", write_event(Event("2024-05-01", "someone", "a trial")))

    found = check("promotions", settings)
    assert (found.level, "green in dev: a trial" in found.says) == ("broken", True)
    assert check("promotions", settings, repair=True).repaired
    assert open_event(settings.tracking_uri, "green") is None


def test_predictions_that_wait_for_a_service_that_is_gone_are_carried_into_the_store(settings: Settings) -> None:
    spool = Spool(settings.spool)
    add_segment(spool.make_folder(), encode_rows([("predictions", make_row(number)) for number in range(5)])[0])
    assert check("spool", settings).level == "ok"  # its service lives
    spool.close()

    assert check("spool", settings).level == "warn"
    assert check("spool", settings, repair=True).repaired
    assert open_store(settings.predictions).count()["predictions"] == 5


def test_a_repair_that_fails_leaves_the_finding_and_says_why(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(settings: Settings) -> None:
        raise TaxiError("no store today")

    broken = Probe("spool", lambda settings: Diagnosis("spool", "warn", "rows wait"), fail)

    assert examine([broken], settings, repair=True)[0].says == "rows wait; the repair failed: no store today"


def test_a_check_that_cannot_look_is_itself_a_finding(settings: Settings) -> None:
    def look(settings: Settings) -> Diagnosis:
        raise PermissionError(13, "Permission denied")

    found = examine([Probe("disk", look)], settings)

    assert (found[0].level, worst(found)) == ("broken", "broken")
    assert as_answer(found)["findings"][0]["name"] == "disk"


def test_months_that_stand_half_run_and_refused_rows_are_named(settings: Settings) -> None:
    (settings.reports / "green" / "2024-03").mkdir(parents=True)
    (settings.reports / "green" / "2024-03" / "01-explore.json").touch()
    settings.spool.mkdir()
    (settings.spool / "refused.jsonl").write_text("{}\n{}\n")

    assert "green 2024-03" in check("months", settings).says
    assert "refused 2 rows" in check("refused-rows", settings).says


def test_a_package_of_another_version_or_missing_is_named() -> None:
    lock = "packaging==1.0 \\\n    --hash=sha256:00\nno-such-package==2.0\nother==1 ; sys_platform == 'win32' \\\n    --hash=sha256:00\n"

    differ = doctor.differing_packages(lock)

    assert differ[1:] == ["no-such-package is missing"]
    assert "locked is 1.0" in differ[0]
    assert doctor.differing_packages((ROOT / "requirements.lock").read_text()) == []


def test_models_that_only_one_machine_can_read_are_told(
    settings: Settings, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TAXI_ARTIFACTS", raising=False)
    (uri,) = make_databases(postgres, "only_one")
    shared = replace(settings, tracking_uri=uri)
    assert f"models of green lie in {settings.data}/mlartifacts/green, where" in check("artifacts", shared).says
    prepare(uri)
    fill(uri)
    elsewhere = settings.data / "elsewhere"
    connect(uri).create_experiment("taxi-green", elsewhere.as_uri())

    refused = check("artifacts", shared)
    with pytest.raises(TaxiError, match=f"a folder that is not on this machine, {elsewhere}: set TAXI_ARTIFACTS"):
        take_incumbent(shared, "green", "2023-04")
    elsewhere.mkdir()
    warned = check("artifacts", shared)
    monkeypatch.setenv("TAXI_ARTIFACTS", str(settings.data))

    levels = [one.level for one in (refused, warned, check("artifacts", shared), check("artifacts", settings))]
    assert levels == ["broken", "warn", "ok", "ok"]


SHARED_LOCKS = [
    ("sqlite:///registry.db", None, "ok", "files beside the registry, which is one machine's"),
    ("http://mlflow:5000", None, "warn", "keep no other machine from moving an alias of this registry"),
    ("http://mlflow:5000", "locks", "ok", "locks/ gives a lock to one at a time"),
]


@pytest.mark.parametrize(("registry", "locks", "level", "says"), SHARED_LOCKS)
def test_whether_the_locks_of_a_registry_hold_between_machines_is_tried(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, registry: str, locks: str | None, level: str, says: str
) -> None:
    monkeypatch.setenv("TAXI_LOCKS", str(settings.data / locks)) if locks else monkeypatch.delenv(
        "TAXI_LOCKS", raising=False
    )

    finding = check("shared-locks", replace(settings, tracking_uri=registry))

    assert (finding.level, says in finding.says) == (level, True)


def test_locks_that_two_may_hold_at_once_are_broken(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAXI_LOCKS", str(settings.data))
    monkeypatch.setattr("taxi.locks._FileLock.take", lambda lock: True)

    finding = check("shared-locks", replace(settings, tracking_uri="http://mlflow:5000"))

    assert finding.level == "broken" and "gives a lock to two at once" in finding.says


@pytest.mark.parametrize("name", ["packages", "disk", "registry", "prefect", "databases", "served"])
def test_a_sound_installation_has_nothing_to_say(name: str, settings: Settings) -> None:
    assert check(name, settings).level == "ok"


def test_an_address_that_does_not_answer_is_named_without_its_password(tmp_path: Path) -> None:
    port = free_port()
    database = f"postgresql+psycopg2://someone:secret@127.0.0.1:{port}/taxi"

    assert "refused" in str(why_unreachable(database))
    assert "secret" not in str(why_unreachable(database)) and shown(database).endswith(f"//127.0.0.1:{port}/taxi")
    assert "did not answer" in str(why_unreachable(f"http://127.0.0.1:{port}/api", "/health"))
    with closing(socket.create_server(("127.0.0.1", port))):
        assert why_unreachable(database) is None
    (tmp_path / "broken.db").write_bytes(b"no database at all, but long enough to be looked at" * 100)
    assert "file is not a database" in str(why_unreachable(f"sqlite:///{tmp_path / 'broken.db'}"))


def test_a_database_of_ours_that_is_damaged_is_broken(settings: Settings) -> None:
    (settings.data / "predictions.db").write_bytes(b"nothing of the kind" * 100)

    assert check("databases", settings).level == "broken"


def test_a_damaged_copy_of_what_a_service_serves_is_broken_and_a_refusal_is_told(settings: Settings) -> None:
    place = Place(settings.server("green"))
    (place.versions / "3-x").mkdir(parents=True)
    (place.versions / "3-x" / "recipe.json").write_text("{}", encoding="utf-8")
    entry = Entry(3, "3-x", sha256_tree(place.versions / "3-x"), "2024-01", "2024-02", "")
    place.write_state(State(entry, refused=(Refusal("champion", 4, "x", "golden trip 2 differs", ""),)))
    assert (check("served", settings).level, "golden trip 2" in check("served", settings).says) == ("warn", True)

    (place.versions / "3-x" / "recipe.json").write_text("{", encoding="utf-8")
    assert (check("served", settings).level, "version 3" in check("served", settings).says) == ("broken", True)

    place.state.write_text("", encoding="utf-8")
    assert check("served", settings).level == "broken"


def test_whether_a_process_lives_is_known_here_and_not_elsewhere(ended: int) -> None:
    assert lives(mark_of()) and lives_here(machine_mark())
    assert not lives(f"{ended}:1.00") and not lives(f"{os.getpid()}:1.00")
    assert lives_here(f"another-machine/{mark_of()}") is None
    assert lives_here(f"{socket.gethostname()}/1:0.00@another container's") is None
    assert not lives("no mark")


def test_a_flow_run_is_judged_by_its_label_before_its_tag_and_without_either_by_nobody() -> None:
    gone, here = f"{socket.gethostname()}/1:0.00", machine_mark()

    assert judge("a", [f"process:{gone}"], {}).alive is False
    assert judge("a", [f"process:{gone}"], {"taxi.process": here}).alive is True
    assert judge("a", ["nightly"], None).alive is None


def test_flow_runs_are_not_looked_at_where_no_server_is_set_and_the_doctor_says_so(settings: Settings) -> None:
    found = operations.find_flow_runs(settings)

    assert (found.level, found.says.partition(",")[0]) == ("ok", "not looked at")


def test_flow_runs_are_not_known_where_the_server_is_silent(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")

    (found,) = examine([Probe("flow-runs", operations.find_flow_runs)], settings)

    assert found.level == "broken" and "did not answer" in found.says


@pytest.fixture
def silent() -> Iterator[str]:
    """A source that takes connections and never answers: a run that asks it stays under way."""
    with closing(socket.create_server(("127.0.0.1", 0), backlog=16)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


@pytest.mark.slow
def test_runs_whose_process_was_killed_are_marked_as_crashed_at_the_next_start(tmp_path: Path, silent: str) -> None:
    with running_prefect(tmp_path / "prefect") as address:
        # the one that lives on has data of its own: it holds the lock of the zone files that the silent source never sends
        world, other = (World(tmp_path / place, {"PREFECT_API_URL": address}) for place in ("one", "other"))
        (tmp_path / "one" / "source").mkdir(parents=True)
        words = ("run", "--service", "green", "--no-version", "--source", silent, "--month")
        running = [place.begin(tmp_path, *words, "2024-01") for place in (world, world, other)]
        wait_until_running(address, 3)
        for process in running[:2]:
            process.kill()
            process.wait()
        said = json.loads(world.taxi("doctor", "--json").stdout)
        found = next(one for one in said["findings"] if one["name"] == "flow-runs")

        code, _ = world.answer("ingest", "--service", "green", "--month", "2024-09")

        assert code == 3
        assert "2 flow runs are under way in name only" in found["says"]
        states = list(flow_runs(address).values())
        assert (states.count("CRASHED"), states.count("RUNNING")) == (2, 1)
        running[2].kill()
        running[2].wait()


@pytest.mark.parametrize(
    "file",
    [
        "reports/green/2024-03/month.json",
        "reports/green/2024-03/03-monitor.json",
        "data/acceptance/green/2024-03.json",
        "data/raw/green/2024-03.json",
        "data/zones/taxi_zones.json",
        "data/models/green/2024-03/plan.json",
        "data/models/green/2024-03/search.json",
        "data/trips/green/2024-03.parquet",
        "data/quarantine/green/2024-03.parquet",
        "data/alarms.json",
        "data/serving/green/state.json",
        "reports/green/retrain/2024-03-after-1/retrain.json",
        "reports/green/backtest/backtest.json",
    ],
)
def test_a_damaged_file_that_one_run_leaves_for_another_is_found_by_its_path(settings: Settings, file: str) -> None:
    assert check("results", settings).level == "ok"
    path = settings.data.parent / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('{"service": "gre')

    found = check("results", settings)

    assert found.level == "broken"
    assert "1 files cannot be read: expected" in found.says and str(path) in found.says
