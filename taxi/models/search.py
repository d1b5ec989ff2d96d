"""Hyperparameter search on folds in time, resumable. The only module that knows Optuna.

A trial depends on the trials before it and on the seed, not on the process: a stopped search finds what an unbroken one finds.
"""

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import StorageInternalError
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from taxi.addresses import SQLITE, redact, shown
from taxi.config import Settings, resolve_address
from taxi.data.zones import read_zones
from taxi.errors import TaxiError, UsageError
from taxi.features.trip_features import NAMES
from taxi.files import locked, sha256_file, sha256_json
from taxi.models.boosted import XGBOOST
from taxi.models.folds import Fold, FoldTrips, measure, read_fold, relative_loss, rolling_folds
from taxi.models.model import FORMAT
from taxi.models.search_result import describe_search
from taxi.params import ModelParams, Params

RANGES: dict[
    str, tuple[float, float]
] = {  # rounds are not searched: they trade time for accuracy, which a person decides
    "half_life_days": (60.0, 720.0),
    "learning_rate": (0.05, 0.3),
    "max_depth": (6, 11),
    "min_child_weight": (5.0, 80.0),
    "subsample": (0.6, 1.0),
    "colsample_bytree": (0.25, 0.9),
    "reg_lambda": (1.0, 30.0),
    "interval_rounds": (30, 120),
    "interval_learning_rate": (0.08, 0.4),
    "interval_max_depth": (4, 8),
}
DONE = (TrialState.COMPLETE, TrialState.PRUNED)
_LOG = logging.getLogger(__name__)


def search_space(now: ModelParams) -> dict[str, BaseDistribution]:
    """Return what is searched, on a logarithmic scale; each range is widened to hold the current recipe."""
    space: dict[str, BaseDistribution] = {}
    for name, ends in RANGES.items():
        low, high = min(*ends, getattr(now, name)), max(*ends, getattr(now, name))
        kind = IntDistribution if isinstance(ends[0], int) else FloatDistribution
        space[name] = kind(low, high, log=True)
    return space


@dataclass(frozen=True)
class Task:
    """What a search works on: its parameters, the folds' trips, and the zones."""

    params: Params
    folds: list[FoldTrips]
    zones: pd.DataFrame

    def measure(self, recipe: ModelParams, number: int) -> dict[str, float]:
        """Return a recipe's scores on one fold."""
        return measure(recipe, self.params.features, self.folds[number], self.zones)


def study_name(settings: Settings, service: str, month: str, folds: list[Fold], params: Params) -> str:
    """Return a name for all that decides a trial's score: trips, recipe, folds; not for the budget, which may grow."""
    months = sorted({month for fold in folds for month in (*fold.learnt, fold.judged)})
    trips = {month: sha256_file(settings.month(service, month).trips) for month in months}
    decisive = params.search.model_dump(exclude={"trials", "seconds"})
    recipe = [params.model.model_dump(exclude={"device", "threads", "planned"}), params.features.model_dump()]
    made_by = [XGBOOST, FORMAT, NAMES, RANGES]
    return f"{service}-{month}-{sha256_json([trips, decisive, recipe, made_by])[:12]}"


def open_study(address: str, name: str, startup_trials: int) -> optuna.Study:
    """Open or begin a study in the storage at a SQLAlchemy address; raise TaxiError that names it if that fails."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        make_url(address)
    except ArgumentError as error:
        raise UsageError("expected --storage as an SQLAlchemy address, for example sqlite:///search.db") from error
    try:
        return optuna.create_study(
            storage=address,
            study_name=name,
            pruner=optuna.pruners.MedianPruner(n_startup_trials=startup_trials),
            load_if_exists=True,
        )
    except (SQLAlchemyError, NoSuchModuleError, StorageInternalError, ImportError) as error:
        raise TaxiError(f"cannot keep the search in {shown(address)}: {redact(str(error))}") from error


def finished(study: optuna.Study) -> list[FrozenTrial]:
    """Return the trials that were measured, whole or cut short, in order; the first is the current recipe."""
    return study.get_trials(states=DONE)


def forget_broken(study: optuna.Study) -> None:
    """Give up trials that a killed process left running; the caller holds the study alone."""
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)


def measure_current(study: optuna.Study, task: Task) -> None:
    """Measure the current recipe and keep it as the first trial, at a loss of 1."""
    space, now = search_space(task.params.model), task.params.model
    scores = [task.measure(now, number) for number in range(len(task.folds))]
    study.add_trial(
        create_trial(
            params={name: getattr(now, name) for name in space},
            distributions=space,
            value=1.0,
            intermediate_values=dict.fromkeys(range(len(scores)), 1.0),
            user_attrs={"scores": scores, "settings": {name: getattr(now, name) for name in space}},
        )
    )


def _suggest(trial: Trial, now: ModelParams) -> dict[str, Any]:
    drawn: dict[str, Any] = {}
    for name, ends in search_space(now).items():
        draw = trial.suggest_int if isinstance(ends, IntDistribution) else trial.suggest_float
        drawn[name] = draw(name, ends.low, ends.high, log=True)  # type: ignore[attr-defined]
    return {name: float(f"{value:.3g}") if isinstance(value, float) else value for name, value in drawn.items()}


def try_one(study: optuna.Study, task: Task) -> None:
    """Draw a recipe, measure it fold by fold, and give it up where it is worse than most were at that fold."""
    params, before = task.params.search, finished(study)
    study.sampler = optuna.samplers.TPESampler(n_startup_trials=params.startup_trials, seed=params.seed + len(before))
    trial, now = study.ask(), before[0].user_attrs["scores"]
    settings = _suggest(trial, task.params.model)
    trial.set_user_attr("settings", settings)
    recipe, scores = task.params.model.model_copy(update=settings), []
    for number in range(len(task.folds)):
        scores.append(task.measure(recipe, number))
        loss = relative_loss(scores, now)
        trial.report(loss, number)
        if len(scores) < len(task.folds) and trial.should_prune():
            study.tell(trial, state=TrialState.PRUNED)
            _LOG.info("trial %d: %.4f, given up after fold %d", len(before), loss, number + 1)
            return
    trial.set_user_attr("scores", scores)
    study.tell(trial, loss)
    _LOG.info("trial %d: %.4f (1 is the current recipe)", len(before), loss)


def run_trials(study: optuna.Study, task: Task) -> float:
    """Go on until the budget of trials or of seconds is spent; return the seconds that it took."""
    begun = time.monotonic()
    forget_broken(study)
    if not finished(study):
        measure_current(study, task)
    while len(finished(study)) <= task.params.search.trials:
        if time.monotonic() - begun > task.params.search.seconds:
            _LOG.warning("the budget of %.0f seconds is spent", task.params.search.seconds)
            break
        try_one(study, task)
    return time.monotonic() - begun


def search_recipe(
    settings: Settings, service: str, month: str, params: Params, storage: str | None = None
) -> dict[str, Any]:
    """Search on the months before ``month``; return what ``found.describe`` makes of it.

    ``storage`` is any SQLAlchemy address, by default a SQLite file among the data; one process at a time works on a study.
    Raises UsageError unless the recipe's kind is xgboost, TaxiError without two months before ``month``.
    """
    if params.model.kind != "xgboost":
        raise UsageError(f"expected model.kind xgboost in params.yaml for a search; got {params.model.kind}")
    folds = rolling_folds(month, settings.months_on_hand(service), params.model.window_months, params.search.folds)
    name = study_name(settings, service, month, folds, params)
    settings.data.mkdir(parents=True, exist_ok=True)
    address = resolve_address(storage, Path.cwd()) if storage else f"{SQLITE}{settings.data / 'search.db'}"
    with locked(settings.data / ".locks" / f"search-{service}-{month}.lock"):
        study = open_study(address, name, params.search.startup_trials)
        trips = [read_fold(settings, service, fold, params.search) for fold in folds]
        seconds = run_trials(study, Task(params, trips, read_zones(settings.zones)))
    counts = {"tried": len(finished(study)) - 1, "pruned": len(study.get_trials(states=(TrialState.PRUNED,)))}
    return describe_search(
        service,
        month,
        trips,
        study.best_trial.user_attrs,
        finished(study)[0].user_attrs,
        counts,
        params.search,
        seconds,
    )
