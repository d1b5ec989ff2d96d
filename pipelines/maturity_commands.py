"""``taxi maturity``: how far this repository is by Microsoft's maturity model, with proof and with what is missing."""

import json
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from taxi.config import find_root
from taxi.maturity import LEVELS, Cell, as_answer, judge, level_reached
from taxi.maturity_cells import CELLS
from taxi.repository import Repository


def command_names(app: typer.Typer) -> frozenset[str]:
    """Return the names of the commands and groups of commands that ``app`` registers."""
    own = [one.name or one.callback.__name__ for one in app.registered_commands if one.callback]
    return frozenset([*own, *(str(one.name) for one in app.registered_groups)])


def _show(cells: list[Cell], reached: int) -> None:
    table = Table("level", "area", "", "what it asks, and what shows it", title=f"level {reached} is reached")
    for cell in cells:
        lines = [
            f"{need.asks}: {need.proof}" if need.met else f"[bold]missing[/] {need.asks}: {need.missing or 'no proof'}"
            for need in cell.needs
        ]
        table.add_row(str(cell.level), cell.area, "yes" if cell.met else "no", "\n".join(lines), end_section=True)
    table.caption = "people are judged by what they left in the repository: nothing here can see who talks to whom"
    Console(width=None if Console().is_terminal else 150).print(table)


def add_to(app: typer.Typer) -> None:
    """Add the command to the command line, of whose commands it speaks."""

    @app.command()
    def maturity(
        level: Annotated[
            int | None, typer.Option(min=1, max=4, help="Only this level; exit 1 if it is not met.")
        ] = None,
        json_: Annotated[bool, typer.Option("--json", help="End stdout with one JSON object.")] = False,
    ) -> None:
        """Judge every cell of Microsoft's MLOps maturity model, levels 1 to 4, by what is in this repository."""
        cells = judge(Repository(find_root(), command_names(app)), CELLS)
        shown = [cell for cell in cells if level in (None, cell.level)]
        if json_:
            answer = as_answer(cells) | {"names": LEVELS}
            chosen = [one for one in answer["cells"] if level in (None, one["level"])]
            print(json.dumps(answer | {"cells": chosen}, allow_nan=False), flush=True)
        else:
            _show(shown, level_reached(cells))
        raise typer.Exit(0 if level is None or all(cell.met for cell in shown) else 1)
