"""``taxi metrics``: all numbers in one store, for Prometheus, for Grafana, and as a page."""

import json
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from taxi.config import SERVICES, load_settings, parse_service

Service = Annotated[str | None, typer.Option(help="green or yellow; both by default.")]
AsJson = Annotated[bool, typer.Option("--json", help="End stdout with one JSON object.")]

app = typer.Typer(no_args_is_help=True, help="Numbers of months, live traffic and costs: collect, show, serve, page.")


def add_to(parent: typer.Typer) -> None:
    """Add ``taxi metrics`` to the command line."""
    parent.add_typer(app, name="metrics")


@app.command()
def collect(
    service: Service = None,
    hours: Annotated[
        int | None, typer.Option(min=1, help="Of the prediction log. Default: what is new, and 72 h before.")
    ] = None,
    json_: AsJson = False,
) -> None:
    """Write the months' results and the prediction log's hours into the store, and the page anew; may be repeated."""
    from taxi.collecting import collect_all
    from taxi.live_page import write_live_page
    from taxi.metric_store import open_metrics

    settings = load_settings()
    services = (parse_service(service),) if service else SERVICES
    since = datetime.now(UTC) - timedelta(hours=hours) if hours else None
    counts = collect_all(settings, services, since)
    store = open_metrics(settings.metrics)
    result = counts | {"store": store.address, "page": str(write_live_page(store, settings))}
    said = (
        f"{counts['months']} months and {counts['live']:,} live metrics are in {store.address}; open {result['page']}"
    )
    print(json.dumps(result, allow_nan=False) if json_ else said, flush=True)


@app.command()
def show(
    service: Service = None,
    prometheus: Annotated[bool, typer.Option("--prometheus", help="As Prometheus' text format.")] = False,
    out: Annotated[
        Path | None, typer.Option(help="Write it to this file, whole or not at all (a textfile collector's).")
    ] = None,
    json_: AsJson = False,
) -> None:
    """Show what the store has: the newest month by default, everything as Prometheus scrapes it, or as JSON."""
    from taxi.exposition import pipeline_exposition
    from taxi.files import staged
    from taxi.live_page import newest_figures
    from taxi.metric_store import Kind, open_metrics

    store = open_metrics(load_settings().metrics)
    services = (parse_service(service),) if service else SERVICES
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


@app.command()
def page(json_: AsJson = False) -> None:
    """Write reports/live.html anew from what the store has."""
    from taxi.live_page import write_live_page
    from taxi.metric_store import open_metrics

    settings = load_settings()
    written = str(write_live_page(open_metrics(settings.metrics), settings))
    print(json.dumps({"page": written}) if json_ else f"Open {written}", flush=True)


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 9109,
) -> None:
    """Serve the pipeline's numbers at /metrics for Prometheus, until SIGTERM or Ctrl-C."""
    from taxi.exposition import serve_metrics
    from taxi.metric_store import open_metrics

    ends = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)  # before there are threads, which would get them instead
    store = open_metrics(load_settings().metrics)
    taken, server = serve_metrics(store, host, port)
    print(f"the pipeline's metrics are on http://{host}:{taken}/metrics", flush=True)
    signal.sigwait(ends)
    server.shutdown()
    store.close()
