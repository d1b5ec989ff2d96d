"""Commands on registered versions: ``taxi rollback``, ``approve``, ``promote``, ``lineage``."""

import getpass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.commands.options import AsJson, Service, answer
from taxi.config import load_settings
from taxi.errors import UsageError

if TYPE_CHECKING:
    from taxi.registry.release import Condition
    from taxi.registry.versions import Version

app = typer.Typer()

Wanted = Annotated[
    str, typer.Argument(metavar="VERSION", help="SERVICE/NUMBER or SERVICE/champion, for example green/3.")
]
Environment = Annotated[str, typer.Option(help="dev, staging or prod.")]
By = Annotated[str | None, typer.Option(help="Who does it; by default the user of this process.")]


@app.command()
def rollback(
    service: Service,
    to: Annotated[int | None, typer.Option(help="A version's number; by default the champion before this one.")] = None,
    reason: Annotated[str, typer.Option(help="Why; kept with the version.")] = "no reason given",
    environment: Environment = "dev",
    by: By = None,
    json_: AsJson = False,
) -> None:
    """Return to the previous champion, for good: a monthly run does not bring the rolled-back version back."""
    from taxi.registry.aliases import roll_back

    settings = load_settings()
    who = by or getpass.getuser()

    def tell(before: "Version | None", now: "Version") -> None:
        numbers = {"from": before and before.number, "to": now.number}
        was = before.label if before else "none"
        words = f"{service}: champion is {now.label}, trained to {now.trained_to}; it was {was}"
        answer({"service": service, "environment": environment, **numbers, "reason": reason, "by": who}, words, json_)

    roll_back(settings.tracking_uri, service, who, reason, to, environment, tell)


@app.command()
def approve(
    version: Wanted,
    report: Annotated[
        Path, typer.Option(help="The report that was read: one of the version's own, its bytes unchanged.")
    ],
    for_: Annotated[str, typer.Option("--for", help="The environment that it may enter.")] = "dev",
    environment: Annotated[str, typer.Option(help="The environment that VERSION is counted in.")] = "dev",
    by: By = None,
    json_: AsJson = False,
) -> None:
    """Let a version into an environment where params.yaml asks for a person's approval (release.approval)."""
    from taxi.params import load_params

    settings, params = load_settings(), load_params()
    if not report.is_file():
        raise UsageError(f"expected a report to read at {report}; there is none")
    from taxi.files import sha256_file
    from taxi.registry.aliases import approve as record_approval
    from taxi.registry.versions import champion_now, find_version

    uri, who, digest = settings.tracking_uri, by or getpass.getuser(), sha256_file(report)
    found = find_version(uri, version, environment=environment)
    found = record_approval(uri, found, for_, report.name, digest, who, params)
    champion = champion_now(uri, found.service, environment)
    result = {"version": found.label, "approved_for": for_, "by": who, "report": report.name, "sha256": digest}
    now = f"the champion of {environment} is {champion.label if champion else 'none'}"
    answer(
        result | {"champion": champion and champion.number},
        f"{found.label} is approved for {for_} by {who}; {now}",
        json_,
    )


@app.command()
def promote(
    version: Wanted,
    to: Annotated[str, typer.Option(help="staging or prod; VERSION is counted in the environment before.")],
    by: By = None,
    json_: AsJson = False,
) -> None:
    """Copy a champion into the next environment, if that one's gate is open, and make it champion there."""
    from taxi.params import load_params

    settings, params = load_settings(), load_params()
    from taxi.registry.lineage import gate_faults
    from taxi.registry.release import environment_before
    from taxi.registry.release import promote as enter
    from taxi.registry.versions import find_version

    one = find_version(settings.tracking_uri, version, environment=environment_before(to))

    def tell(made: "Version", checks: "list[Condition]") -> None:
        passed = [{"check": check.name, "reason": check.reason} for check in checks]
        lines = [f"{one.label} is {made.label}, and champion there", *(f"  {c.name}: {c.reason}" for c in checks)]
        result = {"from": one.label, "to": made.label, "environment": to, "version": made.number, "checks": passed}
        answer(result, "\n".join(lines), json_)

    faults = gate_faults(settings, one, to)
    enter(settings.tracking_uri, one, to, params, faults, by or getpass.getuser(), tell)


@app.command()
def lineage(
    wanted: Annotated[
        str, typer.Argument(metavar="VERSION|PREDICTION_ID", help="green/3, green/champion, or a prediction's id.")
    ],
    environment: Environment = "dev",
    html: Annotated[Path | None, typer.Option(help="Also write a page with a picture to this file.")] = None,
    predictions: Annotated[
        str | None,
        typer.Option(help="The prediction log's address. Default: TAXI_PREDICTIONS, or predictions.db in TAXI_DATA."),
    ] = None,
    json_: AsJson = False,
) -> None:
    """Go from a version or a prediction back to raw bytes, code and reports, recomputing every hash; exit 1 if one differs."""
    from taxi.registry.lineage import trace
    from taxi.reporting.pages import write_lineage_page, write_text

    settings = load_settings()
    trail = trace(settings, wanted, environment, predictions)
    if html:
        write_lineage_page(trail, html.absolute())
    answer(trail | {"page": str(html.absolute()) if html else None}, write_text(trail), json_)
    raise typer.Exit(0 if trail["verified"] else 1)
