"""The command that searches for a better recipe; it never changes ``params.yaml``."""

import json
from typing import Annotated

import typer

from taxi.config import load_settings, parse_service
from taxi.months import parse_month
from taxi.params import load_params


def search(
    service: Annotated[str, typer.Option(help="green or yellow.")],
    month: Annotated[str, typer.Option(help="YYYY-MM; the search looks only at the months before it.")],
    trials: Annotated[int | None, typer.Option(min=1, help="Recipes to try. Default: params.yaml's.")] = None,
    storage: Annotated[
        str | None, typer.Option(help="SQLAlchemy address to keep trials at. Default: search.db among the data.")
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="End stdout with one JSON object.")] = False,
) -> None:
    """Search for a better recipe on the months before a month; goes on where it stopped."""
    from taxi.found import keep_found, summary
    from taxi.search import search_recipe

    paths = load_settings().month(parse_service(service), parse_month(month))
    settings, params = load_settings(), load_params()
    if trials:
        params = params.model_copy(update={"search": params.search.model_copy(update={"trials": trials})})
    found = search_recipe(settings, service, month, params, storage)
    lines = keep_found(paths, found, (settings.root / "params.yaml").read_text(encoding="utf-8"))
    if json_:
        print(json.dumps(found, allow_nan=False))
        return
    print(summary(found))
    if lines:
        print(f"\nTo take it over, put this in the place of `model` in params.yaml:\n\n{lines}", end="")


def add_to(app: typer.Typer) -> None:
    """Add ``taxi search``."""
    app.command()(search)
