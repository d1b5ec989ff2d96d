"""Commands ``taxi metrics`` and ``taxi alarms``."""

import json
import signal
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from pipelines.commands.options import AnyService, AsJson, NewestMonth, Service, answer
from pipelines.runtime import deliver_waiting
from taxi.config import SERVICES, load_settings
from taxi.errors import UsageError

app = typer.Typer()

metrics_app = typer.Typer(
    no_args_is_help=True, help="Numbers of months, live traffic and costs: collect, show, serve, page."
)
app.add_typer(metrics_app, name="metrics")


@metrics_app.command()
def collect(
    service: AnyService = None,
    hours: Annotated[
        int | None, typer.Option(min=1, help="Of the prediction log. Default: what is new, and 72 h before.")
    ] = None,
    json_: AsJson = False,
) -> None:
    """Write the months' results and the prediction log's hours into the store, and the page anew; may be repeated."""
    from taxi.monitoring.collect import collect_all
    from taxi.monitoring.metric_store import open_metrics
    from taxi.reporting.live_page import write_live_page

    settings = load_settings()
    services = (service,) if service else SERVICES
    since = datetime.now(UTC) - timedelta(hours=hours) if hours else None
    counts = collect_all(settings, services, since)
    store = open_metrics(settings.metrics)
    result = counts | {"store": store.address, "page": str(write_live_page(store, settings))}
    said = (
        f"{counts['months']} months and {counts['live']:,} live metrics are in {store.address}; open {result['page']}"
    )
    answer(result, said, json_)


@metrics_app.command()
def show(
    service: AnyService = None,
    prometheus: Annotated[bool, typer.Option("--prometheus", help="As Prometheus' text format.")] = False,
    out: Annotated[
        Path | None, typer.Option(help="Write it to this file, whole or not at all (a textfile collector's).")
    ] = None,
    json_: AsJson = False,
) -> None:
    """Show what the store has: the newest month by default, everything as Prometheus scrapes it, or as JSON."""
    from taxi.files import staged
    from taxi.monitoring.metric_store import Kind, open_metrics, pipeline_exposition
    from taxi.reporting.live_page import newest_figures

    store = open_metrics(load_settings().metrics, make=False)
    services = (service,) if service else SERVICES
    if prometheus:
        text = pipeline_exposition(store)
    elif json_:
        kinds: tuple[Kind, ...] = ("month", "cost", "live")
        rows = {
            kind: [row for one in services for row in json.loads(store.read(kind, one).to_json(orient="records"))]
            for kind in kinds
        }
        text = json.dumps(rows, allow_nan=False)
    else:
        lines = {
            one: ", ".join(f"{name} {value}" for name, value in newest_figures(store.read("month", one)))
            for one in services
        }
        text = "\n".join(f"{one}: {line or 'no month yet'}" for one, line in lines.items())
    if out is None:
        print(text, flush=True)
        return
    with staged(out.absolute()) as part:
        part.write_text(text, encoding="utf-8")


@metrics_app.command()
def page(json_: AsJson = False) -> None:
    """Write reports/live.html anew from what the store has."""
    from taxi.monitoring.metric_store import open_metrics
    from taxi.reporting.live_page import write_live_page

    settings = load_settings()
    written = str(write_live_page(open_metrics(settings.metrics, make=False), settings))
    answer({"page": written}, f"Open {written}", json_)


@metrics_app.command()
def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 9109,
) -> None:
    """Serve the pipeline's numbers at /metrics for Prometheus, until SIGTERM or Ctrl-C."""
    from taxi.monitoring.metric_store import open_metrics, serve_metrics

    ends = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)  # before there are threads, which would get them instead
    store = open_metrics(load_settings().metrics, make=False)
    taken, server = serve_metrics(store, host, port)
    print(f"the pipeline's metrics are on http://{host}:{taken}/metrics", flush=True)
    signal.sigwait(ends)
    server.shutdown()
    store.close()


# --- ``taxi alarms``: what stands, a check of a month or of live traffic, and the fire drill.

Live = Annotated[bool, typer.Option("--live", help="Check the prediction log instead of a month.")]

alarms_app = typer.Typer(
    no_args_is_help=True, help="Alarms: check a month or live traffic, list what stands, fire drill."
)
app.add_typer(alarms_app, name="alarms")


def _check(service: str, month: str | None, live: bool) -> dict[str, Any]:
    from taxi.params import load_params

    settings, params = load_settings(), load_params()
    from taxi.monitoring import alarms
    from taxi.runs.month_result import read_results

    if live:
        return alarms.check_store(settings, params, service, datetime.now(UTC))
    if month and month not in (there := read_results(settings.reports, service)):
        raise UsageError(f"{service} {month} was not run; there are {', '.join(there) or 'none'}")
    return alarms.check(settings, service, month)


@alarms_app.command()
def check(service: Service = "green", month: NewestMonth = None, live: Live = False, json_: AsJson = False) -> None:
    """Judge the newest month (or --month, or --live traffic), tell what is new, once, and show what stands."""
    if month and live:
        raise UsageError("expected --month or --live, not both")
    result = _check(service, month, live)
    deliver_waiting(load_settings())
    if json_:
        print(json.dumps(result, allow_nan=False), flush=True)
        return
    where = "live" if live else result["month"] or "no month was run yet"
    print(f"{service}, {where}: {len(result['found'])} alarms, {len(result['told'])} of them or of recoveries told now")
    _show_alarms(result["standing"])
    for one in result["channels"]:
        print(f"  channel {one['channel']}: {one['fault'] or 'delivered'} ({one['seconds']:.1f} s)")


@alarms_app.command("list")
def list_(service: AnyService = None, json_: AsJson = False) -> None:
    """Show the alarms that stand."""
    from taxi.monitoring.alarm_book import list_standing

    standing = list_standing(load_settings(), service)
    if json_:
        print(json.dumps({"standing": standing}, allow_nan=False), flush=True)
        return
    _show_alarms(standing)
    print(f"{len(standing)} alarms stand")


def _show_alarms(standing: Sequence[dict[str, Any]]) -> None:
    for one in standing:
        where = " ".join(filter(None, [one["service"], one["month"], one["part"]]))
        print(f"  {one['severity']:7}  {one['rule']:18}  {where}: {one['said']}")


@alarms_app.command()
def drill(json_: AsJson = False) -> None:
    """Send a marked test through every channel; exit 1 if one did not take it."""
    from taxi.params import load_params

    settings, params = load_settings(), load_params()
    from taxi.monitoring.channels import fire_drill

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
