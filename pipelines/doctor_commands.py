"""``taxi doctor``: what is wrong here, and what crashes have left."""

import json
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from pipelines.local_runs import UnderWay, read_under_way
from pipelines.runtime import prefect_home, prepare_reading, start_prefect
from taxi.config import Settings, load_settings
from taxi.doctor import Check, Finding, as_answer, examine, worst
from taxi.errors import TaxiError
from taxi.reachable import why_unreachable

COLOURS = {"ok": "green", "warn": "yellow", "broken": "red"}


def _under_way(settings: Settings) -> list[UnderWay]:
    """Ask Prefect's server; where none is set, its file, since a server of our own would take many seconds to start."""
    if settings.prefect is None:
        database = prefect_home() / "prefect.db"
        return read_under_way(database) if database.is_file() else []
    if reason := why_unreachable(settings.prefect, "/health"):
        raise TaxiError(reason)
    from pipelines import flow_runs

    return flow_runs.read_under_way()


def find_flow_runs(settings: Settings) -> Finding:
    """Look for flow runs that Prefect takes for under way and whose process is gone."""
    found = _under_way(settings)
    gone = [run.name for run in found if run.alive is False]
    unknown = sum(run.alive is None for run in found)
    more = f"; of {unknown} more that are under way nobody here can say" if unknown else ""
    if not gone:
        return Finding("flow-runs", "ok", f"no flow run is under way in name only{more}")
    said = f"{len(gone)} flow runs are under way in name only, their process is gone: {', '.join(gone[:5])}{more}"
    return Finding(
        "flow-runs", "warn", said, "the next `taxi run` marks them as crashed, or `taxi doctor --repair` now"
    )


def repair_flow_runs(settings: Settings) -> None:
    """Mark them as crashed."""
    start_prefect(settings)()
    from pipelines.flow_runs import mark_crashed

    mark_crashed()


def _show(findings: list[Finding]) -> None:
    table = Table("check", "", "what was found", "what to do", show_lines=False)
    for one in findings:
        word = "repaired" if one.repaired else one.level
        table.add_row(one.name, f"[{COLOURS[one.level]}]{word}[/]", one.says, one.todo)
    Console(width=None if Console().is_terminal else 150).print(table)


def doctor(
    repair: Annotated[
        bool, typer.Option("--repair", help="Also clear away what crashes left, where that is safe.")
    ] = False,
    json_: Annotated[bool, typer.Option("--json", help="End stdout with one JSON object.")] = False,
) -> None:
    """Say what is wrong with this installation and what crashes left; exit 1 if something is broken."""
    from taxi import installation, leftovers

    settings = load_settings()
    prepare_reading()
    runs = Check("flow-runs", find_flow_runs, repair_flow_runs)
    findings = examine([*installation.CHECKS, *leftovers.CHECKS, runs], settings, repair)
    if json_:
        print(json.dumps(as_answer(findings), allow_nan=False), flush=True)
    else:
        _show(findings)
    raise typer.Exit(1 if worst(findings) == "broken" else 0)


def add_to(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command()(doctor)
