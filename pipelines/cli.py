"""The ``taxi`` command. Logs and progress go to stderr; what a command answers goes to stdout."""

import atexit
import gc
import json
import logging
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from pipelines import (
    alarm_commands,
    backtest_commands,
    doctor_commands,
    experiment_commands,
    maturity_commands,
    metrics_commands,
    registry_commands,
    retrain_commands,
    search_commands,
    serving_commands,
    status_commands,
    traffic_commands,
)
from pipelines.runtime import begin_flow
from pipelines.terminal import show_summary, start_logging
from taxi.config import NOTEBOOKS, load_settings, parse_service
from taxi.errors import MonthRefused, NotPublished, Refused, TaxiError, UsageError
from taxi.months import iterate_months, parse_month

OBJECTS = 10_000  # made between two looks for garbage; thousands of modules are imported, and hold none
EXIT_CODES = {UsageError: 2, NotPublished: 3, MonthRefused: 4, Refused: 4}
STATUS_CODES = {"done": 0, "not-published": 3, "refused": 4}

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Predict how long a New York taxi trip will take: ingest a month, explore, monitor, train, compare, promote.\n\n"
    "A first session, without a network:\n\n"
    "  taxi sample --out build/source --service green --from 2024-01 --to 2024-03\n\n"
    "  taxi backfill --service green --from 2024-01 --to 2024-03 --source build/source\n\n"
    "Exit codes: 0 done, 2 wrong usage, 3 not published, 4 refused, 1 anything else.\n\n"
    "Places: TAXI_SOURCE, TAXI_DATA, TAXI_REPORTS, MLFLOW_TRACKING_URI, TAXI_ENGINE, TAXI_SCHEDULER.",
)
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


def _say(result: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(result, allow_nan=False), flush=True)


@app.callback()
def _logging(verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say more on stderr.")] = False) -> None:
    start_logging(verbose)


@app.command()
def run(
    service: Service,
    month: Month,
    source: Source = None,
    engine: Engine = "local",
    scheduler: Scheduler = None,
    json_: AsJson = False,
    no_version: NoVersion = False,
) -> None:
    """Run one month, from the publisher to its reports: the main job."""
    parse_service(service), parse_month(month)
    settings, flow = begin_flow(source, "monthly", engine, scheduler)
    result = flow(service, month, settings.told_source, not no_version, settings.engine, settings.scheduler)
    show_summary([result], settings.reports) if not json_ else _say(result, True)
    raise typer.Exit(STATUS_CODES[result["status"]])


@app.command()
def backfill(
    service: Service,
    first: First,
    last: Last,
    source: Source = None,
    engine: Engine = "local",
    scheduler: Scheduler = None,
    json_: AsJson = False,
    no_version: NoVersion = False,
) -> None:
    """Run many months, oldest first; those that are finished already cost nothing."""
    parse_service(service), list(iterate_months(first, last))
    settings, flow = begin_flow(source, "backfill", engine, scheduler)
    result = flow(service, first, last, settings.told_source, not no_version, settings.engine, settings.scheduler)
    show_summary(result["months"], settings.reports) if not json_ else _say(result, True)
    raise typer.Exit(max(STATUS_CODES[month["status"]] for month in result["months"]))


@app.command()
def ingest(
    service: Service,
    month: Month,
    source: Source = None,
    engine: Engine = "local",
    scheduler: Scheduler = None,
    json_: AsJson = False,
) -> None:
    """Fetch one month and split it into kept trips and quarantine: step 1 alone."""
    parse_service(service), parse_month(month)
    settings, flow = begin_flow(source, "ingest", engine, scheduler)
    from taxi.month import refused_result, unpublished_result
    from taxi.params import load_params

    try:
        result = flow(service, month, settings.told_source, settings.engine, settings.scheduler) | {"status": "done"}
    except NotPublished as error:
        result = unpublished_result(service, month, str(error)) | {"warnings": []}
    except MonthRefused as error:
        result = refused_result(settings.month(service, month), str(error), {}, load_params()) | {"warnings": []}
    if json_:
        _say({name: result[name] for name in ("service", "month", "status", "rows", "warnings")}, True)
    else:
        rows = result["rows"]
        print(f"{service} {month}: {result['status']}; {rows['raw']:,} rows, {rows['kept']:,} kept,", end=" ")
        print(f"{rows['quarantined']:,} in quarantine {rows['reasons']}")
        for line in [*result["warnings"], *([result["reason"]] if result["status"] != "done" else [])]:
            print(f"  {line}")
    raise typer.Exit(STATUS_CODES[result["status"]])


@app.command()
def clean(service: Service, month: Month) -> None:
    """Split the raw month that is on hand into kept trips and quarantine, without asking the publisher."""
    from taxi.acceptance import clean_month
    from taxi.params import load_params

    settings = load_settings()
    summary = clean_month(settings.month(parse_service(service), parse_month(month)), load_params())
    print(f"{service} {month}: {summary['rows']['kept']:,} of {summary['rows']['raw']:,} rows kept")


def _literal(text: str) -> tuple[str, Any]:
    name, found, value = text.partition("=")
    if not found:
        raise UsageError(f"expected a parameter as name=value; got {text!r}")
    import yaml

    return name, yaml.safe_load(value)


@app.command()
def notebook(
    name: Annotated[str, typer.Argument(help=", ".join(NOTEBOOKS))],
    service: Service,
    month: Month,
    parameter: Annotated[list[str] | None, typer.Option("-p", help="name=value; may be repeated.")] = None,
) -> None:
    """Execute one notebook for a month that was ingested, as the flow runs it."""
    if name not in NOTEBOOKS:
        raise UsageError(f"no notebook {name!r}; there are {', '.join(NOTEBOOKS)}")
    parse_service(service), parse_month(month)
    from pipelines.runtime import prepare_process
    from taxi.steps import execute_notebook

    settings = load_settings()
    prepare_process(settings)
    extra = dict(map(_literal, parameter or []))
    print(execute_notebook(settings, service, month, name, extra))


@app.command()
def sample(
    out: Annotated[Path, typer.Option(help="Folder to write the source to.")],
    service: Service,
    first: First,
    last: Last,
    rows: Annotated[int, typer.Option(min=1, help="Trips in a month.")] = 20_000,
    seed: Annotated[int, typer.Option(help="The same seed gives the same bytes.")] = 7,
    shift: Annotated[
        str | None, typer.Option(help="The month from which roads are slower and demand is lower.")
    ] = None,
) -> None:
    """Write a synthetic city's trips in the TLC's layout, faults included."""
    from taxi.sample import write_sample

    shifted = parse_month(shift) if shift else None
    months = list(iterate_months(first, last))
    for path in write_sample(out, parse_service(service), months, rows=rows, seed=seed, shift_month=shifted):
        print(path)


for topic in (
    registry_commands,
    traffic_commands,
    experiment_commands,
    alarm_commands,
    maturity_commands,
    metrics_commands,
    retrain_commands,
    search_commands,
    serving_commands,
    backtest_commands,
    status_commands,
    doctor_commands,
):
    topic.add_to(app)


def main() -> None:
    """Run the command line; every failure becomes one explained line on stderr and its exit code."""
    gc.set_threshold(OBJECTS)
    atexit.register(gc.freeze)  # the end of a process needs no search through all that it imported
    try:
        app()
    except TaxiError as error:
        code = next((code for kind, code in EXIT_CODES.items() if isinstance(error, kind)), 1)
        print(f"taxi: {error}", file=sys.stderr)
        sys.exit(code)
    except OSError as error:
        logging.getLogger("taxi").debug("where it came from", exc_info=True)
        place = f"cannot use {error.filename}: " if error.filename else ""
        print(f"taxi: {place}{error.strerror or error}; -v shows where", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
