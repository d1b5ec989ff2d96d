"""``taxi retrain``: what the automation does on an alarm, by hand."""

import json
from typing import Annotated

import typer

from pipelines.runtime import begin_flow
from taxi.config import parse_service


def retrain(
    service: Annotated[str, typer.Option(help="green or yellow.")],
    because: Annotated[str, typer.Option(help="Why; kept with the decision.")],
    rule: Annotated[
        str, typer.Option(help="The alarm that asks for it, as `taxi alarms list` names it.")
    ] = "live-error",
    source: Annotated[
        str | None,
        typer.Option(
            envvar="TAXI_SOURCE", help="https address, s3://…, file://… or a folder. Default: the TLC's site."
        ),
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="End stdout with one JSON object.")] = False,
) -> None:
    """Train a challenger on all that is published, judge it on the newest days, and promote it if it is better; exit 4 if held."""
    parse_service(service)
    settings, run = begin_flow(source, "retrain")
    result = run(service, rule, said=because, source=settings.told_source)
    if json_:
        print(json.dumps(result, allow_nan=False), flush=True)
    else:
        outcome = "promoted" if result["promoted"] else result["status"]
        print(f"{service}, newest month {result['month']}: {outcome}; {result['reason']}")
    raise typer.Exit(4 if result["status"] == "held" else 0)


def add_to(app: typer.Typer) -> None:
    """Add ``taxi retrain``."""
    app.command()(retrain)
