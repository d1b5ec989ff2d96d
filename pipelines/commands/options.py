"""Options that several commands have, declared once."""

from typing import Annotated

import typer

Service = Annotated[str, typer.Option(help="green or yellow.")]
Month = Annotated[str, typer.Option(help="The month of pickup, as YYYY-MM.")]
Source = Annotated[
    str | None,
    typer.Option(envvar="TAXI_SOURCE", help="https address, s3://…, file://… or a folder. Default: the TLC's site."),
]
First = Annotated[str, typer.Option("--from", help="First month, as YYYY-MM.")]
Last = Annotated[str, typer.Option("--to", help="Last month, as YYYY-MM; included.")]
Engine = Annotated[str, typer.Option(envvar="TAXI_ENGINE", help="local, or dask: on the workers of a Dask cluster.")]
Scheduler = Annotated[
    str | None, typer.Option(envvar="TAXI_SCHEDULER", help="Address of the Dask scheduler, as tcp://HOST:8786.")
]
AsJson = Annotated[bool, typer.Option("--json", help="End stdout with one JSON object.")]
NoVersion = Annotated[bool, typer.Option("--no-version", help="Do not take a DVC snapshot.")]
NewestMonth = Annotated[str | None, typer.Option(help="A month that was run, as YYYY-MM. Default: the newest.")]
AnyService = Annotated[str | None, typer.Option(help="green or yellow; both by default.")]
