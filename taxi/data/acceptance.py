"""Acceptance of a month: it is read, split into kept and refused rows, judged by the month rules, and kept or refused as a whole."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow.parquet as parquet
from pydantic import BaseModel, ConfigDict, Field, computed_field
from typing_extensions import TypedDict

from taxi.config import MonthPaths
from taxi.data.month_rules import ALONE, BESIDE, FORMAT, Figures, RuleFinding, month_figures, row_count, volume_jump
from taxi.data.origin import read_origin
from taxi.data.schema import (
    check_size,
    check_trips,
    open_published,
    quarantine_table,
    read_published,
    synthetic_mark,
    take_rows,
    to_arrow,
)
from taxi.data.trips import split_trips
from taxi.errors import BadFile, MonthRefused, TaxiError
from taxi.files import (
    locked,
    publish,
    read_model,
    remove,
    sha256_file,
    sha256_json,
    staged,
    write_json,
    write_model,
)
from taxi.fingerprint import code_of, hash_path, kept_result
from taxi.months import shift_month
from taxi.params import AcceptParams, Params


class Rows(TypedDict):
    """How many rows were published, kept and put in quarantine, these by reason."""

    raw: int
    kept: int
    quarantined: int
    reasons: dict[str, int]


NO_ROWS: Rows = {"raw": 0, "kept": 0, "quarantined": 0, "reasons": {}}


class Acceptance(BaseModel):
    """What the acceptance rules said of a month: what ``data/acceptance/<service>/<month>.json`` holds.

    ``figures`` are compared with those of other months only where both are of the same ``format``.
    """

    model_config = ConfigDict(frozen=True)

    format: int = Field(1, ge=1, le=FORMAT)
    service: str
    month: str
    status: Literal["accepted", "warned", "refused"]
    rows: Rows
    findings: list[RuleFinding]
    raw_sha256: str | None
    address: str | None
    synthetic: dict[str, Any] | None
    figures: Figures | None
    columns: list[str] = []

    @property
    def counted(self) -> Figures:
        """The figures of a month that was counted; raises TaxiError for one that could not be read as a month."""
        if self.figures is None:
            raise TaxiError(f"{self.service} {self.month} was refused before anything was counted: it has no figures")
        return self.figures

    @property
    def refusals(self) -> list[RuleFinding]:
        """The findings that refuse the month."""
        return [finding for finding in self.findings if finding.level == "refuse"]

    @computed_field  # type: ignore[prop-decorator]
    @property
    def warnings(self) -> list[str]:
        """The findings that warn, as lines to print."""
        return [str(finding) for finding in self.findings if finding.level == "warn"]


def load_acceptance(path: Path) -> Acceptance:
    """Read an acceptance file; raise TaxiError that names it if it is damaged."""
    return read_model(path, Acceptance, "what the acceptance rules said of a month", "Remove it and run `taxi clean`")


def read_acceptance(paths: MonthPaths) -> Acceptance:
    """Read what the acceptance rules said of a month; raise TaxiError that says what to run if there is nothing."""
    if not paths.acceptance.is_file():
        asked = f"--service {paths.service} --month {paths.month}"
        raise TaxiError(f"{paths.service} {paths.month} is not on hand: run `taxi ingest {asked}`")
    return load_acceptance(paths.acceptance)


def read_history(paths: MonthPaths, months: int, synthetic: bool) -> list[Figures]:
    """Return the figures of accepted months among the ``months`` calendar months before this one, oldest first.

    Synthetic months are compared with synthetic ones only. ``adjoins`` says that a month is the one just before.
    """
    earlier = [shift_month(paths.month, -back) for back in range(months, 0, -1)]
    files = [paths.acceptance.with_name(f"{month}.json") for month in earlier]
    judged = [load_acceptance(path) for path in files if path.is_file()]
    return [
        before.figures | {"columns": before.columns, "adjoins": before.month == earlier[-1]}
        for before in judged
        if before.status != "refused"
        and before.figures
        and before.format == FORMAT
        and (before.synthetic is not None) == synthetic
    ]


# --- The part of a month's acceptance that needs no other month: rows are split, and lie ready until the month is judged.
#
# Whoever splits, the flow itself or a worker of a cluster, leaves the same files; only a judged month counts as on hand.

_LOG = logging.getLogger(__name__)
FILES = ("trips.parquet", "quarantine.parquet", "split.json")


def _made_from(paths: MonthPaths, params: Params) -> str:
    return sha256_json([FORMAT, hash_path(paths.raw), code_of(__name__), params.clean.model_dump(mode="json")])


def _row_counts(kept: pd.DataFrame, reasons: pd.Series) -> Rows:
    counts = {str(name): int(count) for name, count in reasons.value_counts().sort_index().items()}
    return {"raw": len(kept) + len(reasons), "kept": len(kept), "quarantined": len(reasons), "reasons": counts}


def split_month(paths: MonthPaths, params: Params) -> dict[str, Any]:
    """Split the raw month into ``paths.split``: ``trips.parquet``, ``quarantine.parquet``, and what is returned, ``split.json``.

    Returns ``rows`` (counts), ``figures``, ``columns`` as published, and ``synthetic``. Raises BadFile if it cannot be read.
    """
    check_size(paths.raw, params.accept)
    with open_published(paths.raw) as file:
        published = file.schema_arrow
    rows = read_published(paths.raw, paths.service)
    kept, reasons = split_trips(rows, paths.month, params.clean)
    split = {
        "fingerprint": _made_from(paths, params),
        "rows": _row_counts(kept, reasons),
        "figures": month_figures(rows, kept, reasons, paths.month),
        "columns": published.names,
        "synthetic": synthetic_mark(published),
    }
    with staged(paths.split) as part:
        part.mkdir()
        refused = take_rows(paths.raw, reasons.index.to_numpy(np.int64))
        parquet.write_table(quarantine_table(refused, reasons), part / "quarantine.parquet")
        parquet.write_table(to_arrow(check_trips(kept)), part / "trips.parquet")
        write_json(part / "split.json", split)
    return split


def ready_split(paths: MonthPaths, params: Params) -> dict[str, Any] | None:
    """Return the split that lies ready, if it was made from these bytes by this code; None otherwise."""
    if not all(path.is_file() for path in (paths.raw, *(paths.split / name for name in FILES))):
        return None
    return kept_result(paths.split / "split.json", _made_from(paths, params))


def split_ahead(paths: MonthPaths, params: Params) -> None:
    """Split the month unless a split lies ready; one that cannot be read is left to those who judge it."""
    try:
        if ready_split(paths, params) is None:
            split_month(paths, params)
    except BadFile as error:
        _LOG.warning("%s %s cannot be split: %s", paths.service, paths.month, error)


def apply_month_rules(figures: Figures, history: Sequence[Figures], accept: AcceptParams) -> list[RuleFinding]:
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


def decide(findings: Sequence[RuleFinding]) -> Literal["accepted", "warned", "refused"]:
    """Return what the findings amount to: accepted, warned (used, with warnings) or refused."""
    levels = {finding.level for finding in findings}
    return "refused" if "refuse" in levels else "warned" if "warn" in levels else "accepted"


def _summary(paths: MonthPaths, findings: Sequence[RuleFinding], **counted: Any) -> Acceptance:
    origin = read_origin(paths.sidecar)
    summary = {
        "format": FORMAT,
        "service": paths.service,
        "month": paths.month,
        "status": decide(findings),
        "rows": NO_ROWS,
        "findings": list(findings),
        "raw_sha256": sha256_file(paths.raw) if paths.raw.is_file() else None,
        "address": origin and origin.address,
        "synthetic": origin and origin.synthetic,
        "figures": None,
    }
    return Acceptance.model_validate(summary | counted)


def _refuse(paths: MonthPaths, summary: Acceptance) -> MonthRefused:
    remove(paths.trips)
    write_model(paths.acceptance, summary)
    return MonthRefused(f"{paths.service} {paths.month} is refused. " + "; ".join(map(str, summary.refusals)))


def refuse_unreadable(paths: MonthPaths, error: BadFile) -> Acceptance:
    """Return the summary of bytes that cannot be read as a month; kept as evidence unless an earlier edition is on hand."""
    summary = _summary(paths, [RuleFinding(error.rule, "refuse", str(error))])
    if not paths.raw.is_file():
        write_model(paths.acceptance, summary)
    return summary


def clean_month(paths: MonthPaths, params: Params) -> Acceptance:
    """Split the raw month into kept trips and quarantine, judge it, and return the summary that is also kept as JSON.

    A split that lies ready (``splitting.split_month``) is taken up. Safe for two processes at once. Raises MonthRefused (for an
    unreadable file too) after the evidence is written; then there is no trips file.
    """
    with locked(paths.data / ".locks" / f"clean-{paths.service}-{paths.month}.lock"):
        try:
            split = ready_split(paths, params) or split_month(paths, params)
        except BadFile as error:
            remove(paths.quarantine)
            raise _refuse(paths, _summary(paths, [RuleFinding(error.rule, "refuse", str(error))])) from error
        return _judged(paths, params, split)


def _judged(paths: MonthPaths, params: Params, split: dict[str, Any]) -> Acceptance:
    rows, figures, columns = split["rows"], split["figures"], split["columns"]
    mark = {} if split["synthetic"] is None else {"synthetic": split["synthetic"]}
    history = read_history(paths, params.accept.history_months, synthetic=bool(mark))
    findings = apply_month_rules(figures | {"columns": columns}, history, params.accept)
    summary = _summary(paths, findings, rows=rows, figures=figures, columns=columns, **mark)
    publish(paths.split / "quarantine.parquet", paths.quarantine)
    if summary.status == "refused":
        remove(paths.split)
        raise _refuse(paths, summary)
    publish(paths.split / "trips.parquet", paths.trips)
    write_model(paths.acceptance, summary)
    remove(paths.split)
    _LOG.info("%s %s: %s of %s rows kept", paths.service, paths.month, f"{rows['kept']:,}", f"{rows['raw']:,}")
    for line in summary.warnings:
        _LOG.warning("%s %s: %s", paths.service, paths.month, line)
    return summary
