"""``taxi alarms``: what stands, a check of a month or of live traffic, and the fire drill."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from taxi.config import load_settings, parse_service
from taxi.errors import UsageError
from taxi.months import parse_month
from taxi.params import load_params

Service = Annotated[str, typer.Option(help="green or yellow.")]
Month = Annotated[str | None, typer.Option(help="A month that was run, as YYYY-MM. Default: the newest.")]
Live = Annotated[bool, typer.Option("--live", help="Check the prediction log instead of a month.")]
AsJson = Annotated[bool, typer.Option("--json", help="End stdout with one JSON object.")]

app = typer.Typer(no_args_is_help=True, help="Alarms: check a month or live traffic, list what stands, fire drill.")


def add_to(parent: typer.Typer) -> None:
    """Add ``taxi alarms`` to the command line."""
    parent.add_typer(app, name="alarms")


def _check(service: str, month: str | None, live: bool) -> dict[str, Any]:
    from taxi.alarms import check_month, check_service
    from taxi.live_check import check_store
    from taxi.month import read_results

    settings, params, now = load_settings(), load_params(), datetime.now(UTC)
    if live:
        return check_store(settings, params, service, now)
    if month is None:
        return check_service(settings, params, service, now)
    if month not in (there := read_results(settings.reports, service)):
        raise UsageError(f"{service} {month} was not run; there are {', '.join(there) or 'none'}")
    return check_month(settings, params, service, month, now)


def _emit(result: dict[str, Any]) -> None:
    settings = load_settings()
    if result["told"] and settings.prefect:
        from pipelines.events import (
            emit_alarms,  # Prefect takes seconds to import: only where there is something to say
        )

        emit_alarms(settings, result["told"])


@app.command()
def check(service: Service = "green", month: Month = None, live: Live = False, json_: AsJson = False) -> None:
    """Judge the newest month (or --month, or --live traffic), tell what is new, once, and show what stands."""
    if month and live:
        raise UsageError("expected --month or --live, not both")
    result = _check(parse_service(service), month and parse_month(month), live)
    _emit(result)
    if json_:
        print(json.dumps(result, allow_nan=False), flush=True)
        return
    where = "live" if live else result["month"] or "no month was run yet"
    print(f"{service}, {where}: {len(result['found'])} alarms, {len(result['told'])} of them or of recoveries told now")
    _show(result["standing"])
    for one in result["channels"]:
        print(f"  channel {one['channel']}: {one['fault'] or 'delivered'} ({one['seconds']:.1f} s)")


@app.command("list")
def list_(
    service: Annotated[str | None, typer.Option(help="green or yellow; all by default.")] = None, json_: AsJson = False
) -> None:
    """Show the alarms that stand."""
    from taxi.alarms import list_standing

    standing = list_standing(load_settings(), parse_service(service) if service else None)
    if json_:
        print(json.dumps({"standing": standing}, allow_nan=False), flush=True)
        return
    _show(standing)
    print(f"{len(standing)} alarms stand")


def _show(standing: Sequence[dict[str, Any]]) -> None:
    for one in standing:
        where = " ".join(filter(None, [one["service"], one["month"], one["part"]]))
        print(f"  {one['severity']:7}  {one['rule']:18}  {where}: {one['said']}")


@app.command()
def drill(json_: AsJson = False) -> None:
    """Send a marked test through every channel; exit 1 if one did not take it."""
    from taxi.drill import fire_drill

    settings, params = load_settings(), load_params()
    came = fire_drill(settings, params, datetime.now(UTC))
    if json_:
        print(json.dumps({"log": str(settings.alarm_log), "channels": came}, allow_nan=False), flush=True)
    else:
        for one in came:
            print(
                f"{one['channel']}: {'failed: ' + one['fault'] if one['fault'] else 'delivered'}, {one['seconds']:.2f} s"
            )
        print(f"file: delivered, {settings.alarm_log}")
        if not came:
            print(f"no channel is set: name addresses in {params.alarms.channels_env}")
    raise typer.Exit(1 if any(one["fault"] for one in came) else 0)
