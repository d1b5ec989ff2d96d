"""The part of a month's acceptance that needs no other month: rows are split, and lie ready until the month is judged.

Whoever splits, the flow itself or a worker of a cluster, leaves the same files; only a judged month counts as on hand.
"""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as arrow
import pyarrow.parquet as parquet

from taxi.config import MonthPaths
from taxi.errors import BadFile
from taxi.figures import FORMAT, month_figures
from taxi.files import read_json, sha256_file, sha256_json, sha256_tree, staged, write_json
from taxi.params import Params
from taxi.schema import check_trips, open_published, read_published, synthetic_mark, take_rows, to_arrow
from taxi.trips import split_trips

_LOG = logging.getLogger(__name__)
FILES = ("trips.parquet", "quarantine.parquet", "split.json")


def _made_from(paths: MonthPaths, params: Params) -> str:
    code = sha256_tree(Path(__file__).parent, "**/*.py")
    return sha256_json([FORMAT, sha256_file(paths.raw), code, params.clean.model_dump(mode="json")])


def _quarantined(path: Path, reasons: pd.Series) -> arrow.Table:
    rows = reasons.index.to_numpy(np.int64)
    whole = take_rows(path, rows).append_column("row", arrow.array(rows))
    return whole.append_column("reason", arrow.array(reasons.to_numpy(), arrow.string()))


def _row_counts(kept: pd.DataFrame, reasons: pd.Series) -> dict[str, Any]:
    counts = {str(name): int(count) for name, count in reasons.value_counts().sort_index().items()}
    return {"raw": len(kept) + len(reasons), "kept": len(kept), "quarantined": len(reasons), "reasons": counts}


def split_month(paths: MonthPaths, params: Params) -> dict[str, Any]:
    """Split the raw month into ``paths.split``: ``trips.parquet``, ``quarantine.parquet``, and what is returned, ``split.json``.

    Returns ``rows`` (counts), ``figures``, ``columns`` as published, and ``synthetic``. Raises BadFile if it cannot be read.
    """
    with open_published(paths.raw) as file:
        published = file.schema_arrow
    rows = read_published(paths.raw, paths.service)
    kept, reasons = split_trips(rows, paths.month, params.clean)
    split = {
        "made_from": _made_from(paths, params),
        "rows": _row_counts(kept, reasons),
        "figures": month_figures(rows, kept, reasons, paths.month),
        "columns": published.names,
        "synthetic": synthetic_mark(published),
    }
    with staged(paths.split) as part:
        part.mkdir()
        parquet.write_table(_quarantined(paths.raw, reasons), part / "quarantine.parquet")
        parquet.write_table(to_arrow(check_trips(kept)), part / "trips.parquet")
        write_json(part / "split.json", split)
    return split


def ready_split(paths: MonthPaths, params: Params) -> dict[str, Any] | None:
    """Return the split that lies ready, if it was made from these bytes by this code; None otherwise."""
    if not all(path.is_file() for path in (paths.raw, *(paths.split / name for name in FILES))):
        return None
    split = dict(read_json(paths.split / "split.json"))
    return split if split["made_from"] == _made_from(paths, params) else None


def split_ahead(paths: MonthPaths, params: Params) -> None:
    """Split the month unless a split lies ready; one that cannot be read is left to those who judge it."""
    try:
        if ready_split(paths, params) is None:
            split_month(paths, params)
    except BadFile as error:
        _LOG.warning("%s %s cannot be split: %s", paths.service, paths.month, error)
