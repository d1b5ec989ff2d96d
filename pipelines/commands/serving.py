"""Commands on traffic: ``taxi serve``, ``replay``, ``outcomes``, ``score``."""

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from pipelines.commands.options import AsJson, Month, Service, answer
from pipelines.runtime import prepare_server
from pipelines.terminal import start_logging
from taxi.config import load_api_keys, load_settings
from taxi.processes import import_before_forking

app = typer.Typer()


@app.command()
def score(
    service: Service,
    month: Month,
    out: Annotated[Path, typer.Option(help="Parquet file to write: row, mean, median, p10, p90, version.")],
    version: Annotated[str, typer.Option(help="NUMBER or champion.")] = "champion",
    trips: Annotated[
        Path | None, typer.Option("--in", help="Parquet file to score. Default: the month that is on hand.")
    ] = None,
    json_: AsJson = False,
) -> None:
    """Predict every trip of a month that can be predicted, judged by what is known when it starts."""
    from taxi.params import load_params

    settings, params = load_settings(), load_params()
    from taxi.data.schema import check_size
    from taxi.models.model import load_model
    from taxi.models.scoring import month_to_score, score_file
    from taxi.registry.versions import download_model, find_version

    path = trips or month_to_score(settings, service, month)
    found = find_version(settings.tracking_uri, version, service)
    check_size(path, params.accept)
    folder = settings.data / "models" / service / "versions" / str(found.number)
    download_model(settings.tracking_uri, found, folder)
    marks = {"version": f"{service}/{found.number}", "model_sha256": found.tags["model_sha256"]}
    result = score_file(path, out, service, month, load_model(folder), found.number, marks)
    left = ", ".join(f"{count:,} {reason}" for reason, count in result["not_scorable"].items()) or "none"
    said = f"{service} {month}: {result['scored']:,} of {result['rows']:,} trips scored by {service}/{found.number}"
    answer(result, f"{said}; left out: {left}. {out}", json_)


@app.command()
def replay(
    service: Service,
    month: Month,
    url: Annotated[str, typer.Option(help="Where the service is.")] = "http://127.0.0.1:8000",
    speed: Annotated[
        float, typer.Option(min=0, help="Seconds of the month in one second; 0: without waiting.")
    ] = 600.0,
    trips: Annotated[int | None, typer.Option(min=1, help="Only the first so many trips of the month.")] = None,
    connections: Annotated[int, typer.Option(min=1, help="Requests under way at once; 1 keeps a strict order.")] = 8,
    batch: Annotated[int, typer.Option(min=1, max=1000, help="Trips in a request, where so many are due.")] = 1,
    every: Annotated[float, typer.Option(min=0.1, help="Seconds between two lines of progress.")] = 5.0,
    key: Annotated[
        str | None, typer.Option(envvar="TAXI_API_KEY", help="API key, where the service asks for one.")
    ] = None,
    json_: AsJson = False,
) -> None:
    """Send a month's trips to the service as live traffic, in their true order, and outcomes when they end."""
    from taxi.serving.replay import read_traffic, replay_month

    sent = read_traffic(load_settings().month(service, month).trips, trips)
    result = replay_month(sent, service, month, url, speed, connections, batch, key, every=every)
    answer(result, _replayed(result), json_)
    raise typer.Exit(1 if result["failed"] or result["outcomes"] < result["trips"] else 0)


def _replayed(result: dict[str, Any]) -> str:
    versions = ", ".join(f"{count:,} by version {version}" for version, count in result["versions"].items())
    first = (
        f"{result['service']} {result['month']}: {result['answered']:,} of {result['trips']:,} trips predicted ({versions}), "
        f"{result['failed']:,} failed, {result['outcomes']:,} outcomes, {result['per_second']:.0f} trips a second"
    )
    arms = [
        f"  {arm}: RMSE {scores['rmse']:.3f}, MAE {scores['mae']:.3f} minutes, {scores['coverage80']:.1%} of {scores['n']:,} "
        "trips inside the 80 % interval"
        for arm, scores in result["arms"].items()
        if scores
    ]
    return "\n".join([first, *arms])


@app.command()
def outcomes(service: Service, month: Month, json_: AsJson = False) -> None:
    """Take the publisher's month as the outcomes of its trips that were predicted in a replay."""
    from taxi.predictions.outcomes import take_month
    from taxi.predictions.store import open_store

    settings = load_settings()
    result = take_month(open_store(settings.predictions), settings, service, month)
    said = f"{service} {month}: {result['outcomes']:,} outcomes of {result['predicted']:,} predicted trips"
    left = f"{result['not_kept']:,} are not among the kept trips, {result['changed']:,} are others since"
    answer(result, f"{said}; {left}", json_)


# --- ``taxi serve``: a service's models over HTTP.


@app.command()
def serve(
    context: typer.Context,
    service: Service,
    host: Annotated[
        str, typer.Option(help="Address to listen on; any but localhost needs TAXI_API_KEYS.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one; the log says which.")] = 8000,
    fd: Annotated[
        int | None,
        typer.Option(min=3, help="Listen on this socket instead, which a service manager passes: systemd's is 3."),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Processes that answer.")] = 1,
) -> None:
    """Serve the champion over HTTP, and follow the registry's aliases; SIGTERM ends it when what it accepted is answered."""
    from taxi.params import load_params
    from taxi.serving.local_store import sole_server

    settings, _ = load_settings(), load_params()
    with sole_server(settings.server(service)):
        prepare_server(settings.server(service) / "metrics")
        # whatever ends and is started again finds them imported
        import_before_forking(
            "pipelines.cli", "taxi.serving.server", "taxi.serving.follower", "taxi.serving.log_writer"
        )
        from taxi.serving.api_keys import ApiKeys
        from taxi.serving.supervisor import serve as run

        verbose = bool((context.parent or context).params.get("verbose"))
        prepare = partial(start_logging, verbose)
        run(settings, service, (host, port, fd), workers, ApiKeys(load_api_keys()), prepare)
