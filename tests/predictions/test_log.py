"""The prediction log: nothing put is lost, whatever the database does; kill -9 loses only what was not on disk yet."""

import itertools
import json
import os
import shutil
import subprocess
import sys
import time
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from taxi.predictions import log
from taxi.predictions.log import Carrier, PredictionLog
from taxi.predictions.spool import REFUSED, Spool
from taxi.predictions.store import Store, open_store
from tests.support.logs import CarriedLog
from tests.support.prediction_rows import make_row, wait_for
from tests.support.worlds import ROOT


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(f"sqlite:///{tmp_path / 'predictions.db'}")


def block(tmp_path: Path) -> Store:
    """A store that is down: its file is a folder, until the folder is removed."""
    (tmp_path / "predictions.db").mkdir()
    return open_store(f"sqlite:///{tmp_path / 'predictions.db'}")


def left_in(spool: Path) -> list[Path]:
    return [path for path in spool.rglob("*") if not path.name.startswith(".")]


def test_close_writes_every_row_and_leaves_an_empty_spool(store: Store, tmp_path: Path) -> None:
    log = CarriedLog(store, tmp_path / "spool")

    for number in range(1234):
        log.put(make_row(number))
    log.put_outcome({"trip_id": "green-2023-04-7", "duration": 12.5})
    log.close()

    assert store.count() == {"predictions": 1234, "outcomes": 1}
    assert (log.queued, log.written, log.lost) == (0, 1235, 0)
    assert left_in(tmp_path / "spool") == []


def test_a_row_is_written_soon_without_close(store: Store, tmp_path: Path) -> None:
    with CarriedLog(store, tmp_path / "spool", every=0.01) as log:
        log.put(make_row(1))
        wait_for(lambda: log.written == 1)

    assert store.count()["predictions"] == 1


def test_rows_wait_on_disk_while_the_database_is_down(tmp_path: Path) -> None:
    store = block(tmp_path)
    log = CarriedLog(store, tmp_path / "spool", every=0.01)
    for number in range(50):
        log.put(make_row(number))
    wait_for(lambda: log.down and not log.in_memory)

    assert (log.queued, log.written, log.lost) == (50, 0, 0)

    (tmp_path / "predictions.db").rmdir()
    wait_for(lambda: log.written == 50)
    log.close()

    assert not log.down
    assert store.count()["predictions"] == 50


def test_a_process_that_ends_while_the_database_is_down_leaves_its_rows_to_the_next(tmp_path: Path) -> None:
    store = block(tmp_path)
    with CarriedLog(store, tmp_path / "spool") as log:
        log.put(make_row(1))
    (tmp_path / "predictions.db").rmdir()

    assert (log.queued, log.written, log.lost) == (1, 0, 0)

    with CarriedLog(store, tmp_path / "spool") as following:
        pass

    assert following.written == 1
    assert store.count()["predictions"] == 1
    assert left_in(tmp_path / "spool") == []


def test_the_rows_of_a_living_process_are_not_taken_over(tmp_path: Path) -> None:
    store = block(tmp_path)
    with CarriedLog(store, tmp_path / "spool") as living:
        living.put(make_row(1))
        wait_for(lambda: not living.in_memory and living.queued)
        with CarriedLog(store, tmp_path / "spool") as other:
            assert other.queued == 0


def test_the_rows_of_a_process_that_ends_later_are_taken_over_too(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "LOOK_SECONDS", 0.02)
    (tmp_path / "nowhere.db").mkdir()
    with CarriedLog(store, tmp_path / "spool") as living:
        with CarriedLog(open_store(f"sqlite:///{tmp_path / 'nowhere.db'}"), tmp_path / "spool") as ending:
            ending.put(make_row(1))
            wait_for(lambda: ending.down and not ending.in_memory)
            assert living.queued == 0

        wait_for(lambda: living.written == 1)

    assert store.count()["predictions"] == 1


def test_a_row_that_no_database_takes_is_put_aside_and_holds_nobody_up(store: Store, tmp_path: Path) -> None:
    with CarriedLog(store, tmp_path / "spool") as log:
        log.put(make_row(1))
        log.put(make_row(2, mean=float("inf")))
        log.put({"prediction_id": "p3"})
        log.put(make_row(4, arm=object()))
        log.put(make_row(5))

    aside = (tmp_path / "spool" / REFUSED).read_text().splitlines()
    assert [json.loads(line)[1]["prediction_id"] for line in aside] == ["p000002", "p3"]
    assert store.count()["predictions"] == 2
    assert (log.queued, log.written, log.lost) == (0, 2, 3)


def test_one_process_carries_what_several_add_and_at_last_what_a_killed_one_left_unfinished(
    store: Store, tmp_path: Path
) -> None:
    holding, carrying = Spool(tmp_path / "spool"), Spool(tmp_path / "spool")
    folder = holding.make_folder()
    several = [PredictionLog(folder, every=0.01) for _ in range(3)]
    for number in range(30):
        several[number % 3].put(make_row(number))
    for adding in several:
        adding.close()
    (folder / "000000000001.part").write_text(
        json.dumps(["predictions", make_row(30, pickup="2023-04-01T10:00:00")]) + "\n"
    )
    carrier = Carrier(store, carrying, folder)
    assert carrier.queued == 30

    carrier.carry()
    assert (carrier.written, carrier.queued) == (30, 0)
    carrier.carry(last=True)
    assert store.count()["predictions"] == 31


def test_memory_and_disk_are_bounded_and_what_is_beyond_is_counted(tmp_path: Path) -> None:
    store = block(tmp_path)

    with CarriedLog(store, tmp_path / "a", every=60, batch=1000, most_rows=3) as log:
        for number in range(5):
            log.put(make_row(number))
        assert (log.in_memory, log.lost) == (3, 2)
    with CarriedLog(store, tmp_path / "b", every=60, batch=2, most_bytes=100) as log:
        for number in range(6):
            log.put(make_row(number))

        wait_for(lambda: not log.in_memory)

    assert (log.queued, log.lost) == (2, 4)


def test_a_row_put_after_close_is_counted_as_lost(store: Store, tmp_path: Path) -> None:
    log = CarriedLog(store, tmp_path / "spool")
    log.close()

    log.put(make_row(1))

    assert log.lost == 1


def test_a_torn_or_spoilt_segment_holds_nobody_up(store: Store, tmp_path: Path) -> None:
    dead = tmp_path / "spool" / "dead"
    dead.mkdir(parents=True)
    good = json.dumps(["predictions", make_row(1, pickup="2023-04-01T10:00:00")])
    (dead / "000000000000.jsonl").write_text(f"{good}\nspoilt\n")
    (dead / "000000000001.part").write_text(good.replace("p000001", "p000002") + '\n["predictions", {"pred')

    with CarriedLog(store, tmp_path / "spool") as log:
        pass

    assert store.count()["predictions"] == 2
    assert log.lost == 1
    assert (tmp_path / "spool" / REFUSED).read_text() == "spoilt\n"


WRITER = """
import signal, sys
from pathlib import Path
from taxi.predictions.store import open_store
from tests.support.logs import CarriedLog
from tests.support.prediction_rows import make_row

place, stop = Path(sys.argv[1]), []
signal.signal(signal.SIGTERM, lambda *_: stop.append(1))
log = CarriedLog(open_store(f"sqlite:///{place / 'predictions.db'}"), place / "spool")
number = 0
while not stop:
    log.put(make_row(number))
    number += 1
    if number == 700:
        while log.in_memory:
            signal.sigtimedwait([], 0.01)
        print("kept", flush=True)
    if number > 700:
        signal.sigtimedwait([], 0.0005)
log.close()
print(number, flush=True)
"""


def start_writer(place: Path) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", WRITER, str(place)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    writer = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
    assert writer.stdout
    assert writer.stdout.readline() == "kept\n"
    return writer


@pytest.mark.slow
def test_sigterm_in_the_middle_of_writing_loses_nothing(store: Store, tmp_path: Path) -> None:
    writer = start_writer(tmp_path)

    writer.terminate()
    put, _ = writer.communicate(timeout=60)

    assert store.count()["predictions"] == int(put) >= 700
    assert left_in(tmp_path / "spool") == []


@pytest.mark.slow
def test_kill_9_loses_none_of_the_rows_that_had_left_the_memory(store: Store, tmp_path: Path) -> None:
    writer = start_writer(tmp_path)

    writer.kill()
    writer.wait(60)
    with CarriedLog(store, tmp_path / "spool"):
        pass

    found = sorted(store.of_trips("green", "green-2023-04-")["prediction_id"])
    assert len(found) >= 700
    assert found == [f"p{number:06d}" for number in range(len(found))]


def serve_until_killed(place: Path, ready: Connection) -> None:
    """Be a service that has answered 1,000 times, and then does nothing but answer on."""
    log = CarriedLog(open_store(f"sqlite:///{place / 'predictions.db'}"), place / "spool")
    for number in range(1000):
        log.put(make_row(number))
    put = time.monotonic()
    while log.in_memory if (place / "predictions.db").is_dir() else log.written < 1000:
        time.sleep(0.01)
    ready.send(time.monotonic() - put)
    for number in itertools.count(1000):
        log.put(make_row(number))
        time.sleep(0.001)


def kill_after_a_thousand(place: Path) -> float:
    """Kill such a service with SIGKILL; return within how many seconds its 1,000 rows were where they are safe."""
    forking = get_context("fork")
    here, there = forking.Pipe()
    service = forking.Process(target=serve_until_killed, args=(place, there))
    service.start()
    seconds = here.recv()
    service.kill()
    service.join()
    return float(seconds)


def test_a_thousand_predictions_in_the_spool_of_a_killed_service_arrive_if_its_disk_is_kept(tmp_path: Path) -> None:
    store = block(tmp_path)
    kill_after_a_thousand(tmp_path)
    (tmp_path / "predictions.db").rmdir()

    with CarriedLog(store, tmp_path / "spool"):
        pass

    found = sorted(store.of_trips("green", "green-2023-04-")["prediction_id"])
    assert found == [f"p{number:06d}" for number in range(len(found))] and len(found) >= 1000


def test_without_its_disk_a_killed_service_loses_what_was_not_in_the_database_and_no_more(
    store: Store, tmp_path: Path
) -> None:
    """The docs say a second for rows to be in the database while it answers; a busy machine that runs tests gets five."""
    store.upgrade()
    seconds = kill_after_a_thousand(tmp_path)
    shutil.rmtree(tmp_path / "spool")

    assert seconds < 5
    assert store.count()["predictions"] >= 1000
