"""How accurate ours is, and the peers' recipes on the same trips, month after month, each fitted on months before it only.

    python -m benchmarks.accuracy --source ../shared/data/tlc --service green --months 2023-01:2023-06 --window 12 --json

Minutes throughout. RMSE is of the mean, MAE and the other absolute errors of the median; ``ours_planned`` knows a planned
distance, for which the metered one stands in, and so is no rival of the others. Months that cannot be had are said.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.fold import MODELS, Fold, run_fold
from benchmarks.summary import METRICS, RIVALS, summarise
from benchmarks.window import (
    ROOT,
    months_argument,
    months_before,
    places,
    prepare_months,
    prepare_zones,
    work_folder,
)
from taxi.config import SERVICES, Settings
from taxi.errors import TaxiError
from taxi.files import staged, write_json
from taxi.params import load_params
from taxi.registry.provenance import describe_code

SHOWN = ["rmse", "mae", "medae", "p90", "within5", "coverage80", "width80", "n"]
FORMATS = dict.fromkeys(SHOWN, "{:.3f}".format) | {"n": "{:.0f}".format, "folds": "{:.0f}".format}


def models_argument(text: str) -> list[str]:
    """Return the models named, comma-separated; argparse ends with exit code 2 at an unknown one."""
    names = text.split(",")
    if unknown := [name for name in names if name not in MODELS]:
        raise argparse.ArgumentTypeError(f"expected models among {', '.join(MODELS)}; got {', '.join(unknown)}")
    return names


def read_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accuracy", description=__doc__.splitlines()[0])
    parser.add_argument("--source", required=True, help="folder or address in the TLC's layout")
    parser.add_argument("--service", default="green", choices=SERVICES)
    parser.add_argument("--months", type=months_argument, required=True, help="2023-01:2023-06, or one month")
    parser.add_argument("--window", type=int, default=12, help="months before each that train")
    parser.add_argument("--models", type=models_argument, default=list(MODELS), help=",".join(MODELS))
    parser.add_argument("--work", type=Path, help="folder for fetched and cleaned months, kept; else a temporary one")
    parser.add_argument("--predictions", type=Path, help="Parquet file to write, one row a trip")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--json", action="store_true", help="end stdout with one JSON object")
    return parser.parse_args(arguments)


def plan_folds(
    months: Sequence[str], window: int, missing: dict[str, str]
) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Return the months to predict with the months on hand that train each, and why the others cannot be predicted."""
    folds, skipped = {}, {}
    for month in months:
        there = [one for one in months_before(month, window) if one not in missing]
        if month in missing:
            skipped[month] = missing[month]
        elif not there:
            skipped[month] = f"none of the {window} months before it can be had"
        else:
            folds[month] = there
    return folds, skipped


def show_fold(record: dict[str, Any]) -> None:
    """Print one month's scores and its interval on stderr."""
    table = pd.DataFrame.from_dict(record["scores"], orient="index").reindex(columns=SHOWN)
    print(f"\n{record['month']}: {record['trips']:,} trips, {len(record['window'])} months before it", file=sys.stderr)
    print(table.to_string(formatters=FORMATS, na_rep="-"), file=sys.stderr)
    if "interval" in record:
        print(say_interval(record["interval"], record["worst_slice"]), file=sys.stderr)


def say_interval(found: dict[str, Any], worst: dict[str, Any] | None) -> str:
    """Return one month's interval in a sentence."""
    peer = found["pair_hour"]
    reached = f"cover {peer['coverage']:.1%} at most" if peer["width"] is None else f"{peer['width']:.2f} minutes"
    slice_said = f"; worst slice {worst['slice']} {worst['coverage80']:.1%}" if worst else ""
    return (
        f"interval: {found['coverage']:.1%} covered, {found['width']:.2f} minutes wide; "
        f"zone pair x hour at the same coverage: {reached}{slice_said}"
    )


def slice_table(folds: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Return RMSE and MAE of every model by slice, averaged over the months, with our coverage."""
    rows = [
        {"slice": name, "model": model, "rmse": one["rmse"], "mae": one["mae"], "coverage80": one.get("coverage80")}
        for fold in folds
        for model, table in fold["slices"].items()
        for name, one in table.items()
    ]
    table = (
        pd.DataFrame(rows)
        .astype({"coverage80": float})
        .pivot_table(index="slice", columns="model", values=["rmse", "mae", "coverage80"], aggfunc="mean", sort=False)
    )
    return table.swaplevel(axis=1).sort_index(axis=1)


def show_summary(summary: dict[str, Any], folds: Sequence[dict[str, Any]]) -> None:
    """Print the tables on stdout."""
    table = pd.DataFrame.from_dict(summary["scores"], orient="index").reindex(columns=[*SHOWN, "folds"])
    print(f"Means over {len(folds)} months (minutes)")
    print(table.to_string(formatters=FORMATS, na_rep="-"))
    for rival in RIVALS:
        for metric in METRICS:
            if found := summary["against"][rival][metric]:
                better = f"better in {len(found['better_in'])} of {found['folds']}"
                print(f"ours / {rival}, mean {metric}: {found['ratio']:.4f} ({found['ratio'] - 1:+.2%}), {better}")
    if found := summary.get("interval"):
        low, high = found["coverage"]
        ratio = "-" if found["width_ratio"] is None else f"{found['width_ratio']:.3f}"
        print(f"interval: {low:.1%} to {high:.1%} covered by month, worst large slice {found['worst_slice']}")
        print(f"interval: {found['width']:.2f} minutes wide; over zone pair x hour at the same coverage: {ratio}")
    print("\nBy slice, means over months")
    print(slice_table(folds).to_string(float_format="{:.2f}".format, na_rep="-"))


def write_predictions(path: Path, folds: Sequence[Fold]) -> None:
    """Write all folds' predictions as one Parquet file, whole or not at all."""
    whole = pd.concat([fold.predictions for fold in folds], ignore_index=True)
    with staged(path) as part:
        whole.to_parquet(part, index=False)


def measure(settings: Settings, given: argparse.Namespace) -> tuple[dict[str, Any], list[Fold]]:
    """Prepare the months, run the folds, and return the whole record with the folds; raise TaxiError if there is no fold."""
    needed = {one for month in given.months for one in (*months_before(month, given.window), month)}
    missing = prepare_months(settings, given.service, sorted(needed))
    prepare_zones(settings)
    planned, skipped = plan_folds(given.months, given.window, missing)
    if not planned:
        raise TaxiError(f"expected at least one month to predict; there is none: {skipped}")
    params, folds = load_params(ROOT / "params.yaml"), []
    for month, window in planned.items():
        folds.append(run_fold(settings, given.service, month, window, given.models, params))
        show_fold(folds[-1].record)
    records = [fold.record for fold in folds]
    return {
        "service": given.service,
        "window": given.window,
        "missing": missing,
        "skipped": skipped,
        "code": describe_code(ROOT),
        "summary": summarise(records),
        "folds": records,
    }, folds


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the tables, write what is asked for; return 1 where no month could be predicted."""
    given = read_arguments(arguments)
    try:
        with work_folder(given.work) as work:
            found, folds = measure(places(given.source, work), given)
    except TaxiError as error:
        print(error, file=sys.stderr)
        return 1
    if given.predictions:
        write_predictions(given.predictions, folds)
    if given.out:
        write_json(given.out, found)
    show_summary(found["summary"], found["folds"])
    if given.json:
        print(json.dumps(found, allow_nan=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())
