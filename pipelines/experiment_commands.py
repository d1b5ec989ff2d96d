"""``taxi experiment``: what live trips say about a challenger, and how many of them it takes."""

import json
from typing import Annotated, Any

import typer

from taxi.config import Settings, load_settings, parse_service
from taxi.errors import TaxiError
from taxi.months import parse_month
from taxi.params import load_params

NOTEBOOK = "06-experiment"
Service = Annotated[str, typer.Option(help="green or yellow.")]
AsJson = Annotated[bool, typer.Option("--json", help="End stdout with one JSON object.")]
Share = Annotated[
    float | None, typer.Option(min=0.001, max=0.999, help="Of trips to the challenger; default: params.yaml.")
]
Effect = Annotated[float | None, typer.Option(min=0.001, max=0.5, help="Change to be found; default: params.yaml.")]
Power = Annotated[float | None, typer.Option(min=0.5, max=0.999, help="Chance to find it; default: params.yaml.")]
Month = Annotated[str | None, typer.Option(help="Month to rehearse, as YYYY-MM. Default: the newest that was run.")]
Html = Annotated[bool, typer.Option("--html", help="Write the notebook's page into the reports too.")]

app = typer.Typer(no_args_is_help=True, help="Try a challenger on live trips: what they say, and how many it takes.")


def add_to(parent: typer.Typer) -> None:
    """Add ``taxi experiment`` to the command line."""
    parent.add_typer(app, name="experiment")


def _page(settings: Settings, service: str) -> str:
    from taxi.notebooks import run_notebook

    source = settings.root / "notebooks" / f"{NOTEBOOK}.ipynb"
    page = settings.reports / service / "experiment" / f"{NOTEBOOK}.html"
    return str(run_notebook(source, page, {"service": service, "source": "log"}, cwd=settings.root).page)


@app.command()
def report(service: Service = "green", json_: AsJson = False, html: Html = False) -> None:
    """Judge the newest experiment in the prediction store: errors by arm, the change with its bounds, the verdict."""
    from taxi.experiment import judge_experiment
    from taxi.rehearsal import read_log

    settings, params = load_settings(), load_params()
    judged = judge_experiment(read_log(settings, parse_service(service)), params)
    result: dict[str, Any] = {"service": service, **judged.result}
    if html:
        result["report"] = _page(settings, service)
    if json_:
        print(json.dumps(result, allow_nan=False), flush=True)
        return
    print(f"{service}: {judged.note}\n")
    print(judged.scores[["n", "rmse", "mae", "coverage80"]].round(3).to_string(), end="\n\n")
    print(judged.change_table.to_string(), end="\n\n")
    print(judged.sizes.round(4).to_string(), end="\n\n")
    print(f"{judged.verdict.name}: {judged.verdict.reason}\n{'Stop.' if judged.verdict.stop else 'Go on.'}")
    if html:
        print(f"Open {result['report']}")


@app.command()
def plan(
    service: Service = "green",
    month: Month = None,
    share: Share = None,
    effect: Effect = None,
    power: Power = None,
    json_: AsJson = False,
) -> None:
    """Say how many trips find the effect, from a rehearsal of the month's champion and challenger on its recorded trips."""
    from taxi.experiment import judge_experiment, plan_experiment
    from taxi.rehearsal import rehearse

    settings, params = load_settings(), load_params()
    month = parse_month(month) if month else _newest(settings, parse_service(service))
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
