"""How time and memory grow with trips: ingest, features and fit on synthetic yellow months of at most three million trips.

    python -m benchmarks.scale --rows 100000,1000000,3000000,9000000,36000000 --json

Each size runs in a process of its own; its memory is the largest that it held up to the end of each stage. The exponent is the
slope of log seconds over log trips: 1 is growth in proportion. Making the months is not measured.
"""

import argparse
import json
import resource
import sys
import time
from collections.abc import Sequence
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.child import measure_apart, peak_mb
from benchmarks.window import ROOT, places, prepare_months, prepare_zones, work_folder
from taxi.config import Settings
from taxi.data.source import month_name
from taxi.data.synthetic import write_sample
from taxi.data.zones import read_zones
from taxi.errors import TaxiError
from taxi.files import remove, write_json
from taxi.models.fitting import Tally, assemble, draw_rows, maker_of, plan_draw, tally_month
from taxi.months import month_bounds, shift_month
from taxi.params import load_params
from taxi.registry.provenance import describe_code
from taxi.training.train import month_parts

SIZES = (100_000, 300_000, 1_000_000, 3_000_000, 9_000_000, 18_000_000, 36_000_000)
MONTH_ROWS = 3_000_000
SERVICE, FIRST = "yellow", "2021-01"


def rows_argument(text: str) -> list[int]:
    """Return sizes, comma-separated, smallest first."""
    sizes = sorted({int(one.replace("_", "")) for one in text.split(",")})
    if sizes[0] < 1000:
        raise argparse.ArgumentTypeError(f"expected at least 1,000 trips; got {sizes[0]:,}")
    return sizes


def read_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=rows_argument, default=list(SIZES), help="100000,1000000,…")
    parser.add_argument("--engine", choices=sorted(ENGINES), default="local", help="what computes")
    parser.add_argument(
        "--work", type=Path, help="folder for the synthetic source, kept and used again; else a temporary one"
    )
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--json", action="store_true", help="end stdout with one JSON object")
    return parser.parse_args(arguments)


def plan_months(rows: int) -> tuple[list[str], int]:
    """Return the months for so many trips, and how many trips each has: ``MONTH_ROWS`` at most."""
    count = -(-rows // MONTH_ROWS)
    return [shift_month(FIRST, by) for by in range(count)], -(-rows // count)


def make_source(folder: Path, months: Sequence[str], rows: int) -> None:
    """Write the synthetic months that are not there yet."""
    missing = [month for month in months if not (folder / month_name(SERVICE, month)).is_file()]
    for month in missing:  # one by one, so that a kept folder of a killed run is gone on with
        write_sample(folder, SERVICE, [month], rows)


def run_local(settings: Settings, months: list[str]) -> list[dict[str, Any]]:
    """Ingest, tally and draw, fit; return seconds and peak memory (MB) of each stage, and what it counted."""
    params, stages = load_params(ROOT / "params.yaml"), []
    begun = time.perf_counter()

    def done(stage: str, **counted: int) -> None:
        nonlocal begun
        stages.append({"stage": stage, "seconds": time.perf_counter() - begun, "peak_mb": peak_mb()} | counted)
        begun = time.perf_counter()

    if missing := prepare_months(settings, SERVICE, months):
        raise TaxiError(f"expected every synthetic month to be accepted; {missing}")
    prepare_zones(settings)
    done("ingest")
    parts, as_of = month_parts(settings, SERVICE, months), month_bounds(months[-1])[1]
    maker = maker_of(read_zones(settings.zones), params.model, params.features)
    tally = reduce(Tally.join, (tally_month(part, maker, as_of, params.model.half_life_days) for part in parts))
    draw = plan_draw(tally.days, as_of, params.model)
    maker.restore(tally.sums)
    rows = [draw_rows(part, maker, draw) for part in parts]
    done("features", trips=int(tally.days.sum()))
    model = assemble(maker, rows, tally.days, params.model, params.features)
    done("fit", trips=model.recipe["trips"], boosted_on=model.recipe["boosted_on"])
    return stages


def run_dask(settings: Settings, months: list[str]) -> list[dict[str, Any]]:
    """The same on a cluster of two local workers of one thread; the memory of ``fit`` is that of the larger worker.

    Tallying, drawing and boosting happen there, all in ``fit``.
    """
    import distributed

    from taxi.models.cluster import fit_months_on

    params, begun = load_params(ROOT / "params.yaml"), time.perf_counter()
    if missing := prepare_months(settings, SERVICE, months):
        raise TaxiError(f"expected every synthetic month to be accepted; {missing}")
    prepare_zones(settings)
    stages = [{"stage": "ingest", "seconds": time.perf_counter() - begun, "peak_mb": peak_mb()}]
    parts, as_of = month_parts(settings, SERVICE, months), month_bounds(months[-1])[1]
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        begun, address = time.perf_counter(), cluster.scheduler_address
        zones = read_zones(settings.zones)
        model = fit_months_on(address, settings.data, parts, zones, params.model, params.features, as_of)
        seconds = time.perf_counter() - begun
    counted = {name: model.recipe[name] for name in ("trips", "boosted_on")}
    return [*stages, {"stage": "fit", "seconds": seconds, "peak_mb": peak_mb(resource.RUSAGE_CHILDREN)} | counted]


ENGINES = {"local": run_local, "dask": run_dask}


def exponent(rows: Sequence[float], seconds: Sequence[float]) -> float | None:
    """Return the slope of log seconds over log rows by least squares; None with fewer than two sizes."""
    if len(set(rows)) < 2:
        return None
    return float(np.polyfit(np.log(rows), np.log(seconds), 1)[0])


def exponents(sizes: Sequence[dict[str, Any]]) -> dict[str, dict[str, float | None]]:
    """Return the exponent of each stage and of all, over every size and over those of a million trips or more."""
    found = {}
    for name, least in (("all sizes", 0), ("from a million", 1_000_000)):
        chosen = [one for one in sizes if one["rows"] >= least]
        rows = [one["rows"] for one in chosen]
        per_stage = list(zip(*(one["stages"] for one in chosen), strict=True))
        stages = {same[0]["stage"]: [one["seconds"] for one in same] for same in per_stage}
        total = [one["seconds"] for one in chosen]
        found[name] = {stage: exponent(rows, took) for stage, took in (stages | {"total": total}).items()}
    return found


def measure_size(work: Path, rows: int, engine: str) -> dict[str, Any]:
    """Make a source of so many trips, and return what each stage took on them."""
    months, each = plan_months(rows)
    folder = work / f"source-{each}"
    measure_apart(make_source, folder=folder, months=months, rows=each)
    place = work / "run"
    remove(place)
    measured = measure_apart(ENGINES[engine], settings=places(str(folder), place), months=months)
    remove(place)
    stages = measured.result
    seconds = sum(one["seconds"] for one in stages)
    return {
        "rows": rows,
        "months": len(months),
        "seconds": seconds,
        "rows_per_second": rows / seconds,
        "base_mb": measured.base_mb,
        "peak_mb": measured.peak_mb,
        "stages": stages,
    }


def say_size(one: dict[str, Any]) -> str:
    """Return one size's figures in a line."""
    stages = ", ".join(f"{s['stage']} {s['seconds']:.1f} s ({s['peak_mb']:,.0f} MB)" for s in one["stages"])
    return f"{one['rows']:>12,} trips in {one['months']:>2} months: {one['seconds']:.1f} s, {one['peak_mb']:,.0f} MB; {stages}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the sizes one after the other, print a table, write what is asked for."""
    given, sizes = read_arguments(arguments), []
    with work_folder(given.work) as work:
        for rows in given.rows:
            sizes.append(measure_size(work, rows, given.engine))
            print(say_size(sizes[-1]), file=sys.stderr)
    found = {"engine": given.engine, "service": SERVICE, "code": describe_code(ROOT), "sizes": sizes}
    found["exponents"] = exponents(sizes)
    if given.out:
        write_json(given.out, found)
    print("\n".join(say_size(one) for one in sizes))
    print("Exponent of seconds over trips")
    print(pd.DataFrame(found["exponents"]).T.to_string(float_format="{:.2f}".format, na_rep="-"))
    if given.json:
        print(json.dumps(found, allow_nan=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())
