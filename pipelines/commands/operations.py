"""Commands ``taxi doctor``, ``maturity``, ``database``, ``backup``, ``prune`` and ``erase``."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.commands.options import AsJson, Service, answer
from pipelines.runtime import prepare_reading
from taxi.config import Settings, find_root, load_settings
from taxi.errors import TaxiError

if TYPE_CHECKING:
    from taxi.operations.doctor import Diagnosis
    from taxi.operations.maturity import Cell

app = typer.Typer()

COLOURS = {"ok": "green", "warn": "yellow", "broken": "red"}


def find_flow_runs(settings: Settings) -> "Diagnosis":
    """Look for flow runs that Prefect's server takes for under way and whose process is gone."""
    from taxi.addresses import why_unreachable
    from taxi.operations.doctor import Diagnosis

    if settings.prefect is None:
        said = (
            "not looked at, since no server is set: the next run that has work to do marks those whose process is gone"
        )
        return Diagnosis("flow-runs", "ok", said)
    if reason := why_unreachable(settings.prefect, "/health"):
        raise TaxiError(reason)
    from pipelines.flow_runs import read_under_way  # imports Prefect

    found = read_under_way()
    gone = [run.name for run in found if run.alive is False]
    unknown = sum(run.alive is None for run in found)
    more = f"; of {unknown} more that are under way nobody here can say" if unknown else ""
    if not gone:
        return Diagnosis("flow-runs", "ok", f"no flow run is under way in name only{more}")
    said = f"{len(gone)} flow runs are under way in name only, their process is gone: {', '.join(gone[:5])}{more}"
    todo = "the next run that has work to do marks them as crashed, or `taxi doctor --repair` now"
    return Diagnosis("flow-runs", "warn", said, todo)


def repair_flow_runs(settings: Settings) -> None:
    """Mark them as crashed."""
    from pipelines.flow_runs import mark_crashed

    mark_crashed()


def _show_doctor(findings: list["Diagnosis"]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("check", "", "what was found", "what to do", show_lines=False)
    for one in findings:
        word = "repaired" if one.repaired else one.level
        table.add_row(one.name, f"[{COLOURS[one.level]}]{word}[/]", one.says, one.todo)
    Console(width=None if Console().is_terminal else 150).print(table)


@app.command()
def doctor(
    repair: Annotated[
        bool, typer.Option("--repair", help="Also clear away what crashes left, where that is safe.")
    ] = False,
    json_: AsJson = False,
) -> None:
    """Say what is wrong with this installation and what crashes left; exit 1 if something is broken."""
    from taxi.operations import doctor, leftovers
    from taxi.operations.doctor import Probe, as_answer, examine, worst

    settings = load_settings()
    prepare_reading()
    runs = Probe("flow-runs", find_flow_runs, repair_flow_runs)
    findings = examine([*doctor.CHECKS, *leftovers.CHECKS, runs], settings, repair)
    if json_:
        print(json.dumps(as_answer(findings), allow_nan=False), flush=True)
    else:
        _show_doctor(findings)
    raise typer.Exit(1 if worst(findings) == "broken" else 0)


# --- ``taxi maturity``: how far this repository is by Microsoft's maturity model, with proof and with what is missing.


def command_names(context: typer.Context) -> frozenset[str]:
    """Return the names of the commands and groups of commands of the program that runs."""
    return frozenset(getattr(context.find_root().command, "commands", {}))


def _show_maturity(cells: list["Cell"], reached: int) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("level", "area", "", "what it asks, and what shows it", title=f"level {reached} is reached")
    for cell in cells:
        lines = [
            (
                f"{need.asks}: {need.proof}"
                if need.met
                else f"[bold]missing[/] {need.asks}: {need.missing or 'no proof'}"
            )
            + (f" [{'green' if need.met else 'red'}]({need.run})[/]" if need.run else "")
            for need in cell.needs
        ]
        table.add_row(str(cell.level), cell.area, "yes" if cell.met else "no", "\n".join(lines), end_section=True)
    table.caption = "people are judged by what they left in the repository: nothing here can see who talks to whom"
    Console(width=None if Console().is_terminal else 150).print(table)


@app.command()
def maturity(
    context: typer.Context,
    level: Annotated[int | None, typer.Option(min=1, max=4, help="Only this level; exit 1 if it is not met.")] = None,
    run: Annotated[
        bool, typer.Option("--run", help="Also execute the proofs that can be: drills and tests; takes minutes.")
    ] = False,
    json_: AsJson = False,
) -> None:
    """Judge every cell of Microsoft's MLOps maturity model, levels 1 to 4, by what is in this repository."""
    from taxi.operations.maturity import LEVELS, Repository, judge, level_reached, maturity_answer, read_model

    executed = [number for number in LEVELS if run and level in (None, number)]
    cells = judge(Repository(find_root(), command_names(context)), read_model(), executed)
    shown = [cell for cell in cells if level in (None, cell.level)]
    if json_:
        judged = maturity_answer(cells) | {"names": LEVELS}
        chosen = [one for one in judged["cells"] if level in (None, one["level"])]
        print(json.dumps(judged | {"cells": chosen}, allow_nan=False), flush=True)
    else:
        _show_maturity(shown, level_reached(cells))
    raise typer.Exit(0 if level is None or all(cell.met for cell in shown) else 1)


# --- ``taxi database``: PostgreSQL from an empty server, and the editions of this package's own tables.

database_app = typer.Typer(no_args_is_help=True, help="Databases: make them on a PostgreSQL server, bring tables up.")
app.add_typer(database_app, name="database")


@database_app.command()
def init(
    tables: Annotated[bool, typer.Option(help="--no-tables leaves the databases empty.")] = True,
    json_: AsJson = False,
) -> None:
    """Make roles, databases, tables and privileges on the server that TAXI_DB_ADMIN names; may be repeated.

    Passwords are read from TAXI_DB_PASSWORD_MLFLOW, _PREFECT, _JOBS, _SERVICE and _READER, or files that …_FILE name.
    """
    from taxi.operations.databases import init_databases

    result = init_databases(tables)
    lines = [*result["done"], "set, each with its password in the place of PASSWORD (as in a URL: / is %2F):"]
    lines += [f"  {name}={address}" for name, address in result["set"].items()]
    lines.append("  the service uses taxi_service instead of the owners, Grafana and `metrics serve` taxi_reader")
    answer(result, "\n".join(lines), json_)


@database_app.command()
def upgrade(json_: AsJson = False) -> None:
    """Bring the tables of predictions and metrics to this taxi's edition, as their owner: before a newer service starts."""
    from taxi.monitoring.metric_store import open_metrics
    from taxi.predictions.store import open_store

    settings = load_settings()
    stores = (open_store(settings.predictions), open_metrics(settings.metrics))
    result = {store.folder: store.upgrade() for store in stores}
    said = "\n".join(f"{name}: edition {edition}" for name, edition in result.items())
    answer(result, said, json_)


# --- ``taxi backup``: a copy of everything, restored, and drilled.

backup_app = typer.Typer(no_args_is_help=True, help="Backups: take a copy, check it, restore it, and drill that.")
app.add_typer(backup_app, name="backup")
Copy = Annotated[Path, typer.Argument(metavar="FOLDER", help="The copy's folder.", resolve_path=True)]


@backup_app.command()
def make(
    folder: Copy,
    environment: Annotated[str, typer.Option(help="The name under which terraform's guard knows it.")] = "local",
    json_: AsJson = False,
) -> None:
    """Copy databases, data, reports and models into a new folder, beside what runs; it holds what people asked, in clear."""
    from taxi.operations.backup import make_backup

    made = make_backup(load_settings(), folder, environment)
    said = f"{made['copy']}: {made['bytes']:,} bytes in {made['seconds']} s; its manifest's sha256 is {made['sha256']}"
    answer(made, said, json_)


@backup_app.command()
def check(folder: Copy, json_: AsJson = False) -> None:
    """Compare every file of a copy with its manifest; exit 1 if one is missing, changed or too many."""
    from taxi.operations.backup import check_copy

    facts = check_copy(folder)
    result = {"copy": str(folder), "taxi": facts.taxi, "databases": facts.databases}
    answer(result, f"{folder} is whole: of taxi {facts.taxi}, with {', '.join(facts.databases.values())}", json_)


@backup_app.command(name="restore")
def restore_copy(folder: Copy, json_: AsJson = False) -> None:
    """Make an installation from a copy, where the environment says and where nothing is yet; may be repeated if killed."""
    from taxi.operations.backup import restore

    made = restore(folder, load_settings())
    answer(made, f"{folder} is restored, in {made['seconds']} s; look with `taxi doctor` and `taxi status`", json_)


@backup_app.command(name="drill")
def drill_copy(
    folder: Annotated[
        Path | None, typer.Argument(metavar="[FOLDER]", help="A copy; without, one is taken.", resolve_path=True)
    ] = None,
    within: Annotated[
        Path | None, typer.Option(help="Where to restore it, with room for it; default: the system's temporary folder.")
    ] = None,
    json_: AsJson = False,
) -> None:
    """Restore a copy beside the installation and ask both for every version's golden trips and lineage; exit 1 if they differ."""
    from taxi.operations.backup import drill

    result = drill(load_settings(), folder, within)
    took = ", ".join(f"{name} {seconds} s" for name, seconds in result["seconds"].items())
    faults = [f"  {fault}" for fault in result["faults"]] or ["the copy answers as the installation does"]
    answer(result, "\n".join([f"{result['versions']} versions; {took}", *faults]), json_)
    raise typer.Exit(1 if result["faults"] else 0)


# --- ``taxi prune`` and ``taxi erase``: what is too old, and one trip by a person's wish.


@app.command()
def prune(
    yes: Annotated[bool, typer.Option("--yes", help="Remove it; without, only say what would go.")] = False,
    json_: AsJson = False,
) -> None:
    """Say which rows and files are older than params.yaml's section retention allows; --yes removes them."""
    from taxi.params import load_params

    settings, params = load_settings(), load_params()
    from taxi.operations.retention import prune as prune_old

    old = prune_old(settings, params, datetime.now(UTC), yes)
    entries = [
        {"what": one.what, "days": one.days, "rows": one.rows, "files": len(one.files), "bytes": one.bytes_}
        for one in old
    ]
    lines = [
        f"{one['what']:13} older than {one['days']} days: {one['rows']:,} rows, {one['files']:,} files, {one['bytes']:,} bytes"
        for one in entries
    ]
    lines.append("removed" if yes else "nothing was removed: --yes does it")
    answer({"removed": yes, "old": entries}, "\n".join(lines), json_)


@app.command()
def erase(
    trip: Annotated[str, typer.Argument(metavar="TRIP_ID", help="As the predictions' requests named it.")],
    service: Service,
    json_: AsJson = False,
) -> None:
    """Remove all predictions and outcomes of one trip, also those that wait on disk or elsewhere; exit 1 if some are there still."""
    settings = load_settings()
    from taxi.operations.retention import erase_trip, unreached

    result = erase_trip(settings, service, trip) | {"unreached": unreached(settings)}
    counts = ", ".join(f"{count:,} in {what}" for what, count in result["found"].items())
    state = "gone" if result["gone"] else "predicted again meanwhile: type the command again"
    said = f"{service} trip {trip}: {counts}; {state}. {result['unreached']}"
    answer(result, said, json_)
    raise typer.Exit(0 if result["gone"] else 1)
