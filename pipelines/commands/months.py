"""Commands on months: ``taxi run``, ``backfill``, ``arrivals``, ``ingest``, ``clean``, ``notebook``, ``sample``, ``retrain``, ``status``."""

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.commands.options import (
    AnyService,
    AsJson,
    Engine,
    First,
    Last,
    Month,
    NoVersion,
    Scheduler,
    Service,
    Shift,
    SourceOption,
)
from pipelines.runtime import begin_flow, load_checked
from pipelines.terminal import show_summary
from taxi.addresses import check_server, sqlite_file
from taxi.config import NOTEBOOKS, SERVICES, Settings, load_settings
from taxi.errors import MonthRefused, NotPublished, UsageError
from taxi.files import Damaged
from taxi.months import iterate_months

if TYPE_CHECKING:
    from taxi.runs.month_result import MonthResult

app = typer.Typer()

_LOG = logging.getLogger(__name__)
STATUS_CODES = {"done": 0, "not-published": 3, "refused": 4}


def _say(result: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(result, allow_nan=False), flush=True)


def _finished(settings: Settings, service: str, months: list[str], version: bool) -> list[dict[str, Any]] | None:
    """Return the results of months that are finished and published again; None unless all are: most are not even begun."""
    if not all((settings.month(service, month).reports / "month.json").is_file() for month in months):
        return None
    from pipelines.finished import publish_finished

    return publish_finished(settings, service, months, version)


def _ask_source(settings: Settings, service: str, months: list[str]) -> None:
    """Raise Offline at once, and not after Prefect has started, where a month is not on hand and nobody is at the source."""
    missing = [month for month in months if not settings.month(service, month).raw.is_file()]
    if missing:
        from taxi.data.download import Offline, Patience, Unreachable
        from taxi.data.source import is_published, open_source

        try:
            is_published(open_source(settings.source, Patience(read=3.0, attempts=1)), service, missing[0])
        except Offline:
            raise
        except Unreachable as error:  # slow or busy: the flow has more patience
            _LOG.debug("%s", error)


@app.command()
def run(
    service: Service,
    month: Month,
    source: SourceOption = None,
    engine: Engine = None,
    scheduler: Scheduler = None,
    json_: AsJson = False,
    no_version: NoVersion = False,
) -> None:
    """Run one month, from the publisher to its reports: the main job."""
    settings, _ = load_checked(source, engine, scheduler)
    if done := _finished(settings, service, [month], not no_version):
        (result,) = done
    else:
        _ask_source(settings, service, [month])
        given = settings.told_source, not no_version, settings.engine, settings.scheduler
        result = begin_flow(settings, "monthly")(service, month, *given)
    show_summary([result], settings.reports) if not json_ else _say(result, True)
    raise typer.Exit(STATUS_CODES[result["status"]])


@app.command()
def backfill(
    service: Service,
    first: First,
    last: Last,
    source: SourceOption = None,
    engine: Engine = None,
    scheduler: Scheduler = None,
    json_: AsJson = False,
    no_version: NoVersion = False,
) -> None:
    """Run many months, oldest first; those that are finished already cost nothing."""
    months = list(iterate_months(first, last))
    settings, _ = load_checked(source, engine, scheduler)
    if done := _finished(settings, service, months, not no_version):
        result: dict[str, Any] = {"service": service, "months": done}
    else:
        _ask_source(settings, service, months)
        given = settings.told_source, not no_version, settings.engine, settings.scheduler
        result = begin_flow(settings, "backfill")(service, first, last, *given)
    show_summary(result["months"], settings.reports) if not json_ else _say(result, True)
    raise typer.Exit(max(STATUS_CODES[month["status"]] for month in result["months"]))


@app.command()
def arrivals(
    service: Service, source: SourceOption = None, json_: AsJson = False, no_version: NoVersion = False
) -> None:
    """Run the months that are out since the newest that was run, oldest first; none is fine."""
    settings, _ = load_checked(source)
    results: Any = begin_flow(settings, "arrivals")(service, settings.told_source, not no_version)
    if json_:
        _say({"service": service, "months": results}, True)
    elif results:
        show_summary(results, settings.reports)
    raise typer.Exit(max((STATUS_CODES[month["status"]] for month in results), default=0))


@app.command()
def ingest(
    service: Service,
    month: Month,
    source: SourceOption = None,
    engine: Engine = None,
    scheduler: Scheduler = None,
    json_: AsJson = False,
) -> None:
    """Fetch one month and split it into kept trips and quarantine: step 1 alone."""
    settings, params = load_checked(source, engine, scheduler)
    _ask_source(settings, service, [month])
    flow = begin_flow(settings, "ingest")
    from taxi.runs.month_result import refused_result, unpublished_result

    try:
        result = flow(service, month, settings.told_source, settings.engine, settings.scheduler) | {"status": "done"}
    except NotPublished as error:
        result = unpublished_result(service, month, str(error)).as_json()
    except MonthRefused as error:
        result = refused_result(settings.month(service, month), str(error), {}, params).as_json()
    if json_:
        _say({name: result[name] for name in ("service", "month", "status", "rows", "warnings")}, True)
    else:
        rows = result["rows"]
        print(f"{service} {month}: {result['status']}; {rows['raw']:,} rows, {rows['kept']:,} kept,", end=" ")
        print(f"{rows['quarantined']:,} in quarantine {rows['reasons']}")
        for line in [*result["warnings"], *([result["reason"]] if result["status"] != "done" else [])]:
            print(f"  {line}")
        for page in result.get("reports", []):
            print(f"Open {page}")
    raise typer.Exit(STATUS_CODES[result["status"]])


@app.command()
def clean(service: Service, month: Month) -> None:
    """Split the raw month that is on hand into kept trips and quarantine, without asking the publisher."""
    from taxi.params import load_params

    settings, params = load_settings(), load_params()
    from taxi.data.acceptance import clean_month

    summary = clean_month(settings.month(service, month), params)
    print(f"{service} {month}: {summary.rows['kept']:,} of {summary.rows['raw']:,} rows kept")


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
    from pipelines.runtime import prepare_process
    from taxi.params import load_params, parse_values

    extra, settings, _ = parse_values(parameter or []), load_settings(), load_params()
    from taxi.runs.steps import execute_notebook

    prepare_process(settings)
    print(execute_notebook(settings, service, month, name, extra))


@app.command()
def sample(
    out: Annotated[Path, typer.Option(help="Folder to write the source to.")],
    service: Service,
    first: First,
    last: Last,
    rows: Annotated[int, typer.Option(min=1, help="Trips in a month.")] = 20_000,
    seed: Annotated[int, typer.Option(help="The same seed gives the same bytes.")] = 7,
    shift: Shift = None,
) -> None:
    """Write a synthetic city's trips in the TLC's layout, faults included."""
    from taxi.data.synthetic import write_sample

    months = list(iterate_months(first, last))
    for path in write_sample(out, service, months, rows=rows, seed=seed, shift_month=shift):
        print(path)


# --- ``taxi retrain``: what the automation does on an alarm, by hand.


@app.command()
def retrain(
    service: Service,
    because: Annotated[str, typer.Option(help="Why; kept with the decision.")],
    rule: Annotated[
        str, typer.Option(help="The alarm that asks for it, as `taxi alarms list` names it.")
    ] = "live-rmse",
    source: SourceOption = None,
    json_: AsJson = False,
) -> None:
    """Train a challenger on all that is published, judge it on the newest days, and promote it if it is better; exit 4 if held."""
    settings, _ = load_checked(source)
    result = begin_flow(settings, "retrain")(service, rule, said=because, source=settings.told_source)
    if json_:
        print(json.dumps(result, allow_nan=False), flush=True)
    else:
        outcome = "promoted" if result["promoted"] else result["status"]
        print(f"{service}, newest month {result['month']}: {outcome}; {result['reason']}")
    raise typer.Exit(4 if result["status"] == "held" else 0)


# --- ``taxi status``: months on hand, champion, last verdicts.


def _champion(settings: Settings, service: str) -> str:
    """Say which version is champion; a registry whose file is not there yet is not made, and nothing is imported for it."""
    database = sqlite_file(settings.tracking_uri)
    if database and not database.is_file():
        return f"no champion yet, and no registry at {database}"
    check_server("model registry", settings.tracking_uri, "MLFLOW_TRACKING_URI")
    from taxi.registry.versions import champion_now

    champion = champion_now(settings.tracking_uri, service)
    return f"champion {champion.label}, trained to {champion.trained_to}" if champion else "no champion yet"


def _last_results(settings: Settings, service: str) -> list["MonthResult"]:
    """Return the results of the newest months; where none was run, nothing is imported to read them."""
    if not any((settings.reports / service).glob("????-??/month.json")):
        return []
    from taxi.runs.month_result import read_results

    return list(read_results(settings.reports, service).values())[-6:]


@app.command()
def status(service: AnyService = None) -> None:
    """Show the months on hand, the champion, and the last verdicts."""
    settings, damaged = load_settings(), []
    for one in [service] if service else SERVICES:
        on_hand = settings.months_on_hand(one)
        held = f"{len(on_hand)} months on hand, {on_hand[0]} to {on_hand[-1]}" if on_hand else "no months on hand"
        print(f"{one}: {held}; {_champion(settings, one)}")
        try:
            results = _last_results(settings, one)
        except Damaged as error:
            damaged.append(error)
            continue
        for result in results:
            words = ", ".join([result.verdict or "–", *result.alarms])
            print(f"  {result.month}  {result.status:8}  {words:32}  {result.reason}")
    if damaged:
        raise Damaged("; ".join(map(str, damaged)))
