"""A backtest's fitted models: each is fitted once, whichever months and policies ask for it, and stays on disk.

A fit is determined by its months' trips, the moment that they end, and the recipe. So the winner of one month is the
challenger of the next, and policies share both.
"""

import time
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from taxi.config import Settings
from taxi.files import sha256_file
from taxi.imports import code_of
from taxi.model import DurationModel, load_model, save_model
from taxi.params import Params
from taxi.plan import Plan
from taxi.shelf import Shelf
from taxi.training import train_challenger, train_winner

TRAIN = {"challenger": train_challenger, "winner": train_winner}


@dataclass(frozen=True)
class Fit:
    """A fitted model: the folder that holds it, the trips that it learnt from, and the seconds that fitting it took."""

    folder: Path
    trips: int
    seconds: float

    @property
    def name(self) -> str:
        """What the fit is known by: a hash of what it was made from."""
        return self.folder.name


@cache
def _hash_at(path: Path, _changed: int) -> str:
    return sha256_file(path)


def hash_of(path: Path) -> str:
    """Return a file's SHA-256; a file that has not changed is read once."""
    return _hash_at(path, path.stat().st_mtime_ns)


def trips_of(settings: Settings, service: str, months: list[str]) -> dict[str, str]:
    """Return the SHA-256 of the kept trips of each month."""
    return {month: hash_of(settings.month(service, month).trips) for month in months}


@dataclass(frozen=True)
class Fits:
    """The fits on a shelf, made by the month's own training where they are not there yet."""

    settings: Settings
    params: Params
    shelf: Shelf

    def made_from(self, plan: Plan, role: str) -> dict[str, Any]:
        """Return all that decides the plan's ``challenger`` or ``winner``; threads and device do not."""
        return {
            "trips": trips_of(self.settings, plan.service, plan.months_of(role)),
            "before": plan.as_of(role).isoformat(),
            "zones": hash_of(self.settings.zones / "taxi_zones.zip"),
            "model": self.params.model.model_dump(mode="json", exclude={"threads", "device", "window_months"}),
            "features": self.params.features.model_dump(mode="json"),
            "code": code_of("taxi.fitting"),
        }

    def get(self, plan: Plan, role: str) -> Fit:
        """Return the plan's ``challenger`` or ``winner``, fitted now if it never was."""

        def fit(folder: Path) -> dict[str, Any]:
            begun = time.perf_counter()
            model = TRAIN[role](self.settings, plan, self.params)
            save_model(model, folder)
            return {"trips": model.recipe["trips"], "seconds": round(time.perf_counter() - begun, 2)}

        made_from = self.made_from(plan, role)
        return Fit(self.shelf.place("fits", made_from), **self.shelf.take("fits", made_from, fit))

    def load(self, name: str) -> DurationModel:
        """Return the model of a fit."""
        return load_model(self.shelf.folder / "fits" / name)


def as_cost(fits: list[Fit]) -> dict[str, Any]:
    """Return what a month's fits cost: how many, from how many trips, in how many seconds (as if none had been there)."""
    told = [asdict(one) for one in fits]
    sums = {name: sum(one[name] for one in told) for name in ("trips", "seconds")}
    return {"fits": len(fits), "fitted_trips": sums["trips"], "fit_seconds": round(sums["seconds"], 2)}
