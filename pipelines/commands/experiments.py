"""Commands ``taxi experiment``, ``backtest`` and ``search``."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from pipelines.commands.options import AsJson, First, Last, Month, NewestMonth, Service
from pipelines.runtime import hand_on
from taxi.config import Settings, load_settings
from taxi.errors import TaxiError

app = typer.Typer()

EXPERIMENT_NOTEBOOK = "06-experiment"
Share = Annotated[
    float | None, typer.Option(min=0.001, max=0.999, help="Of trips to the challenger; default: params.yaml.")
]
Effect = Annotated[float | None, typer.Option(min=0.001, max=0.5, help="Change to be found; default: params.yaml.")]
Power = Annotated[float | None, typer.Option(min=0.5, max=0.999, help="Chance to find it; default: params.yaml.")]
Html = Annotated[bool, typer.Option("--html", help="Write the notebook's page into the reports too.")]

experiment_app = typer.Typer(
    no_args_is_help=True, help="Try a challenger on live trips: what they say, and how many it takes."
)
app.add_typer(experiment_app, name="experiment")


def _experiment_page(settings: Settings, service: str) -> str:
    from taxi.runs.notebooks import run_notebook

    hand_on(settings)
    source = settings.root / "notebooks" / f"{EXPERIMENT_NOTEBOOK}.ipynb"
    page = settings.reports / service / "experiment" / f"{EXPERIMENT_NOTEBOOK}.html"
    return str(run_notebook(source, page, {"service": service, "source": "log"}, cwd=settings.root).page)


@experiment_app.command()
def report(service: Service = "green", json_: AsJson = False, html: Html = False) -> None:
    """Judge the newest experiment in the prediction store: errors by arm, the change with its bounds, the verdict."""
    from taxi.params import load_params

    settings, params = load_settings(), load_params()
    from taxi.experiments.ab_test import judge_experiment
    from taxi.experiments.rehearsal import read_log

    judged = judge_experiment(read_log(settings, service), params)
    result: dict[str, Any] = {"service": service, **judged.result}
    if html:
        result["report"] = _experiment_page(settings, service)
    if json_:
        print(json.dumps(result, allow_nan=False), flush=True)
        return
    print(f"{service}: {judged.note}\n")
    print(judged.scores[["n", "rmse", "mae", "coverage80"]].round(3).to_string(), end="\n\n")
    print(judged.change_table.to_string(), end="\n\n")
    print(judged.sizes.round(4).to_string(), end="\n\n")
    if judged.missing["missing"].any():
        print("Outcomes missing of trips that ended by now, and what chance would leave out:")
        print(judged.missing.round(1).to_string(), end="\n\n")
    print(f"{judged.verdict.name}: {judged.verdict.reason}\n{'Stop.' if judged.verdict.stop else 'Go on.'}")
    if html:
        print(f"Open {result['report']}")


@experiment_app.command()
def plan(
    service: Service = "green",
    month: NewestMonth = None,
    share: Share = None,
    effect: Effect = None,
    power: Power = None,
    json_: AsJson = False,
) -> None:
    """Say how many trips find the effect, from a rehearsal of the month's champion and challenger on its recorded trips."""
    from taxi.params import load_params

    settings, params = load_settings(), load_params()
    from taxi.experiments.ab_test import judge_experiment, plan_experiment
    from taxi.experiments.rehearsal import rehearse

    month = month or _newest(settings, service)
    given = {"share": share, "effect": effect, "power": power}
    chosen = {name: value for name, value in given.items() if value is not None}
    tried = params.model_copy(update={"experiment": params.experiment.model_copy(update=chosen)})
    planned = {
        mode: plan_experiment(
            judge_experiment(rehearse(settings, service, month, mode, tried.experiment), tried).changes,
            tried.experiment,
        )
        for mode in ("share", "shadow")
    }
    asked = {name: getattr(tried.experiment, name) for name in ("effect", "power", "alpha", "share")}
    if json_:
        tables = {mode: table.to_dict("index") for mode, table in planned.items()}
        print(json.dumps({"service": service, "month": month, **asked, "trips": tables}, allow_nan=False), flush=True)
        return
    print(f"{service}, as in {month}: to find a change of {asked['effect']:.1%} with a chance of {asked['power']:.0%}")
    for mode, table in planned.items():
        dealt = f" ({asked['share']:.0%} to the challenger)" if mode == "share" else ""
        for metric, row in table.iterrows():
            print(f"  {mode}{dealt}, by {metric}: {row['trips']:,} trips, {row['days']:,} days")
    print("Set experiment.planned_trips in params.yaml before the first trip.")


def _newest(settings: Settings, service: str) -> str:
    months = [one for one in settings.months_on_hand(service) if _was_tried(settings, service, one)]
    if not months:
        raise TaxiError(
            f"expected a {service} month with champion and challenger; run `taxi run` for two months or more"
        )
    return months[-1]


def _was_tried(settings: Settings, service: str, month: str) -> bool:
    models = settings.month(service, month).models
    return (models / "incumbent").is_dir() and (models / "challenger").is_dir()


# --- ``taxi backtest``: months played again in order, under each policy, and the page that shows what came of it.

BACKTEST_NOTEBOOK = "07-backtest"


def _backtest_page(settings: Settings, service: str, synthetic: bool) -> Path:
    from taxi.data.schema import SYNTHETIC_BANNER
    from taxi.files import sha256_file
    from taxi.runs.notebooks import run_notebook

    source = settings.root / "notebooks" / f"{BACKTEST_NOTEBOOK}.ipynb"
    folder = settings.reports / service / "backtest"
    return run_notebook(
        source,
        folder / f"{BACKTEST_NOTEBOOK}.html",
        {"service": service, "seconds": True},
        cwd=settings.root,
        fingerprint=sha256_file(folder / "backtest.json"),
        banner=SYNTHETIC_BANNER if synthetic else "",
    ).page


def _finish(settings: Settings, played: dict[str, Any]) -> dict[str, Any]:
    """Write the table and the page beside the result; return what ``--json`` prints."""
    from taxi.experiments.backtest_tables import Standings
    from taxi.files import staged
    from taxi.reporting.pages import build_gallery

    standings = Standings(played)
    table = settings.reports / played["service"] / "backtest" / "backtest.parquet"
    with staged(table) as part:
        standings.table.to_parquet(part, index=False)
    page = _backtest_page(settings, played["service"], any(one["synthetic"] for one in played["months"]))
    build_gallery(settings.reports)
    return (
        played
        | {"summary": standings.result["summary"], "answers": standings.answers}
        | {
            "table": str(table),
            "report": str(page),
        }
    )


def _show_backtest(result: dict[str, Any]) -> None:
    import pandas as pd

    from taxi.experiments.backtest_tables import Standings

    print(Standings(result).note.replace("**", ""), end="\n\n")
    print(pd.DataFrame(result["summary"]).set_index("policy").round(4).to_string(), end="\n\n")
    print("\n".join(result["answers"]))
    print(f"Open {result['report']}")


@app.command()
def backtest(
    service: Service,
    first: First,
    last: Last,
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
    json_: AsJson = False,
) -> None:
    """Play months again as they came, under each policy: its errors, alarms, retrainings and costs. Goes on where it stopped."""
    from pipelines.runtime import prepare_process
    from taxi.experiments.backtest_request import SECTIONS, Asked
    from taxi.params import load_params, override, parse_overrides

    asked = Asked(service, first, last, tuple(policy.split(",")), parse_overrides(parameter or [], SECTIONS))
    settings, params = load_settings(), load_params()
    override(params, asked.overrides)
    from taxi.experiments.backtest import play

    prepare_process(settings)
    result = _finish(settings, play(settings, asked, params, jobs, source))
    print(json.dumps(result, allow_nan=False), flush=True) if json_ else _show_backtest(result)


# --- The command that searches for a better recipe; it never changes ``params.yaml``.


@app.command()
def search(
    service: Service,
    month: Month,
    trials: Annotated[int | None, typer.Option(min=1, help="Recipes to try. Default: params.yaml's.")] = None,
    storage: Annotated[
        str | None, typer.Option(help="SQLAlchemy address to keep trials at. Default: search.db among the data.")
    ] = None,
    json_: AsJson = False,
) -> None:
    """Search for a better recipe on the months before a month; goes on where it stopped."""
    from taxi.params import load_params

    settings, params = load_settings(), load_params()
    from taxi.models.search import search_recipe
    from taxi.models.search_result import keep_found, summary

    paths = settings.month(service, month)
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
