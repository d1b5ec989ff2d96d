"""Whether a month as a whole may be used: figures of the month, rules over them, and the split files they decide on."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as arrow
import pyarrow.parquet as parquet

from taxi import rules
from taxi.config import MonthPaths, Params
from taxi.errors import BadFile, MonthRefused
from taxi.files import read_json, remove, sha256_file, staged, write_json
from taxi.months import days_in_month, shift_month
from taxi.rules import Finding
from taxi.schema import canonical_columns, check_trips, new_columns, read_table, to_arrow
from taxi.trips import split_trips

_LOG = logging.getLogger(__name__)


def month_figures(rows: pd.DataFrame, kept: pd.DataFrame, reasons: pd.Series, month: str) -> dict[str, Any]:
    """Return what the month rules look at: shares of 1, medians in minutes, miles and miles per hour, rows by day and hour."""
    raw = len(rows)
    counts = reasons.value_counts()
    speed = kept["trip_distance"] / kept["duration"] * 60
    by_day = kept["pickup"].dt.day.value_counts()
    by_hour = kept["pickup"].dt.hour.value_counts(normalize=True)
    zones = pd.concat([kept["PULocationID"], kept["DOLocationID"]]).value_counts(normalize=True)
    return {
        "raw": raw,
        "kept": len(kept),
        "kept_share": len(kept) / raw if raw else 0.0,
        "reason_shares": {str(name): count / raw for name, count in counts.items()},
        "null_share": _or_none(kept["null_block"].mean()),
        "median_minutes": _or_none(kept["duration"].median()),
        "median_miles": _or_none(kept["trip_distance"].median()),
        "median_mph": _or_none(speed[~kept["distance_suspect"]].median()),
        "missing_shares": {name: float(kept[name].isna().mean()) for name in rules.WATCHED} if len(kept) else {},
        "by_day": [int(by_day.get(day, 0)) for day in range(1, days_in_month(month) + 1)],
        "by_hour": [round(float(by_hour.get(hour, 0)), 6) for hour in range(24)],
        "zones": {str(zone): round(float(share), 6) for zone, share in sorted(zones.items())},
    }


def _or_none(value: float) -> float | None:
    return None if pd.isna(value) else float(value)


def read_history(paths: MonthPaths, months: int) -> list[dict[str, Any]]:
    """Return the figures of accepted months among the ``months`` calendar months before this one, oldest first."""
    earlier = [shift_month(paths.month, -back) for back in range(months, 0, -1)]
    files = [paths.acceptance.with_name(f"{month}.json") for month in earlier]
    kept = [read_json(path) for path in files if path.is_file()]
    last = shift_month(paths.month, -1)
    return [
        one["figures"] | {"columns": one["columns"], "adjoins": one["month"] == last}
        for one in kept
        if one["status"] != "refused"
    ]


def _quarantine(table: arrow.Table, reasons: pd.Series, path: Path) -> None:
    taken = table.take(arrow.array(reasons.index.to_numpy()))
    whole = taken.append_column("row", arrow.array(reasons.index.to_numpy(), arrow.int64()))
    with staged(path) as part:
        parquet.write_table(whole.append_column("reason", arrow.array(reasons.to_numpy(), arrow.string())), part)


def _summary(paths: MonthPaths, findings: Sequence[Finding], **more: Any) -> dict[str, Any]:
    levels = {finding.level for finding in findings}
    status = "refused" if "refuse" in levels else "warned" if "warn" in levels else "accepted"
    source = read_json(paths.sidecar) if paths.sidecar.is_file() else {}
    return {
        "service": paths.service,
        "month": paths.month,
        "status": status,
        "rows": {"raw": 0, "kept": 0, "quarantined": 0, "reasons": {}},
        "findings": [finding.as_dict() for finding in findings],
        "warnings": [finding.message for finding in findings if finding.level == "warn"],
        "raw_sha256": sha256_file(paths.raw),
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


def clean_month(paths: MonthPaths, params: Params) -> dict[str, Any]:
    """Split the raw month into kept trips and quarantine, judge it, and return the summary that is also kept as JSON.

    Raises MonthRefused (BadFile included) after the evidence is written; then there is no trips file.
    """
    try:
        table = read_table(paths.raw)
        rows = canonical_columns(table, paths.service)
    except BadFile as error:
        remove(paths.quarantine)
        raise _refuse(paths, _summary(paths, [Finding(error.rule, "refuse", str(error))])) from error
    kept, reasons = split_trips(rows, paths.month, params.clean)
    figures = month_figures(rows, kept, reasons, paths.month)
    history = read_history(paths, params.accept.history_months)
    findings = rules.judge_month(figures, history, params.accept)
    added = new_columns(table, history[-1]["columns"] if history else [])
    if added:
        findings.append(Finding("new-columns", "warn", f"columns that earlier months did not have: {', '.join(added)}"))
    counts = {str(name): int(count) for name, count in reasons.value_counts().sort_index().items()}
    counted = {"raw": len(rows), "kept": len(kept), "quarantined": len(reasons), "reasons": counts}
    summary = _summary(paths, findings, rows=counted, figures=figures, columns=table.column_names)
    _quarantine(table, reasons, paths.quarantine)
    if summary["status"] == "refused":
        raise _refuse(paths, summary)
    with staged(paths.trips) as part:
        parquet.write_table(to_arrow(check_trips(kept)), part)
    write_json(paths.acceptance, summary)
    _LOG.info("%s %s: %s of %s rows kept", paths.service, paths.month, f"{len(kept):,}", f"{len(rows):,}")
    for line in summary["warnings"]:
        _LOG.warning("%s %s: %s", paths.service, paths.month, line)
    return summary
