"""Kill -9 runs of ``taxi run`` while they are under way, start the next one, and see that all are marked and nothing is left.

The runs ask a source that never answers, so that each is under way when it is killed. Prefect's server and its home are the
measurement's own.
"""

import argparse
import json
import socket
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil

from taxi.files import write_json
from taxi.months import shift_month
from taxi.processes import PARENT_MARK, lives
from tests.support.prefect_server import flow_runs, running_prefect, wait_until_running
from tests.support.worlds import World


def _left_running(place: Path) -> int:
    """Return how many processes of runs in ``place`` have lost their parent."""
    lost = 0
    for process in psutil.process_iter():
        try:
            own = process.environ()
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        lost += own.get("TAXI_DATA") == str(place / "data") and not lives(own.get(PARENT_MARK, "0:0"))
    return lost


def _kill_some(world: World, address: str, source: str, months: list[str]) -> tuple[int, int]:
    """Start a run for each month, kill -9 all once they are under way; return how many the server still calls running, and orphans."""
    words = ("run", "--service", "green", "--no-version", "--source", source, "--month")
    running = [world.start(*words, month) for month in months]
    wait_until_running(address, len(months))
    for process in running:
        process.kill()
        process.wait()
    return list(flow_runs(address).values()).count("RUNNING"), _left_running(world.place)


def _start_again(world: World, address: str, killed: int) -> float:
    """Start another run; return the seconds from its start until ``killed`` runs are marked as crashed."""
    begun = time.monotonic()
    following = world.start("ingest", "--service", "green", "--month", "2024-01")
    while list(flow_runs(address).values()).count("CRASHED") < killed and following.poll() is None:
        time.sleep(0.2)
    seconds = time.monotonic() - begun
    following.communicate(timeout=300)
    return round(seconds, 1)


def measure(place: Path, kills: int, at_once: int) -> dict[str, Any]:
    """Return, round by round, what kills left and the seconds until the next start had marked it; and what is left at the end."""
    (place / "source").mkdir(parents=True)
    rounds: list[dict[str, Any]] = []
    with running_prefect(place / "prefect") as address, closing(socket.create_server(("127.0.0.1", 0))) as silent:
        world = World(place, {"PREFECT_API_URL": address})
        source = f"http://127.0.0.1:{silent.getsockname()[1]}"
        for first in range(0, kills, at_once):
            months = [shift_month("2015-01", number) for number in range(first, min(first + at_once, kills))]
            running, orphans = _kill_some(world, address, source, months)
            seconds = _start_again(world, address, first + len(months))
            rounds.append({"running_in_name_only": running, "orphans": orphans, "seconds_until_marked": seconds})
            print(rounds[-1], flush=True)
        states = list(flow_runs(address).values())
    return {
        "killed": kills,
        "rounds": rounds,
        "marked_crashed": states.count("CRASHED"),
        "still_running": states.count("RUNNING"),
        "longest_seconds_until_marked": max(one["seconds_until_marked"] for one in rounds),
        "processes_left": _left_running(place),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--at-once", type=int, default=4)
    parser.add_argument("--out", type=Path, default=Path("build/bench/crashes.json"))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="taxi-crashes-") as folder:
        result = measure(Path(folder), given.kills, given.at_once)
    write_json(given.out, result)
    print(json.dumps({name: value for name, value in result.items() if name != "rounds"}))
