"""The commands about traffic: replay a month to a service, take the publisher's month as outcomes, score a batch."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from taxi.config import load_settings, parse_service
from taxi.months import parse_month

Service = Annotated[str, typer.Option(help="green or yellow.")]
Month = Annotated[str, typer.Option(help="The month of pickup, as YYYY-MM.")]
AsJson = Annotated[bool, typer.Option("--json", help="End stdout with one JSON object.")]


def _answer(result: dict[str, Any], as_json: bool, sentence: str) -> None:
    print(json.dumps(result, allow_nan=False) if as_json else sentence, flush=True)


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
    from taxi.model import load_model
    from taxi.registry import download_model, find_version
    from taxi.scoring import month_to_score, score_file

    parse_service(service), parse_month(month)
    settings = load_settings()
    path = trips or month_to_score(settings, service, month)
    found = find_version(settings.tracking_uri, version, service)
    folder = settings.data / "models" / service / "versions" / str(found.number)
    download_model(settings.tracking_uri, found, folder)
    marks = {"version": f"{service}/{found.number}", "model_sha256": found.tags["model_sha256"]}
    result = score_file(path, out, service, month, load_model(folder), found.number, marks)
    left = ", ".join(f"{count:,} {reason}" for reason, count in result["not_scorable"].items()) or "none"
    said = f"{service} {month}: {result['scored']:,} of {result['rows']:,} trips scored by {service}/{found.number}"
    _answer(result, json_, f"{said}; left out: {left}. {out}")


def add_to(app: typer.Typer) -> None:
    """Add these commands to the ``taxi`` command."""
    for command in (score,):
        app.command()(command)
