"""Whether a month as a whole may be used: it is read, split, judged by the month rules, and kept or refused."""

import logging
from collections.abc import Sequence
from typing import Any

from taxi.comparisons import BESIDE, row_count, volume_jump
from taxi.config import MonthPaths
from taxi.errors import BadFile, MonthRefused
from taxi.figures import FORMAT, Figures, read_history
from taxi.files import locked, publish, read_json, remove, sha256_file, write_json
from taxi.params import AcceptParams, Params
from taxi.rules import ALONE, Finding
from taxi.splitting import ready_split, split_month

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


def refuse_unreadable(paths: MonthPaths, error: BadFile) -> dict[str, Any]:
    """Return the summary of bytes that cannot be read as a month; kept as evidence unless an earlier edition is on hand."""
    summary = _summary(paths, [Finding(error.rule, "refuse", str(error))])
    if not paths.raw.is_file():
        write_json(paths.acceptance, summary)
    return summary


def clean_month(paths: MonthPaths, params: Params) -> dict[str, Any]:
    """Split the raw month into kept trips and quarantine, judge it, and return the summary that is also kept as JSON.

    A split that lies ready (``splitting.split_month``) is taken up. Safe for two processes at once. Raises MonthRefused (for an
    unreadable file too) after the evidence is written; then there is no trips file.
    """
    with locked(paths.data / ".locks" / f"clean-{paths.service}-{paths.month}.lock"):
        try:
            split = ready_split(paths, params) or split_month(paths, params)
        except BadFile as error:
            remove(paths.quarantine)
            raise _refuse(paths, _summary(paths, [Finding(error.rule, "refuse", str(error))])) from error
        return _judged(paths, params, split)


def _judged(paths: MonthPaths, params: Params, split: dict[str, Any]) -> dict[str, Any]:
    rows, figures, columns = split["rows"], split["figures"], split["columns"]
    mark = {} if split["synthetic"] is None else {"synthetic": split["synthetic"]}
    history = read_history(paths, params.accept.history_months, synthetic=bool(mark))
    findings = judge_month(figures | {"columns": columns}, history, params.accept)
    summary = _summary(paths, findings, rows=rows, figures=figures, columns=columns, **mark)
    publish(paths.split / "quarantine.parquet", paths.quarantine)
    if summary["status"] == "refused":
        remove(paths.split)
        raise _refuse(paths, summary)
    publish(paths.split / "trips.parquet", paths.trips)
    write_json(paths.acceptance, summary)
    remove(paths.split)
    _LOG.info("%s %s: %s of %s rows kept", paths.service, paths.month, f"{rows['kept']:,}", f"{rows['raw']:,}")
    for line in summary["warnings"]:
        _LOG.warning("%s %s: %s", paths.service, paths.month, line)
    return summary
