"""One month of a backtest under one policy: watched, decided, trained and judged by the functions of the month's own run.

Only what lies around them is another: models come from ``fits`` instead of the registry, and no page is written.
"""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from taxi.config import Settings
from taxi.data.acceptance import read_acceptance
from taxi.files import from_json
from taxi.fingerprint import Shelf, code_of, hash_path
from taxi.models.model import DurationModel, load_model, save_model
from taxi.monitoring.alarm_rules import judge_result
from taxi.monitoring.monitor import watch_champion
from taxi.params import Params
from taxi.registry.versions import Version, pick_champion
from taxi.runs.month_result import MonthResult, month_result, trained_months
from taxi.runs.record import record
from taxi.training.plan import Plan, describe_incumbent, make_plan
from taxi.training.policy import decide_training, gather_facts
from taxi.training.promotion import judge_challenger
from taxi.training.step_result import CompareResult, MonitorResult
from taxi.training.train import train_challenger, train_winner

# --- A backtest's fitted models: each is fitted once, whichever months and policies ask for it, and stays on disk.
#
# A fit is determined by its months' trips, the moment that they end, and the recipe. So the winner of one month is the
# challenger of the next, and policies share both.

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


def trips_of(settings: Settings, service: str, months: list[str]) -> dict[str, str | None]:
    """Return the SHA-256 of the kept trips of each month."""
    return {month: hash_path(settings.month(service, month).trips) for month in months}


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
            "zones": hash_path(self.settings.zones / "taxi_zones.zip"),
            "model": self.params.model.model_dump(mode="json", exclude={"threads", "device", "window_months"}),
            "features": self.params.features.model_dump(mode="json"),
            "code": code_of("taxi.models.fitting"),
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


Json = dict[str, Any]


@dataclass(frozen=True)
class Stage:
    """Where a backtest plays, and by which parameters (those of one policy)."""

    settings: Settings
    params: Params
    shelf: Shelf

    @property
    def fits(self) -> Fits:
        """The models that were fitted so far."""
        return Fits(self.settings, self.params, self.shelf)


@dataclass(frozen=True)
class Played:
    """The result of a month, the same as ``taxi run`` prints it with its costs, and all versions that there are after it."""

    month: MonthResult
    result: Json
    versions: tuple[Version, ...]


def _setting(stage: Stage, plan: Plan, champion: Version | None, module: str) -> Json:
    """Return what both watching and judging are made from; version numbers are not in it, so that policies share."""
    return {
        "month": trips_of(stage.settings, plan.service, [plan.month]),
        "champion": champion and champion.source,
        "zones": hash_path(stage.settings.zones / "taxi_zones.zip"),
        "code": code_of(module),
    }


def _as_recorded(plan: Plan, notebook: str, values: Json) -> Json:
    return {
        "notebook": notebook,
        "parameters": {"service": plan.service, "month": plan.month},
        "fingerprint": "",
    } | values


def watch(stage: Stage, plan: Plan, champion: Version | None) -> tuple[MonitorResult, int]:
    """Return what 03-monitor would record of the champion on the plan's month, and how many trips the month has."""
    settings, service = stage.settings, plan.service
    accepted = {month: hash_path(settings.month(service, month).acceptance) for month in [*plan.earlier, plan.month]}
    made_from = _setting(stage, plan, champion, "taxi.monitoring.monitor") | {
        "accepted": accepted,
        "reference": trips_of(settings, service, plan.earlier[-1:]),
        "promoted_with": champion and champion.metrics,
        "monitor": stage.params.monitor.model_dump(mode="json"),
    }

    def make(_: Path) -> Json:
        model = stage.fits.load(champion.source) if champion else None
        watched = watch_champion(settings, plan, stage.params, model)
        return record(**watched.result, trips=len(watched.trips)).values

    watched = stage.shelf.take("watched", made_from, make)
    return from_json(_as_recorded(plan, "03-monitor", watched), MonitorResult), watched["trips"]


def judge(stage: Stage, plan: Plan, champion: Version | None, challenger: Fit) -> CompareResult:
    """Return what 05-compare would record of the challenger and the champion."""
    made_from = _setting(stage, plan, champion, "taxi.training.promotion") | {
        "challenger": challenger.name,
        "from": plan.holdout_from,
        "promote": stage.params.promote.model_dump(mode="json"),
    }

    def make(_: Path) -> Json:
        model = stage.fits.load(champion.source) if champion else None
        compared = judge_challenger(stage.settings, plan, stage.params, model, stage.fits.load(challenger.name))
        return record(**compared.result).values

    judged = stage.shelf.take("judged", made_from, make)
    return from_json(_as_recorded(plan, "05-compare", judged), CompareResult)


def _version(plan: Plan, role: str, number: int, metrics: dict[str, float], fit: Fit) -> Version:
    months, promoted = plan.months_of(role), plan.month if role == "winner" else None
    return Version(plan.service, number, months[0], months[-1], promoted, metrics, {}, fit.name, "backtest")


def _train(
    stage: Stage, plan: Plan, champion: Version | None, last: int
) -> tuple[CompareResult, list[Fit], list[Version]]:
    fits = [stage.fits.get(plan, "challenger")]
    compared = judge(stage, plan, champion, fits[0])
    if compared.promote:
        fits.append(stage.fits.get(plan, "winner"))
    roles = zip(("challenger", "winner"), fits, strict=False)
    made = [_version(plan, role, last + at, compared.challenger, fit) for at, (role, fit) in enumerate(roles, 1)]
    return compared, fits, made


def _around(plan: Plan, trips: int, compared: CompareResult | None, champion: Version | None, age: int | None) -> Json:
    """Return what a backtest tells of a month beyond the result of its run."""
    return {
        "trips": trips,
        "trained_to": champion and champion.trained_to,
        "age": age,
        "compared_with": plan.earlier[-1] if plan.earlier else None,
        "gap": plan.gap,
        "gain": compared and compared.gain,
        "interval": compared and list(compared.interval),
    }


def play_month(
    stage: Stage, service: str, month: str, versions: Sequence[Version], earlier: dict[str, MonthResult]
) -> Played:
    """Play one month that was accepted, as it would have come: ``versions`` and ``earlier`` results are those before it."""
    settings, params, champion = stage.settings, stage.params, pick_champion(versions, month)
    on_hand, incumbent = settings.months_on_hand(service), describe_incumbent(champion)
    plan = make_plan(service, month, on_hand, params.model.window_months, incumbent)
    accepted, (monitor, trips) = read_acceptance(settings.month(service, month)), watch(stage, plan, champion)
    facts = gather_facts(month, monitor.alarms, accepted.findings, incumbent, trained_months(earlier))
    decision = decide_training(facts, params.retrain)
    compared, fits, made = None, list[Fit](), list[Version]()
    if decision.train:
        compared, fits, made = _train(stage, plan, champion, len(versions))
    numbers = dict(zip(("challenger", "winner"), [one.number for one in made], strict=False))
    result = month_result(settings, plan, accepted, monitor, compared, numbers, decision)
    found = judge_result({**earlier, month: result}, month, (), params.alarms)
    told = result.as_json() | {"findings": [one.as_dict() for one in found.values() if one]}
    told |= {"policy": params.retrain.policy, "reports": []}  # a backtest writes one page for all its months
    told |= _around(plan, trips, compared, champion, facts.age) | as_cost(fits)
    return Played(result, told, (*versions, *made))
