"""Options that several commands have, declared and checked once: a wrong one ends the command before anything starts."""

import json
from typing import Annotated, Any

import typer

from taxi.config import parse_service
from taxi.months import parse_month

_SERVICE = {"parser": parse_service, "metavar": "green|yellow"}
_MONTH = {"parser": parse_month, "metavar": "YYYY-MM"}

Service = Annotated[str, typer.Option(help="Whose trips.", **_SERVICE)]
AnyService = Annotated[str | None, typer.Option(help="Whose trips; both by default.", **_SERVICE)]
Month = Annotated[str, typer.Option(help="The month of pickup.", **_MONTH)]
NewestMonth = Annotated[str | None, typer.Option(help="A month that was run. Default: the newest.", **_MONTH)]
First = Annotated[str, typer.Option("--from", help="First month.", **_MONTH)]
Last = Annotated[str, typer.Option("--to", help="Last month; included.", **_MONTH)]
Shift = Annotated[str | None, typer.Option(help="The month from which roads are slower and demand is lower.", **_MONTH)]
SourceOption = Annotated[
    str | None,
    typer.Option(help="https address, s3://…, file://… or a folder. Default: TAXI_SOURCE, or the TLC's site."),
]
Engine = Annotated[
    str | None,
    typer.Option(help="local, or dask: on the workers of a Dask cluster. Default: TAXI_ENGINE, or local."),
]
Scheduler = Annotated[
    str | None, typer.Option(help="Address of the Dask scheduler, as tcp://HOST:8786. Default: TAXI_SCHEDULER.")
]
AsJson = Annotated[bool, typer.Option("--json", help="End stdout with one JSON object.")]
NoVersion = Annotated[bool, typer.Option("--no-version", help="Do not take a DVC snapshot.")]


def answer(result: dict[str, Any], said: str, as_json: bool) -> None:
    """End stdout with a command's result: one JSON object where ``--json`` asks for it, else what is said of it."""
    print(json.dumps(result, allow_nan=False) if as_json else said, flush=True)
