"""``taxi status``: months on hand, champion, last verdicts."""

from typing import Annotated

import typer

from taxi.config import SERVICES, load_settings, parse_service


def status(service: Annotated[str | None, typer.Option(help="green or yellow; both by default.")] = None) -> None:
    """Show the months on hand, the champion, and the last verdicts."""
    from taxi.aliases import settle
    from taxi.month import read_results
    from taxi.registry import champion_now

    settings = load_settings()
    for one in [parse_service(service)] if service else SERVICES:
        settle(settings.tracking_uri, one)
        on_hand = settings.months_on_hand(one)
        champion = champion_now(settings.tracking_uri, one)
        held = f"{len(on_hand)} months on hand, {on_hand[0]} to {on_hand[-1]}" if on_hand else "no months on hand"
        ruling = (
            f"champion {one}/{champion.number}, trained to {champion.trained_to}" if champion else "no champion yet"
        )
        print(f"{one}: {held}; {ruling}")
        for result in list(read_results(settings.reports, one).values())[-6:]:
            words = ", ".join([result["verdict"] or "–", *result["alarms"]])
            print(f"  {result['month']}  {result['status']:8}  {words:32}  {result['reason']}")


def add_to(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command()(status)
