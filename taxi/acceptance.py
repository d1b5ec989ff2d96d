"""Whether a month as a whole may be used: it is read, split, judged by the month rules, and kept or refused."""

import logging
from collections.abc import Sequence
from typing import Any

import pandas as pd
import pyarrow as arrow
import pyarrow.parquet as parquet

from taxi.comparisons import BESIDE, row_count, volume_jump
from taxi.config import MonthPaths
from taxi.errors import BadFile, MonthRefused
from taxi.figures import FORMAT, Figures, month_figures, read_history
from taxi.files import read_json, remove, sha256_file, staged, write_json
from taxi.params import AcceptParams, Params
from taxi.rules import ALONE, Finding
from taxi.schema import canonical_columns, check_trips, read_table, synthetic_mark, to_arrow
from taxi.trips import split_trips

_LOG = logging.getLogger(__name__)


def judge_month(figures: Figures, history: Sequence[Figures], accept: AcceptParams) -> list[Finding]:
    """Return every rule's finding; ``history`` holds the figures of accepted months before, oldest first, or none."""
    found = [row_count(figures, history, accept)]
    if not figures["raw"]:
        return found
    compared = BESIDE if history and figures["kept"] else ()
    for judge in (*ALONE, *compared):
        said = judge(figures, history, accept)
        found += said if isinstance(said, list) else [said]
    if compared and history[-1]["adjoins"]:
        found.append(volume_jump(figures, history, accept))
    return found


def decide(findings: Sequence[Finding]) -> str:
    """Return what the findings amount to: accepted, warned (used, with warnings) or refused."""
    levels = {finding.level for finding in findings}
    return "refused" if "refuse" in levels else "warned" if "warn" in levels else "accepted"


def _summary(paths: MonthPaths, findings: Sequence[Finding], **more: Any) -> dict[str, Any]:
    source = read_json(paths.sidecar) if paths.sidecar.is_file() else {}
    return {
        "format": FORMAT,
        "service": paths.service,
        "month": paths.month,
        "status": decide(findings),
        "rows": {"raw": 0, "kept": 0, "quarantined": 0, "reasons": {}},
        "findings": [finding.as_dict() for finding in findings],
        "warnings": [f"{finding.rule}: {finding.message}" for finding in findings if finding.level == "warn"],
        "raw_sha256": sha256_file(paths.raw) if paths.raw.is_file() else None,
        "address": source.get("address"),
        "synthetic": source.get("synthetic"),
        "figures": None,
        "columns": [],
    } | more


def _refuse(paths: MonthPaths, summary: dict[str, Any]) -> MonthRefused:
    remove(paths.trips)
    write_json(paths.acceptance, summary)
    broken = [f"{one['rule']}: {one['message']}" for one in summary["findings"] if one["level"] == "refuse"]
    return MonthRefused(f"{paths.service} {paths.month} is refused. " + "; ".join(broken))


def _quarantine(table: arrow.Table, reasons: pd.Series, paths: MonthPaths) -> None:
    rows = arrow.array(reasons.index.to_numpy(), arrow.int64())
    whole = table.take(rows).append_column("row", rows)
    with staged(paths.quarantine) as part:
        parquet.write_table(whole.append_column("reason", arrow.array(reasons.to_numpy(), arrow.string())), part)


def _row_counts(kept: pd.DataFrame, reasons: pd.Series) -> dict[str, Any]:
    counts = {str(name): int(count) for name, count in reasons.value_counts().sort_index().items()}
    return {"raw": len(kept) + len(reasons), "kept": len(kept), "quarantined": len(reasons), "reasons": counts}


def refuse_unreadable(paths: MonthPaths, error: BadFile) -> dict[str, Any]:
    """Return the summary of bytes that cannot be read as a month; kept as evidence unless an earlier edition is on hand."""
    summary = _summary(paths, [Finding(error.rule, "refuse", str(error))])
    if not paths.raw.is_file():
        write_json(paths.acceptance, summary)
    return summary


def clean_month(paths: MonthPaths, params: Params) -> dict[str, Any]:
    """Split the raw month into kept trips and quarantine, judge it, and return the summary that is also kept as JSON.

    Raises MonthRefused (for an unreadable file too) after the evidence is written; then there is no trips file.
    """
    try:
        table = read_table(paths.raw)
        rows = canonical_columns(table, paths.service)
    except BadFile as error:
        remove(paths.quarantine)
        raise _refuse(paths, _summary(paths, [Finding(error.rule, "refuse", str(error))])) from error
    kept, reasons = split_trips(rows, paths.month, params.clean)
    mark = {} if (mark := synthetic_mark(table)) is None else {"synthetic": mark}
    figures = month_figures(rows, kept, reasons, paths.month)
    history = read_history(paths, params.accept.history_months, synthetic=bool(mark))
    findings = judge_month(figures | {"columns": table.column_names}, history, params.accept)
    counts = _row_counts(kept, reasons)
    summary = _summary(paths, findings, rows=counts, figures=figures, columns=table.column_names, **mark)
    _quarantine(table, reasons, paths)
    if summary["status"] == "refused":
        raise _refuse(paths, summary)
    with staged(paths.trips) as part:
        parquet.write_table(to_arrow(check_trips(kept)), part)
    write_json(paths.acceptance, summary)
    _LOG.info("%s %s: %s of %s rows kept", paths.service, paths.month, f"{counts['kept']:,}", f"{counts['raw']:,}")
    for line in summary["warnings"]:
        _LOG.warning("%s %s: %s", paths.service, paths.month, line)
    return summary
