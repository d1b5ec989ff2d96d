"""What kill -9 can lose of the prediction log: rows put, killed at random moments, taken up by the next start, counted.

    python -m benchmarks.log_loss --kills 20 --rate 2000 --out build/bench/log_loss.json

Three cases: SQLite, a real PostgreSQL server (where it is installed), and a database that is down while the process is
killed. The promise: no row is lost that was put more than ``every`` (0.2 s) and the writing of one small file before the kill.
"""

import argparse
import logging
import mmap
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from taxi.files import write_json
from taxi.predictions.store import open_store
from tests.support.logs import CarriedLog
from tests.support.postgres import running_postgres, why_not

MOST_ROWS = 1_000_000


def make_row(name: str, number: int) -> dict[str, Any]:
    """Return a prediction with all its columns, as the service makes it."""
    return {
        "prediction_id": f"{name}-{number}", "made_at": datetime.now(UTC), "service": "green", "trip_id": f"{name}-{number}",
        "pickup": datetime(2023, 4, 1, 10), "PULocationID": 74, "DOLocationID": 75, "passenger_count": 1.0,
        "trip_type": 1.0, "vendor": 2.0, "planned_distance_miles": None, "arm": "champion", "shadow": False,
        "fallback": False, "version": 3, "mean": 10.123456, "median": 9.123456, "p10": 5.123456, "p90": 20.123456,
        "latency_ms": 1.234567,
    }  # fmt: skip


def put_for_ever(address: str, spool: Path, name: str, rate: float, stamps: np.ndarray) -> None:
    """Put ``rate`` rows a second; ``stamps`` (shared with the parent) gets the moment at which each put returned."""
    logging.getLogger("taxi").setLevel(logging.ERROR)  # a database that is down is what one case is about
    log, begun = CarriedLog(open_store(address), spool), time.monotonic()
    for number in range(len(stamps)):
        if (wait := begun + number / rate - time.monotonic()) > 0:
            time.sleep(wait)
        log.put(make_row(name, number))
        stamps[number] = time.monotonic()


def kill_once(
    address: str, place: Path, name: str, rate: float, seconds: float, mend: Callable[[], None]
) -> dict[str, Any]:
    """Kill a putting process after ``seconds``, ``mend`` the database, start anew; return what was put and lost."""
    stamps = np.frombuffer(mmap.mmap(-1, 8 * MOST_ROWS), dtype=np.float64)
    child = os.fork()
    if child == 0:
        put_for_ever(address, place / "spool", name, rate, stamps)
    time.sleep(seconds)
    killed = time.monotonic()
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    put = np.flatnonzero(stamps)
    mend()
    store = open_store(address)
    with CarriedLog(store, place / "spool"):
        pass
    found = store.of_trips("green", f"{name}-")["trip_id"].str.rpartition("-")[2].astype(int)
    store.close()
    lost = np.setdiff1d(put, found)
    newest_only = not len(lost) or bool((lost == np.arange(lost[0], len(put))).all())
    age = float(killed - stamps[lost[0]]) if len(lost) else 0.0
    return {"put": len(put), "lost": len(lost), "oldest_lost_seconds": age, "newest_only": newest_only}


def kill_often(case: str, address: str, place: Path, kills: int, rate: float) -> list[dict[str, Any]]:
    """Return what each kill of one case came to; in the case ``down`` the SQLite file is a folder until the kill."""
    draw, results = random.Random(7), []
    database = place / "down.db"
    for number in range(kills):
        if case == "down":
            for leftover in place.glob("down.db*"):
                leftover.unlink()
            database.mkdir()
        mend = database.rmdir if case == "down" else (lambda: None)
        name = f"{case}{number}"
        results.append({"case": case} | kill_once(address, place, name, rate, draw.uniform(0.3, 1.3), mend))
    return results


def measure_speed(case: str, address: str, place: Path, rows: int = 20_000) -> dict[str, Any]:
    """Return what one ``put`` costs (microseconds) and how many rows a second reach the store when they come at once."""
    made = [make_row(f"speed-{case}", number) for number in range(rows)]
    log, begun = CarriedLog(open_store(address), place / "spool"), time.perf_counter()
    for row in made:
        log.put(row)
    put = time.perf_counter() - begun
    log.close()
    written = time.perf_counter() - begun
    return {"case": case, "put_microseconds": 1e6 * put / rows, "rows_per_second": log.written / written}


def main() -> None:
    """Measure the three cases and print two tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--rate", type=float, default=2000, help="rows a second")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    given = parser.parse_args()
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        cases = {"sqlite": f"sqlite:///{place / 'up.db'}", "down": f"sqlite:///{place / 'down.db'}"}
        if reason := why_not():
            print(f"without PostgreSQL: {reason}", file=sys.stderr)
        else:
            cases["postgresql"] = stack.enter_context(running_postgres()).address
        kills = [
            one for case, address in cases.items() for one in kill_often(case, address, place, given.kills, given.rate)
        ]
        speeds = [measure_speed(case, address, place) for case, address in cases.items() if case != "down"]
    table = pd.DataFrame(kills).groupby("case").agg(
        kills=("put", "size"), put=("put", "sum"), lost=("lost", "sum"), most_lost=("lost", "max"),
        oldest_lost_seconds=("oldest_lost_seconds", "max"), newest_only=("newest_only", "all"),
    )  # fmt: skip
    print(table.round(3).to_string(), pd.DataFrame(speeds).round(1).to_string(index=False), sep="\n\n")
    if given.out:
        write_json(given.out, {"rate": given.rate, "kills": kills, "speeds": speeds})


if __name__ == "__main__":
    main()
