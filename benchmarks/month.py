"""Where the seconds of one month's run go: our own work, and what Prefect, papermill, MLflow and DVC cost on top.

    python -m benchmarks.month --source ../shared/data/tlc --service green --month 2023-03 --window 12 --out build/month.json

The months before are fetched and cleaned first, untimed; then ``taxi run`` is run in a fresh clone of the last commit.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd

from benchmarks.window import ROOT, months_before, places, prepare_months
from taxi.config import NOTEBOOKS
from taxi.files import write_json
from taxi.runs.kernels import warm_up
from taxi.runs.notebooks import run_notebook


def empty_notebook_seconds(place: Path, repeats: int = 5) -> float:
    """Return what a notebook with one empty cell costs (median): kernel, papermill, HTML."""
    cells = [nbformat.v4.new_code_cell("a = 1", metadata={"tags": ["parameters"]}), nbformat.v4.new_code_cell("a")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), place / "empty.ipynb")
    warm_up("taxi.data.acceptance", "taxi.data.fetch", "nbformat")
    runs = [
        run_notebook(place / "empty.ipynb", place / "empty.html", {}, cwd=place).seconds for _ in range(repeats + 1)
    ]
    return float(pd.Series(runs[1:]).median())  # the first waits for the imports


def run_month(source: str, clone: Path, service: str, month: str) -> tuple[float, dict[str, Any]]:
    """Return the wall-clock seconds of ``taxi run`` in ``clone``, and its answer."""
    command = [sys.executable, "-m", "pipelines.cli", "run", "--service", service, "--month", month, "--json"]
    dropped = {"TAXI_DATA", "TAXI_REPORTS", "MLFLOW_TRACKING_URI", "PYTHONDONTWRITEBYTECODE"}
    environment = {name: value for name, value in os.environ.items() if name not in dropped} | {"TAXI_SOURCE": source}
    begun = time.perf_counter()
    done = subprocess.run(command, cwd=clone, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return time.perf_counter() - begun, json.loads(done.stdout.splitlines()[-1])


def divide(wall: float, seconds: dict[str, float], empty: float) -> pd.DataFrame:
    """Return seconds and share by what they went to, with whether it is our own work."""
    notebooks = {name: seconds[name] for name in NOTEBOOKS if name in seconds}
    rows = [
        ("start: imports, Prefect's server, kernels' imports", wall - sum(seconds.values()), False),
        (f"papermill, {len(notebooks)} kernels, HTML", empty * len(notebooks), False),
        ("MLflow: plan and register", seconds["plan"] + seconds["register"], False),
        ("DVC, gallery, artifacts: publish", seconds.get("publish", 0.0), False),
        ("fetch and clean", seconds["fetch"] + seconds["clean"], True),
        *((f"work in {name}", took - empty, True) for name, took in notebooks.items()),
        ("refit of the winner", seconds.get("refit", 0.0), True),
    ]
    table = pd.DataFrame(rows, columns=["what", "seconds", "own work"]).set_index("what")
    return table.assign(share=table["seconds"] / wall)


def main() -> None:
    """Measure one month and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", required=True)
    parser.add_argument("--service", default="green")
    parser.add_argument("--month", default="2023-03")
    parser.add_argument("--window", type=int, default=12)
    parser.add_argument("--out", type=Path, help="JSON file to write")
    given = parser.parse_args()
    source = str(Path(given.source).resolve()) if Path(given.source).exists() else given.source
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "clone"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        remote = f"['remote \"local\"']\n    url = {folder}/dvc\n"
        (clone / ".dvc" / "config.local").write_text(remote, encoding="utf-8")
        earlier = months_before(given.month, given.window)
        months = len(earlier) - len(prepare_months(places(source, clone), given.service, earlier))
        wall, answer = run_month(source, clone, given.service, given.month)
        table = divide(wall, answer["seconds"], empty_notebook_seconds(Path(folder)))
    overhead = float(table.loc[~table["own work"], "share"].sum())
    print(table.to_string(formatters={"seconds": "{:.1f}".format, "share": "{:.0%}".format}))
    print(f"{given.service} {given.month}, {months} months before it: {wall:.1f} s, of which overhead {overhead:.0%}")
    if given.out:
        rows = table.reset_index().to_dict("records")
        write_json(given.out, {"months": months, "seconds": wall, "overhead": overhead, "rows": rows})


if __name__ == "__main__":
    main()
