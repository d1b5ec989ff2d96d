"""An alarm's event, a real Prefect server, its automation, a worker: a retrain is judged, promoted, and the alias moves."""

import json
import random
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings
from tenacity import retry, stop_after_delay, wait_fixed

from pipelines import alarms
from pipelines.alarms import deliver_events, emit_alarms
from pipelines.flow_runs import mark_crashed
from taxi.config import Settings
from taxi.data.acceptance import clean_month
from taxi.data.fetch import fetch_month, fetch_zones
from taxi.data.source import open_source
from taxi.data.synthetic import write_sample
from taxi.monitoring import alarm_book
from taxi.monitoring.alarm_book import CLAIM_SECONDS, read_book, tell, waits_for_server
from taxi.monitoring.alarm_rules import Alarm
from taxi.months import shift_month
from taxi.params import load_params
from taxi.processes import PARENT_MARK
from taxi.registry.versions import aliased_version
from tests.support.automation import SMALL, Automation, marked_processes
from tests.support.campaign import at_scale
from tests.support.databases import give_prefect_home
from tests.support.postgres import free_port
from tests.support.serving_worlds import ROOT, Registry, train, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.campaign, pytest.mark.timeout(at_scale(1200, 3600))]
TINY = SMALL | {"rounds": 30, "head_rounds": 10, "interval_rounds": 10, "threads": 1}
EMIT = """
from pipelines.alarms import emit_alarms
from taxi.config import load_settings
told = {"kind": "raised", "service": "green", "severity": "error", "month": None, "part": "champion", "said": "RMSE has risen"}
emit_alarms(load_settings(), [told | {"id": f"{n:032x}", "rule": rule} for n, rule in enumerate(["data-quality", "live-rmse"], 1)])
"""


def put_month_on_hand(place: Path) -> None:
    """Fetch and split the first month, as its run does."""
    source, settings = open_source(str(place / "source")), Settings(ROOT, "", place / "data", place / "reports", "")
    fetch_zones(source, settings.zones)
    fetch_month(source, "green", "2024-01", settings.month("green", "2024-01"))
    clean_month(settings.month("green", "2024-01"), load_params())


def register_champion(place: Path) -> int:
    """Register a champion that was trained to the first month, and return its number."""
    registry = Registry(place)
    model = train(place / "models" / "first", place / "data" / "zones")
    number = registry.register(model, promoted_in="2024-01", **{"metric.rmse": "5.0", "synthetic": "true"})
    registry.alias("champion", number)
    return number


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Automation]:
    made = Automation(tmp_path_factory.mktemp("loop"), {"model": TINY}, lean=True)
    write_sample(made.place / "source", "green", ["2024-01", "2024-02"], rows=16_000, shift_month="2024-02")
    put_month_on_hand(made.place)
    give_prefect_home(made.place / "prefect")
    try:
        made.start_prefect("month")
        yield made
    finally:
        made.stop()


def emit(world: Automation) -> None:
    words = [sys.executable, "-c", EMIT]
    subprocess.run(words, env=world.environment, cwd=world.checkout, check=True)


def decisions(world: Automation) -> list[dict[str, Any]]:
    path = Path(world.environment["TAXI_REPORTS"]) / "green/retrain/decisions.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_an_alarms_event_starts_a_retrain_that_moves_the_champion_and_data_quality_starts_none(
    world: Automation,
) -> None:
    uri = world.environment["MLFLOW_TRACKING_URI"]
    before = register_champion(world.place)

    emit(world)
    runs = wait_for(world.ended_runs, "the end of the retrain", 1200)

    assert [(one["name"], one["state_type"]) for one in runs] == [("retrain-green-live-rmse", "COMPLETED")]
    decided = decisions(world)[0]
    assert (decided["status"], decided["month"], decided["promoted"]) == ("done", "2024-02", True)
    assert (decided["decision"]["trigger"], decided["decision"]["call"]["rule"]) == ("alarm", "live-rmse")
    after = aliased_version(uri, "green", "champion")
    assert after and after.number > before
    assert (after.trained_to, after.tags["judged_in"]) == ("2024-02", "2024-02")
    pages = Path(world.environment["TAXI_REPORTS"]) / "green/retrain" / f"2024-02-after-{before}"
    assert {page.name for page in pages.glob("*.html")} == {"04-train.html", "05-compare.html"}


# --- An event is delivered once, also where the server is away or a check is killed.

ERROR = Alarm("data-quality", "error", "RMSE 9.10 minutes", "2023-03")


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(tmp_path, "none", tmp_path / "data", tmp_path / "reports", f"sqlite:///{tmp_path / 'mlflow.db'}")


@pytest.fixture
def at_server(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """Let Prefect's server be at an address, in a ``with`` block."""

    @contextmanager
    def at(address: str) -> Iterator[None]:
        monkeypatch.setenv("PREFECT_API_URL", address)
        with temporary_settings({PREFECT_API_URL: address}):
            yield

    return at


def away() -> str:
    return f"http://127.0.0.1:{free_port()}/api"


def raise_alarm(settings: Settings) -> str:
    """Raise an alarm as a check does, and return its message's id."""
    told = tell(settings, load_params(), "green", {"data-quality": ERROR}, None, datetime.now(UTC))["told"]
    deliver_events(settings)
    return str(told[0]["id"])


def events(address: str, number: str, least: int = 1) -> list[dict[str, Any]]:
    """Return the server's events of that id, once there are so many: it writes them down every few seconds."""

    @retry(stop=stop_after_delay(60), wait=wait_fixed(0.5), reraise=True)
    def read() -> list[dict[str, Any]]:
        asked = {"filter": {"id": {"id": [number]}}}
        found = httpx.post(f"{address}/events/filter", json=asked, timeout=60).raise_for_status().json()["events"]
        assert len(found) >= least
        return list(found)

    return read()


def test_an_alarm_raised_while_the_server_is_away_is_its_event_later_and_once(
    settings: Settings, world: Automation, at_server: Callable[[str], Any]
) -> None:
    with at_server(away()):
        number = raise_alarm(settings)
        assert waits_for_server(settings)
    with at_server(world.server):
        deliver_events(settings)
        assert not waits_for_server(settings) and read_book(settings.alarm_book)["waiting"] == []
        deliver_events(settings)

        (event,) = events(world.server, number)

    assert (event["event"], event["resource"]["taxi.rule"]) == ("taxi.alarm.raised", "data-quality")
    assert event["payload"]["said"] == "RMSE 9.10 minutes"


@pytest.mark.parametrize("taken", [False, True])
def test_a_check_killed_before_or_after_the_server_took_the_event_leaves_one(
    taken: bool, settings: Settings, world: Automation, at_server: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(settings: Settings, told: list[dict[str, Any]]) -> list[str]:
        if taken:
            emit_alarms(settings, told)
        raise Killed

    with at_server(world.server):
        with monkeypatch.context() as patch:
            patch.setattr(alarms, "emit_alarms", killed)
            patch.setattr(alarm_book, "remove_delivered", lambda book, *_: book)  # who was killed takes nothing back
            with pytest.raises(Killed):
                raise_alarm(settings)
            number = read_book(settings.alarm_book)["waiting"][0]["message"]["id"]
            deliver_events(settings)  # no second one meanwhile: it is claimed
            assert waits_for_server(settings)
            if taken:
                events(world.server, number)
        after_a_minute = datetime.now(UTC) + timedelta(seconds=CLAIM_SECONDS)
        monkeypatch.setattr(alarm_book, "datetime", type("Later", (), {"now": staticmethod(lambda _: after_a_minute)}))
        deliver_events(settings)

        assert not waits_for_server(settings)
        assert len(events(world.server, number)) == 1


# --- Runs of a worker that is killed: none stays under way in name only, no kernel trains on.

ENDED = ("COMPLETED", "FAILED", "CRASHED")


@pytest.fixture
def stranger(tmp_path: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """A process that another installation's killed run has left."""
    sleeping = [sys.executable, "-c", "import time; time.sleep(3600)"]
    process = subprocess.Popen(sleeping, env={PARENT_MARK: "1:0.00", "TAXI_DATA": str(tmp_path)})
    yield process
    process.kill()
    process.wait()


@pytest.fixture
def silent() -> Iterator[str]:
    """A source that takes connections and never answers: a run that asks it is under way until it is killed."""
    with closing(socket.create_server(("127.0.0.1", 0), backlog=16)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


KILLED = [shift_month("2024-03", number) for number in range(at_scale(1, 12))]


def kill_runs(world: Automation, source: str) -> list[str]:
    """Start a run of each month, kill the worker and the run's process: once under way, in the campaign at random moments."""
    luck, killed = random.Random(7), []
    for month in KILLED:
        killed.append(world.start_run("month", service="green", month=month, source=source, version=False))
        if at_scale(True, False):
            wait_for(lambda: world.state_of(killed[-1]) == "RUNNING", "the run's begin", 300)
        else:
            time.sleep(luck.uniform(2, 45))
        world.kill_worker()
    time.sleep(at_scale(0, 100))  # a worker counts as gone after 90 seconds
    return killed


def test_a_run_whose_worker_and_process_were_killed_is_crashed_at_the_next_and_leaves_no_process(
    world: Automation, silent: str, stranger: "subprocess.Popen[bytes]"
) -> None:
    more = str(world.place / "more")
    write_sample(Path(more), "green", at_scale([], KILLED), rows=2000)
    killed = kill_runs(world, at_scale(silent, more))

    # in the suite it is not published
    last = world.start_run("month", service="green", month=KILLED[-1], source=at_scale(None, more), version=False)
    wait_for(lambda: all(world.state_of(run) in ENDED for run in (last, *killed)), "the end of all runs", 900)

    assert world.state_of(last) == "COMPLETED"
    assert {world.state_of(run) for run in killed} <= at_scale({"CRASHED"}, {"CRASHED", "COMPLETED"})
    wait_for(lambda: marked_processes(world.environment["TAXI_DATA"]) == [], "the end of all that runs had started", 60)
    assert stranger.poll() is None


def take_run(world: Automation, worker: str) -> str:
    """Make a run that a worker of that name took and that no process has begun; return its id."""
    (deployment,) = world.ask("/deployments/filter", deployments={"name": {"any_": ["month"]}})
    ids = {"flow_id": deployment["flow_id"], "deployment_id": deployment["id"]}
    run = str(world.ask("/flow_runs/", **ids, state={"type": "PENDING"})["id"])
    labels = {"prefect.worker.name": worker, "prefect.work-pool.name": "taxi"}
    httpx.patch(f"{world.server}/flow_runs/{run}/labels", json=labels, timeout=60).raise_for_status()
    return run


def test_a_run_that_was_taken_and_never_begun_is_crashed_once_its_worker_is_gone(
    world: Automation, at_server: Callable[[str], Any]
) -> None:
    workers = world.ask("/work_pools/taxi/workers/filter")
    living = next(worker["name"] for worker in workers if worker["status"] == "ONLINE")
    gone, waits = take_run(world, "a worker that is gone"), take_run(world, living)

    with at_server(world.server):
        mark_crashed()

    assert (world.state_of(gone), world.state_of(waits)) == ("CRASHED", "PENDING")
