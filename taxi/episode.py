"""One month of a backtest under one policy: watched, decided, trained and judged by the functions of the month's own run.

Only what lies around them is another: models come from ``fits`` instead of the registry, and no page is written.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from taxi.comparison import judge_challenger
from taxi.config import Settings
from taxi.explore import read_acceptance
from taxi.fits import Fit, Fits, as_cost, hash_of, trips_of
from taxi.imports import code_of
from taxi.lineage import Version, pick_champion
from taxi.monitor import watch_champion
from taxi.month import month_result
from taxi.month_alarms import judge_month
from taxi.params import Params
from taxi.plan import Plan, describe_incumbent, make_plan
from taxi.policy import decide_training, gather_facts
from taxi.result import record
from taxi.shelf import Shelf

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
    """The result of a month, in the form of ``taxi run``'s with its costs, and all versions that there are after it."""

    result: Json
    versions: tuple[Version, ...]


def _setting(stage: Stage, plan: Plan, champion: Version | None, module: str) -> Json:
    """Return what both watching and judging are made from; version numbers are not in it, so that policies share."""
    return {
        "month": trips_of(stage.settings, plan.service, [plan.month]),
        "champion": champion and champion.source,
        "zones": hash_of(stage.settings.zones / "taxi_zones.zip"),
        "code": code_of(module),
    }


def watch(stage: Stage, plan: Plan, champion: Version | None) -> Json:
    """Return what 03-monitor would record of the champion on the plan's month, with ``trips``, those of the month."""
    settings, service = stage.settings, plan.service
    accepted = {month: hash_of(settings.month(service, month).acceptance) for month in [*plan.earlier, plan.month]}
    made_from = _setting(stage, plan, champion, "taxi.monitor") | {
        "accepted": accepted,
        "reference": trips_of(settings, service, plan.earlier[-1:]),
        "promoted_with": champion and champion.metrics,
        "monitor": stage.params.monitor.model_dump(mode="json"),
    }

    def make(_: Path) -> Json:
        model = stage.fits.load(champion.source) if champion else None
        watched = watch_champion(settings, plan, stage.params, model)
        return record(**watched.result, trips=len(watched.trips)).values

    return stage.shelf.take("watched", made_from, make)


def judge(stage: Stage, plan: Plan, champion: Version | None, challenger: Fit) -> Json:
    """Return what 05-compare would record of the challenger and the champion."""
    made_from = _setting(stage, plan, champion, "taxi.comparison") | {
        "challenger": challenger.name,
        "from": plan.holdout_from,
        "promote": stage.params.promote.model_dump(mode="json"),
    }

    def make(_: Path) -> Json:
        model = stage.fits.load(champion.source) if champion else None
        compared = judge_challenger(stage.settings, plan, stage.params, model, stage.fits.load(challenger.name))
        return record(**compared.result).values

    return stage.shelf.take("judged", made_from, make)


def _version(plan: Plan, role: str, number: int, metrics: dict[str, float], fit: Fit) -> Version:
    months, promoted = plan.months_of(role), plan.month if role == "winner" else None
    return Version(plan.service, number, months[0], months[-1], promoted, metrics, {}, fit.name, "backtest")


def _train(stage: Stage, plan: Plan, champion: Version | None, last: int) -> tuple[Json, list[Fit], list[Version]]:
    fits = [stage.fits.get(plan, "challenger")]
    compared = judge(stage, plan, champion, fits[0])
    if compared["promote"]:
        fits.append(stage.fits.get(plan, "winner"))
    roles = zip(("challenger", "winner"), fits, strict=False)
    made = [_version(plan, role, last + at, compared["challenger"], fit) for at, (role, fit) in enumerate(roles, 1)]
    return compared, fits, made


def _around(plan: Plan, steps: dict[str, Json], champion: Version | None, age: int | None) -> Json:
    """Return what a backtest tells of a month beyond the result of its run."""
    compared = steps.get("05-compare", {})
    return {
        "trips": steps["03-monitor"]["trips"],
        "trained_to": champion and champion.trained_to,
        "age": age,
        "compared_with": plan.earlier[-1] if plan.earlier else None,
        "gap": plan.gap,
        "gain": compared.get("gain"),
        "interval": compared.get("interval"),
    }


def play_month(stage: Stage, service: str, month: str, versions: Sequence[Version], earlier: dict[str, Json]) -> Played:
    """Play one month that was accepted, as it would have come: ``versions`` and ``earlier`` results are those before it."""
    settings, params, champion = stage.settings, stage.params, pick_champion(versions, month)
    on_hand, incumbent = settings.months_on_hand(service), describe_incumbent(champion)
    plan = make_plan(service, month, on_hand, params.model.window_months, incumbent)
    accepted, steps = read_acceptance(settings.month(service, month)), {"03-monitor": watch(stage, plan, champion)}
    facts = gather_facts(month, steps["03-monitor"]["alarms"], accepted["findings"], incumbent, earlier)
    decision = decide_training(facts, params.retrain)
    fits, made = list[Fit](), list[Version]()
    if decision.train:
        steps["05-compare"], fits, made = _train(stage, plan, champion, len(versions))
    numbers = dict(zip(("challenger", "winner"), [one.number for one in made], strict=False))
    result = month_result(settings, plan, accepted, steps, numbers, decision)
    result |= {"policy": params.retrain.policy, "reports": []}  # a backtest writes one page for all its months
    result |= _around(plan, steps, champion, facts.age) | as_cost(fits)
    found = judge_month({**earlier, month: result}, month, (), params.alarms)
    return Played(result | {"findings": [one.as_dict() for one in found.values() if one]}, (*versions, *made))
