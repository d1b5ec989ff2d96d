"""What becomes of mutated months: judges the catalogue beside three good months, and prints docs/acceptance.md."""

import io
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as parquet

from taxi.config import MonthPaths
from taxi.data.acceptance import Acceptance, clean_month, read_acceptance
from taxi.errors import MonthRefused
from taxi.params import load_params
from tests.support.catalogue import MUTATIONS, Mutation
from tests.support.changes import HISTORY, MONTH, Frame


@dataclass(frozen=True)
class Outcome:
    """What became of a mutated month: its acceptance summary, and the reason of each quarantined row."""

    summary: Acceptance
    reasons: pd.Series

    @property
    def refused_by(self) -> list[str]:
        """Return the month rules that refuse it."""
        return [finding.rule for finding in self.summary.refusals]


def keep_history(data: Path, months: dict[str, Frame]) -> None:
    """Clean the months before, so that their acceptance files are the history of what follows."""
    for month, frame in months.items():
        paths = MonthPaths(data, data / "reports", "green", month)
        paths.raw.parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(pa.Table.from_pandas(frame, preserve_index=False), paths.raw)
        clean_month(paths, load_params())


def mutate(mutation: Mutation, frame: Frame) -> tuple[bytes, np.ndarray]:
    """Return the mutated month's bytes, and which of its rows the mutation touched."""
    changed = mutation.frame(frame) if mutation.frame else frame
    changed.attrs["rows"] = len(frame)
    touched = mutation.rows(changed) if mutation.rows else np.ones(len(changed), dtype=bool)
    changed.attrs.clear()
    with io.BytesIO() as stream:
        parquet.write_table(pa.Table.from_pandas(changed, preserve_index=False), stream)
        raw = stream.getvalue()
    return mutation.data(raw) if mutation.data else raw, touched


def judge(raw: bytes, data: Path) -> Outcome:
    """Clean a month's bytes beside the history in ``data``; a refused month is an outcome, not an error."""
    paths = MonthPaths(data, data / "reports", "green", MONTH)
    paths.raw.write_bytes(raw)
    try:
        clean_month(paths, load_params())
    except MonthRefused:
        assert not paths.trips.exists()
    there = paths.quarantine.is_file()
    quarantine = parquet.read_table(paths.quarantine, columns=["row", "reason"]).to_pandas() if there else None
    reasons = pd.Series(dtype=str) if quarantine is None else quarantine.set_index("row")["reason"]
    return Outcome(read_acceptance(paths), reasons)


def is_caught(mutation: Mutation, outcome: Outcome, touched: np.ndarray) -> bool:
    """Tell whether the mutation's rule refused the month, or quarantined the touched rows.

    Of real rows a few were bad before they were touched: all must be quarantined, nine in ten of them by the rule.
    """
    if mutation.rows is None:
        return mutation.rule in outcome.refused_by
    reasons = outcome.reasons.reindex(np.flatnonzero(touched))
    return bool(reasons.notna().all() and (reasons == mutation.rule).mean() > 0.9)


def as_line(mutation: Mutation, outcome: Outcome, caught: bool) -> str:
    """Return the mutation's line of the table: what became of it, and the rules that named it."""
    what = "rows quarantined" if mutation.rows else "month refused"
    rules = [mutation.rule, *(rule for rule in outcome.refused_by if rule != mutation.rule)]
    named = ", ".join(f"`{rule}`" for rule in rules)
    return f"| {mutation.name} | {what} | {named} |" if caught else f"| {mutation.name} | **not caught** | |"


HEADING = f"""# What the acceptance rules catch

Made by `python -m tests.support.mutations > docs/acceptance.md` from the publisher's green {MONTH}, mutated in one way a line,
with {", ".join(HISTORY)} as its history. The first rule of a line is the one that `tests/data/test_mutations.py`
demands; those after it refuse the month too. A month rule refuses the whole month (exit code 4); a row rule quarantines
the rows that the mutation touched. The rules are in `taxi/data/schema.py` (files), `taxi/data/trips.py` and `taxi/data/clock.py`
(rows), `taxi/data/month_rules.py` (months); their limits are in `params.yaml`.

| mutation | what becomes of it | named by |
| --- | --- | --- |"""


def table_lines(months: dict[str, Frame]) -> list[str]:
    """Judge every mutation of ``MONTH`` beside the other months; return the table's lines."""
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        keep_history(Path(folder), {month: frame for month, frame in months.items() if month != MONTH})
        for mutation in MUTATIONS:
            raw, touched = mutate(mutation, months[MONTH])
            outcome = judge(raw, Path(folder))
            lines.append(as_line(mutation, outcome, is_caught(mutation, outcome, touched)))
    return lines


def document(source: Path) -> str:
    """Return docs/acceptance.md, made from the publisher's months in ``source``."""
    files = {month: source / f"trip-data/green_tripdata_{month}.parquet" for month in (*HISTORY, MONTH)}
    return "\n".join([HEADING, *table_lines({month: pd.read_parquet(path) for month, path in files.items()})]) + "\n"


if __name__ == "__main__":
    sys.stdout.write(document(Path(sys.argv[1] if len(sys.argv) > 1 else "../shared/data/tlc")))
