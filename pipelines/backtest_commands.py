"""``taxi backtest``: months played again in order, under each policy, and the page that shows what came of it."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from taxi.config import Settings, load_settings
from taxi.params import load_params

NOTEBOOK = "07-backtest"


def _page(settings: Settings, service: str, synthetic: bool) -> Path:
    from taxi.files import sha256_file
    from taxi.notebooks import run_notebook
    from taxi.schema import SYNTHETIC_BANNER

    source = settings.root / "notebooks" / f"{NOTEBOOK}.ipynb"
    folder = settings.reports / service / "backtest"
    return run_notebook(
        source,
        folder / f"{NOTEBOOK}.html",
        {"service": service, "seconds": True},
        cwd=settings.root,
        fingerprint=sha256_file(folder / "backtest.json"),
        banner=SYNTHETIC_BANNER if synthetic else "",
    ).page


def _finish(settings: Settings, played: dict[str, Any]) -> dict[str, Any]:
    """Write the table and the page beside the result; return what ``--json`` prints."""
    from taxi.files import staged
    from taxi.reports import build_gallery
    from taxi.standings import Standings

    standings = Standings(played)
    table = settings.reports / played["service"] / "backtest" / "backtest.parquet"
    with staged(table) as part:
        standings.table.to_parquet(part, index=False)
    page = _page(settings, played["service"], any(one["synthetic"] for one in played["months"]))
    build_gallery(settings.reports)
    return (
        played
        | {"summary": standings.result["summary"], "answers": standings.answers}
        | {
            "table": str(table),
            "report": str(page),
        }
    )


def _show(result: dict[str, Any]) -> None:
    import pandas as pd

    from taxi.standings import Standings

    print(Standings(result).note.replace("**", ""), end="\n\n")
    print(pd.DataFrame(result["summary"]).set_index("policy").round(4).to_string(), end="\n\n")
    print("\n".join(result["answers"]))
    print(f"Open {result['report']}")


def backtest(
    service: Annotated[str, typer.Option(help="green or yellow.")],
    first: Annotated[str, typer.Option("--from", help="First month to play, as YYYY-MM.")],
    last: Annotated[str, typer.Option("--to", help="Last month to play, as YYYY-MM; included.")],
    policy: Annotated[str, typer.Option(help="Out of auto, never and always, separated by commas.")] = (
        "auto,never,always"
    ),
    jobs: Annotated[int, typer.Option(min=1, help="Processes that share the work.")] = 1,
    source: Annotated[
        str | None, typer.Option(envvar="TAXI_SOURCE", help="Asked for months that are not on hand; default: nobody.")
    ] = None,
    parameter: Annotated[
        list[str] | None,
        typer.Option(
            "-p", help="section.name=value in place of params.yaml's; may be repeated. For trying things out."
        ),
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="End stdout with one JSON object.")] = False,
) -> None:
    """Play months again as they came, under each policy: its errors, alarms, retrainings and costs. Goes on where it stopped."""
    from pipelines.runtime import prepare_process
    from taxi.backtest import SECTIONS, Asked, play
    from taxi.overrides import parse_overrides

    asked = Asked(service, first, last, tuple(policy.split(",")), parse_overrides(parameter or [], SECTIONS))
    settings, params = load_settings(), load_params()
    prepare_process(settings)
    result = _finish(settings, play(settings, asked, params, jobs, source))
    print(json.dumps(result, allow_nan=False), flush=True) if json_ else _show(result)


def add_to(app: typer.Typer) -> None:
    """Add ``taxi backtest``."""
    app.command()(backtest)
