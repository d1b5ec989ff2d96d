"""Microsoft's maturity model of machine learning operations, held against this repository: what proves a cell, what is missing.

Source: https://learn.microsoft.com/azure/architecture/ai-ml/guide/mlops-maturity-model, levels 1 to 4, four areas each.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from taxi.repository import Repository

AREAS = ("people", "model creation", "model release", "application integration")
LEVELS = {
    1: "DevOps, no MLOps",
    2: "Automated training",
    3: "Automated model deployment",
    4: "Full MLOps, automated operations",
}


@dataclass(frozen=True)
class Need:
    """One thing that a cell asks for; ``proof`` shows it, or ``missing`` says what is not there."""

    asks: str
    proof: str = ""
    missing: str = ""

    @property
    def met(self) -> bool:
        """Whether there is proof, and nothing is missing."""
        return bool(self.proof) and not self.missing


Check = Callable[[Repository], list[Need]]


@dataclass(frozen=True)
class Cell:
    """One cell of the model, judged."""

    level: int
    area: str
    needs: list[Need]

    @property
    def met(self) -> bool:
        """Whether everything is proved that the cell asks for."""
        return bool(self.needs) and all(need.met for need in self.needs)


def judge(repository: Repository, checks: dict[tuple[int, str], Check]) -> list[Cell]:
    """Return every cell judged, by level and area."""
    return [Cell(level, area, checks[level, area](repository)) for level in LEVELS for area in AREAS]


def level_reached(cells: Sequence[Cell]) -> int:
    """Return the highest level all of whose cells, and all of those below, are met; 0 if the first is not."""
    reached = 0
    for level in LEVELS:
        if not all(cell.met for cell in cells if cell.level == level):
            return reached
        reached = level
    return reached


def as_answer(cells: Sequence[Cell]) -> dict[str, Any]:
    """Return what ``taxi maturity --json`` prints."""
    listed = [
        {"level": cell.level, "area": cell.area, "met": cell.met, "needs": [asdict(need) for need in cell.needs]}
        for cell in cells
    ]
    return {"level": level_reached(cells), "cells": listed}
