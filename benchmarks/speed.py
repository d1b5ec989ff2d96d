"""How fast and how large: reading to features, fit, predict, one trip; ours beside the peers' ways on the same rows.

    python -m benchmarks.speed --source ../shared/data/tlc --service green --month 2023-03 --window 12 --json

Every measurement has a process of its own. What compares is the ratios of one run: machines differ and are noisy.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.child import Measured, measure_apart
from benchmarks.ways import PREPARE, fit_ours, fit_zc, predict_batch, predict_singly, prepare
from benchmarks.window import ROOT, months_before, places, prepare_months, prepare_zones, work_folder
from taxi.config import SERVICES, Settings
from taxi.errors import TaxiError
from taxi.files import write_json
from taxi.months import parse_month
from taxi.registry.provenance import describe_code

SPOKEN = {False: "at pickup", True: "with planned distance"}


def read_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__.splitlines()[0])
    parser.add_argument("--source", required=True, help="folder or address in the TLC's layout")
    parser.add_argument("--service", default="green", choices=SERVICES)
    parser.add_argument("--month", default="2023-03", type=parse_month, help="month to predict; those before it train")
    parser.add_argument("--window", type=int, default=12, help="months that are prepared, and that ours is fitted on")
    parser.add_argument("--peer-months", type=int, default=2, help="months that the peer is fitted on")
    parser.add_argument("--repeats", type=int, default=3, help="of each preparation; the fastest counts")
    parser.add_argument("--calls", type=int, default=5000, help="single trips")
    parser.add_argument("--work", type=Path, help="folder for fetched and cleaned months, kept; else a temporary one")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--json", action="store_true", help="end stdout with one JSON object")
    return parser.parse_args(arguments)


def measure_preparing(settings: Settings, service: str, months: list[str], repeats: int) -> dict[str, Any]:
    """Return rows a second and peak memory of each way from published rows to a matrix, and ours as a multiple of the others."""
    tries: dict[str, list[Measured]] = {name: [] for name in PREPARE}
    for _ in range(repeats):  # the ways by turns: a slow quarter of an hour is every way's
        for name, done in tries.items():
            done.append(measure_apart(prepare, settings=settings, service=service, months=months, way=name))
    found = {}
    for name, done in tries.items():
        best = min(done, key=lambda one: one.result["seconds"])  # what else the machine does only ever adds
        found[name] = best.as_dict() | best.result | {"rows_per_second": best.result["rows"] / best.result["seconds"]}
    ours = found["ours"]["rows_per_second"]
    times = {name: ours / one["rows_per_second"] for name, one in found.items() if name != "ours"}
    return {"months": months, "ways": found, "ours_times_as_fast_as": times}


def measure_fits(settings: Settings, given: argparse.Namespace, window: list[str], models: Path) -> dict[str, Any]:
    """Return seconds, trips and peak memory of our fits and of the peer's, and ours over the peer's seconds."""
    found = {}
    for planned, spoken in SPOKEN.items():
        folder = models / str(planned)
        one = measure_apart(
            fit_ours, settings=settings, service=given.service, months=window, planned=planned, folder=folder
        )
        name = f"ours {spoken}" if not planned else "ours, both models"
        found[name] = one.as_dict() | {"trips": one.result["trips"], "seconds": one.seconds - one.result["saving"]}
    recent = window[-given.peer_months :]
    peer = measure_apart(fit_zc, settings=settings, service=given.service, months=recent, asked=given.month)
    found["zc_xgboost"] = peer.as_dict() | peer.result | {"seconds": peer.seconds - peer.result["after"]}
    ratios = {
        name: {
            "reading included": one["seconds"] / found["zc_xgboost"]["seconds"],
            "against boosting alone": one["seconds"] / peer.result["boosting"],
        }
        for name, one in found.items()
        if name != "zc_xgboost"
    }
    return {"months": len(window), "peer_months": recent, "fits": found, "ours_over_zc_xgboost": ratios}


def measure_predicting(
    settings: Settings, given: argparse.Namespace, models: Path, peer: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return trips a second of whole months, and milliseconds of single trips with how far they are from the batch."""
    batch, single, peer_speed = {}, {}, peer["asked"] / peer["predicting"]
    for planned, spoken in SPOKEN.items():
        asked = {"settings": settings, "service": given.service, "month": given.month, "planned": planned}
        one = measure_apart(predict_batch, **asked, folder=models / "True")
        speed = one.result["asked"] / one.result["predicting"]
        batch[f"ours {spoken}"] = one.result | {
            "peak_mb": one.peak_mb,
            "trips_per_second": speed,
            "times_zc": speed / peer_speed,
        }
        singly = measure_apart(predict_singly, **asked, folder=models / "True", calls=given.calls, frames=200)
        single[spoken] = singly.result | {"peak_mb": singly.peak_mb}
    batch["zc_xgboost"] = {"asked": peer["asked"], "predicting": peer["predicting"], "trips_per_second": peer_speed}
    return batch, single


def measure(settings: Settings, given: argparse.Namespace, models: Path) -> dict[str, Any]:
    """Prepare the months and measure all; raise TaxiError where a month that is needed cannot be had."""
    window = months_before(given.month, given.window)
    wanted = [*window, given.month]
    missing = measure_apart(prepare_months, settings=settings, service=given.service, months=wanted).result
    prepare_zones(settings)
    there = [month for month in window if month not in missing]
    if given.month in missing or len(there) < given.peer_months:
        raise TaxiError(f"expected {given.month} and {given.peer_months} months before it; missing are {missing}")
    preparing = measure_preparing(settings, given.service, there, given.repeats)
    fits = measure_fits(settings, given, there, models)
    batch, single = measure_predicting(settings, given, models, fits["fits"]["zc_xgboost"])
    head = {"service": given.service, "month": given.month, "missing": missing, "code": describe_code(ROOT)}
    return head | {"prepare": preparing, "fit": fits, "predict": batch, "single": single}


def show(found: dict[str, Any]) -> None:
    """Print the tables."""
    prepare, fits = found["prepare"], found["fit"]
    print(f"Published rows to features ({prepare['months'][0]} to {prepare['months'][-1]})")
    print(pd.DataFrame(prepare["ways"]).T.to_string(float_format="{:,.1f}".format))
    for name, times in prepare["ours_times_as_fast_as"].items():
        print(f"ours is {times:.1f} times as fast as {name}")
    print(f"\nFit: ours on {fits['months']} months, the peer on {len(fits['peer_months'])}")
    print(
        pd.DataFrame(fits["fits"])
        .T.reindex(columns=["trips", "seconds", "boosting", "peak_mb"])
        .to_string(na_rep="-", float_format="{:,.1f}".format)
    )
    for name, ratio in fits["ours_over_zc_xgboost"].items():
        print(f"{name} / zc_xgboost: " + ", ".join(f"{one:.2f} ({how})" for how, one in ratio.items()))
    print("\nA month at once")
    print(pd.DataFrame(found["predict"]).T.to_string(na_rep="-", float_format="{:,.2f}".format))
    print("\nOne trip at a time")
    for spoken, one in found["single"].items():
        fast, frame = one["fast"], one["frame"]
        print(
            f"{spoken}: median {fast['median_ms']:.3f} ms, 99 % {fast['p99_ms']:.3f} ms over {fast['calls']:,} calls; "
            f"a frame of one row {frame['median_ms']:.2f} ms ({frame['median_ms'] / fast['median_ms']:.0f} times); "
            f"largest difference {one['largest_difference_minutes']:.1e} minutes"
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the tables, write what is asked for; return 1 where the months cannot be had."""
    given = read_arguments(arguments)
    try:
        with work_folder(given.work) as work:
            found = measure(places(given.source, work), given, work / "speed-models")
    except TaxiError as error:
        print(error, file=sys.stderr)
        return 1
    if given.out:
        write_json(given.out, found)
    show(found)
    if given.json:
        print(json.dumps(found, allow_nan=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())
