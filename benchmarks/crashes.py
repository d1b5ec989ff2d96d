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
from tests.prefect_server import flow_runs, running_prefect, wait_until_running
from tests.worlds import World


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


def measure(place: Path, kills: int, at_once: int) -> dict[str, Any]:
    """Return how many runs were killed, were marked, were left, and the seconds from the next start until the last was marked."""
    (place / "source").mkdir(parents=True)
    with running_prefect(place / "prefect") as address, closing(socket.create_server(("127.0.0.1", 0))) as silent:
        world = World(place, {"PREFECT_API_URL": address})
        source = f"http://127.0.0.1:{silent.getsockname()[1]}"
        for first in range(0, kills, at_once):
            months = [shift_month("2015-01", number) for number in range(first, min(first + at_once, kills))]
            words = ("run", "--service", "green", "--no-version", "--source", source, "--month")
            running = [world.start(*words, month) for month in months]
            wait_until_running(address, first + len(months))
            for process in running:
                process.kill()
                process.wait()
        under_way = list(flow_runs(address).values()).count("RUNNING")
        orphans, begun = _left_running(place), time.monotonic()
        following = world.start("run", "--service", "green", "--month", "2024-01", "--no-version")
        while list(flow_runs(address).values()).count("CRASHED") < kills and following.poll() is None:
            time.sleep(0.2)
        seconds = time.monotonic() - begun
        following.communicate(timeout=300)
        states = list(flow_runs(address).values())
    return {
        "killed": kills,
        "running_in_name_only_before": under_way,
        "processes_without_parent_before": orphans,
        "marked_crashed": states.count("CRASHED"),
        "still_running": states.count("RUNNING"),
        "seconds_until_all_were_marked": round(seconds, 1),
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
    print(json.dumps(result))
