"""``taxi serve``: a service's models over HTTP."""

from functools import partial
from typing import Annotated

import typer

from pipelines.runtime import prepare_server
from pipelines.terminal import start_logging
from taxi.config import load_api_keys, load_settings, parse_service
from taxi.forking import import_before_forking


def serve(
    context: typer.Context,
    service: Annotated[str, typer.Option(help="green or yellow.")],
    host: Annotated[
        str, typer.Option(help="Address to listen on; any but localhost needs TAXI_API_KEYS.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one; the log says which.")] = 8000,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Processes that answer.")] = 1,
) -> None:
    """Serve the champion over HTTP, and follow the registry's aliases; SIGTERM ends it without dropping a request."""
    settings = load_settings()
    prepare_server(settings.server(parse_service(service)) / "metrics" if workers > 1 else None)
    # whatever ends and is started again finds them imported
    import_before_forking("pipelines.cli", "taxi.server", "taxi.follower")
    from taxi.limits import Keys
    from taxi.supervisor import serve as run

    verbose = bool((context.parent or context).params.get("verbose"))
    prepare = partial(start_logging, verbose)
    run(settings, parse_service(service), (host, port), workers, Keys(load_api_keys()), prepare)


def add_to(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command()(serve)
