"""A real month replayed to ``taxi serve``: every answer against batch scoring, every outcome joined, and how long it took.

    python -m benchmarks.replay --data data --service green --month 2023-04 --out build/replay.json

``--data`` holds kept trips and zones (``taxi ingest`` makes them). The model is a small one, of trips of the month before: what
is measured is whether the numbers agree, not how good they are. Exits with 1 where they differ by more than 1e-6.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from taxi.data.schema import read_trips
from taxi.data.zones import read_zones
from taxi.files import write_json
from taxi.models.fitting import fit_model
from taxi.models.model import save_model
from taxi.months import shift_month
from taxi.params import load_params
from taxi.serving.replay import read_traffic
from tests.support.replayed import differences, replay_to
from tests.support.serving_worlds import ServingWorld, make_world

LEARNT_FROM = 50_000
SMALL = {"rounds": 60, "head_rounds": 10, "interval_rounds": 10, "max_depth": 5}
Json = dict[str, Any]


def small_world(place: Path, data: Path, service: str, month: str) -> ServingWorld:
    """Make a world whose champion learnt from a part of ``month``, and which lets as many requests pass as come."""
    params, path = load_params(), data / "trips" / service / f"{month}.parquet"
    trips = read_trips(path)
    some = trips.sample(min(LEARNT_FROM, len(trips)), random_state=7).sort_values("pickup", ignore_index=True)
    recipe = params.model.model_copy(update=SMALL)
    save_model(fit_model(some, read_zones(data / "zones"), recipe, params.features), place / "fitted")
    world = make_world(place / "world", {1: place / "fitted"}, service=service)
    world.set_params("serve", rate_per_second=1e9, burst=10**9)
    return world


def measure(data: Path, service: str, month: str, most: int | None, batch: int) -> Json:
    """Replay the month, or its first ``most`` trips; return ``replay_result`` and the widest gaps to the batch."""
    trips = read_traffic(data / "trips" / service / f"{month}.parquet", most)
    with tempfile.TemporaryDirectory() as folder:
        world = small_world(Path(folder), data, service, shift_month(month, -1))
        result, log = replay_to(world, trips, month, batch=batch)
        return result | {"gaps": differences(result, log, trips, world.models[1], service, month)}


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--service", default="green")
    parser.add_argument("--month", default="2023-04")
    parser.add_argument("--trips", type=int, help="only the first so many")
    parser.add_argument("--batch", type=int, default=100, help="trips in a request")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    given = parser.parse_args()
    found = measure(given.data, given.service, given.month, given.trips, given.batch)
    print(json.dumps(found, indent=1))
    if given.out:
        write_json(given.out, found)
    gaps = found["gaps"]
    return int(found["failed"] > 0 or gaps["rows"] != 0 or max(gaps.values()) > 1e-6)


if __name__ == "__main__":
    sys.exit(main())
