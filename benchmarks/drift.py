"""How long a comparison of a month of three million trips with the months before takes; the limit is a minute.

python -m benchmarks.drift --rows 3000000
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.child import measure_apart
from benchmarks.window import ROOT, places, prepare_months, prepare_zones
from taxi.data.schema import read_trips
from taxi.data.synthetic import write_sample
from taxi.data.zones import read_zones
from taxi.files import write_json
from taxi.monitoring.drift import compare_months, describe_inputs
from taxi.params import load_params

SERVICE, MONTH = "green", "2024-01"
LIMIT_SECONDS = 60.0


def compare_many(trips: pd.DataFrame, zones: pd.DataFrame, rows: int) -> list[str]:
    """Compare trips with ``rows`` drawn from them; return the columns that drifted, which should be none."""
    many = trips.iloc[np.random.default_rng(1).integers(0, len(trips), rows)].reset_index(drop=True)
    usual, current = (describe_inputs(one, zones, one["duration"]) for one in (trips, many))
    table = compare_months(usual, current, load_params(ROOT / "params.yaml").monitor).table
    return list(table.index[table["drifted"]])


def measure(rows: int, folder: Path) -> dict[str, Any]:
    """Return seconds, peak memory (MB) and the drifted columns of one comparison."""
    write_sample(folder / "source", SERVICE, [MONTH], 20_000)
    settings = places(str(folder / "source"), folder)
    prepare_months(settings, SERVICE, [MONTH])
    prepare_zones(settings)
    trips, zones = read_trips(settings.month(SERVICE, MONTH).trips), read_zones(settings.zones)
    one = measure_apart(compare_many, trips=trips, zones=zones, rows=rows)
    return {"rows": rows, "limit_seconds": LIMIT_SECONDS, "drifted": one.result} | one.as_dict()


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; return 1 where it took longer than the limit, or trips have drifted from themselves."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.drift", description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=3_000_000)
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--json", action="store_true", help="end stdout with one JSON object")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        found = measure(given.rows, Path(folder))
    if given.out:
        write_json(given.out, found)
    print(
        f"{found['rows']:,} trips compared in {found['seconds']:.1f} s, {found['peak_mb']:,.0f} MB; drifted: {found['drifted'] or 'none'}"
    )
    if given.json:
        print(json.dumps(found, allow_nan=False))
    return int(found["seconds"] > LIMIT_SECONDS or bool(found["drifted"]))


if __name__ == "__main__":
    sys.exit(main())
