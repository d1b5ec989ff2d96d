"""Requests a second, one worker, side by side: ours, a service that loads its model per request, and ``mlflow models serve``.

    python -m benchmarks.serving --data data --service green --month 2022-12 --window 3 --seconds 10 --swaps 20 --out build/serving.json

``--data`` holds kept trips and zones (``taxi ingest`` makes them). Needs ``wrk``. All run one after another in one call, on one
machine, with the same trip; all have learnt from the same months, and the two that serve our model serve the same files. Then ours at
half of its maximum, and while champions are swapped.
"""

import argparse
import json
import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd
import psutil

from benchmarks.rivals import measure_mlflow, measure_seed
from benchmarks.seed_service import fit as fit_seed
from benchmarks.wrk import CONNECTIONS, wrk
from taxi.data.schema import read_trips
from taxi.data.zones import read_zones
from taxi.files import write_json
from taxi.models.fitting import fit_model
from taxi.models.model import save_model
from taxi.months import shift_month
from taxi.params import load_params
from tests.support.serving_worlds import ROOT, Registry, Running, ServingWorld

OURS = {"PULocationID": 74, "DOLocationID": 138, "pickup_datetime": "2023-02-07T08:15:00"}
FOR_SEED = {"PULocationID": 74, "DOLocationID": 138, "trip_distance": 3.5}
SEED_FILE = "seed.joblib"
FOR_MLFLOW = {
    "dataframe_split": {
        "columns": ["pickup", "PULocationID", "DOLocationID", "passenger_count", "trip_type", "VendorID"],
        "data": [["2023-02-07T08:15:00", 74.0, 138.0, 1.0, 1.0, 2.0]],
    }
}
Json = dict[str, Any]


def make_worlds(place: Path, data: Path, service: str, month: str, window: int) -> ServingWorld:
    """Fit two models (two windows) on real trips, register them in a new registry, and make a checkout with high limits."""
    (place / "checkout" / "notebooks").mkdir(parents=True)
    (place / "checkout" / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    (place / "data").mkdir()
    (place / "data" / "zones").symlink_to((data / "zones").resolve())
    params, zones = load_params(ROOT / "params.yaml"), read_zones(data / "zones")
    folders, trips = {}, {}
    for number, last in ((1, month), (2, shift_month(month, -1))):
        months = [shift_month(last, -by) for by in range(window)]
        trips[number] = read_trips([data / "trips" / service / f"{one}.parquet" for one in months])
        folders[number] = place / "models" / str(number)
        save_model(fit_model(trips[number], zones, params.model, params.features), folders[number])
    world = ServingWorld(place, folders, Registry(place))
    for number, folder in folders.items():
        assert world.registry.register(folder) == number
    world.registry.alias("champion", 1)
    world.set_params("serve", poll_seconds=1, rate_per_second=1e9, burst=10**9)
    fit_seed(trips[1], place / SEED_FILE)
    return world


def at_half(url: str, most: float, seconds: float) -> Json:
    """Measure at half of ``most`` requests a second: each connection waits as long as that takes, less an answer's time."""
    target, answer = most / 2, 0.0
    for length in (2.0, seconds):
        got = wrk(url, OURS, length, CONNECTIONS, max(1.0, 1000 * CONNECTIONS / target - answer))
        answer = got["p50_ms"]
    return got | {"share_of_most": got["per_second"] / most}


def service_memory(running: Running) -> int:
    """Return the resident bytes of all processes of the service, a second after what it was doing last."""
    time.sleep(1)
    return sum(one.memory_info().rss for one in psutil.Process(running.process.pid).children(recursive=True))


def measure_swaps(world: ServingWorld, running: Running, swaps: int, seconds: float) -> Json:
    """Swap champions at an even pace under a steady load; return failures, p99 before and during (ms), memory growth."""

    def swap() -> float:
        begin = time.monotonic()
        for number in range(swaps):
            due = begin + (number + 1) * seconds / swaps
            world.registry.alias("champion", 2 - number % 2)
            running.client.post("/model/refresh")
            running.serves(2 - number % 2)
            time.sleep(max(0.0, due - time.monotonic()))
        return time.monotonic() - begin

    def load() -> Json:
        return wrk(f"{running.url}/predict", OURS, seconds, 4, 4)

    steady, before = load(), service_memory(running)
    with ThreadPoolExecutor(1) as pool:
        swapping = pool.submit(swap)
        during = load()
        took = swapping.result()
    return {
        "swaps": swaps,
        "seconds": took,
        "requests_per_second": during["per_second"],
        "failed": during["failed"],
        "p99_steady_ms": steady["p99_ms"],
        "p99_swapping_ms": during["p99_ms"],
        "memory_growth": service_memory(running) / before - 1,
    }


def measure(world: ServingWorld, seconds: float, swaps: int) -> Json:
    """Measure all, one after another."""
    found: Json = {
        "load_before": os.getloadavg(),
        "load_per_request": measure_seed(world, world.place / SEED_FILE, FOR_SEED, seconds),
        "mlflow_models_serve": measure_mlflow(world, FOR_MLFLOW, seconds),
    }
    running = world.running().start()
    try:
        running.ready()
        wrk(f"{running.url}/predict", OURS, 2)
        found["taxi_serve"] = wrk(f"{running.url}/predict", OURS, seconds)
        most = found["taxi_serve"]["per_second"]
        found["taxi_serve_at_half"] = at_half(f"{running.url}/predict", most, seconds)
        if swaps:
            found["swaps"] = measure_swaps(world, running, swaps, 1.5 * swaps)
    finally:
        running.stop()
    found["load_after"] = os.getloadavg()
    found["times_load_per_request"] = most / found["load_per_request"]["per_second"]
    found["times_mlflow"] = most / found["mlflow_models_serve"]["per_second"]
    return found


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--service", default="green")
    parser.add_argument("--month", default="2022-12", help="the last month that trains")
    parser.add_argument("--window", type=int, default=3, help="months that train")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--swaps", type=int, default=20)
    parser.add_argument("--out", type=Path, help="JSON file to write")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        world = make_worlds(Path(folder), given.data, given.service, given.month, given.window)
        found = measure(world, given.seconds, given.swaps)
    rows = {name: one for name, one in found.items() if isinstance(one, dict) and "per_second" in one}
    print(
        pd.DataFrame.from_dict(rows, orient="index").drop(columns="share_of_most", errors="ignore").round(2).to_string()
    )
    print(
        f"{found['times_load_per_request']:.0f} times the service that loads per request, {found['times_mlflow']:.1f} times MLflow's"
    )
    print(json.dumps({name: found[name] for name in ("taxi_serve_at_half", "swaps") if name in found}, indent=1))
    print(f"load average, of 1, 5 and 15 minutes: before {found['load_before']}, after {found['load_after']}")
    if given.out:
        write_json(given.out, found)


if __name__ == "__main__":
    main()
