"""Training of the month's models: which trips train and judge them, and where they are kept."""

from collections.abc import Sequence
from functools import partial

import pandas as pd

from taxi.config import Settings
from taxi.data.schema import read_trips
from taxi.data.zones import read_zones
from taxi.models.fitting import COLUMNS, Part, fit_model, fit_months
from taxi.models.model import DurationModel, load_model, save_model
from taxi.params import ModelParams, Params
from taxi.training.plan import Plan


def read_months(settings: Settings, service: str, months: list[str], columns: list[str] | None = None) -> pd.DataFrame:
    """Read the kept trips of several months into one canonical frame, in the order of the months."""
    return read_trips([settings.month(service, month).trips for month in months], columns=columns)


def _before_holdout(plan: Plan, trips: pd.DataFrame) -> pd.DataFrame:
    if not plan.holdout_from:
        return trips
    return trips[trips["pickup"] < pd.Timestamp(plan.holdout_from)].reset_index(drop=True)


def newest(trips: pd.DataFrame, rows: int) -> pd.DataFrame:
    """Return the ``rows`` trips with the latest pickups, in their order."""
    return trips.nlargest(rows, "pickup", keep="first").sort_index() if len(trips) > rows else trips


def newest_trips(settings: Settings, plan: Plan, rows: int = 200_000) -> pd.DataFrame:
    """Return the latest ``rows`` of the training trips, in their order; older months than that takes are not read."""
    months: list[pd.DataFrame] = []
    for month in reversed(plan.learnt):
        months.insert(0, _before_holdout(plan, read_months(settings, plan.service, [month])))
        if sum(map(len, months)) >= rows:
            break
    return newest(pd.concat(months, ignore_index=True), rows)


def judging_trips(settings: Settings, plan: Plan) -> pd.DataFrame:
    """Return the trips of the month that neither the incumbent nor the challenger has seen."""
    trips = read_months(settings, plan.service, [plan.month])
    if not plan.holdout_from:
        return trips
    return trips[trips["pickup"] >= pd.Timestamp(plan.holdout_from)].reset_index(drop=True)


def month_parts(settings: Settings, service: str, months: Sequence[str]) -> list[Part]:
    """Return one reader a month, of the columns that a fit needs; a month is read when its reader is called."""
    return [partial(read_trips, settings.month(service, month).trips, COLUMNS) for month in months]


def _divided_month(settings: Settings, plan: Plan) -> pd.DataFrame:
    return _before_holdout(plan, read_months(settings, plan.service, [plan.month], COLUMNS))


def training_parts(settings: Settings, plan: Plan) -> list[Part]:
    """Return what trains the challenger, month by month."""
    whole = month_parts(settings, plan.service, plan.window)
    divided = [partial(_divided_month, settings, plan)] if plan.holdout_from else []
    return [*whole, *divided]


def fit_parts(
    settings: Settings, parts: Sequence[Part], recipe: ModelParams, params: Params, as_of: pd.Timestamp
) -> DurationModel:
    """Fit the recipe on months of trips, all before ``as_of``, where ``settings.engine`` says: in this process, or on a cluster."""
    zones = read_zones(settings.zones)
    if settings.scheduler is None:
        return fit_months(parts, zones, recipe, params.features, as_of)
    from taxi.models.cluster import fit_months_on

    return fit_months_on(settings.scheduler, settings.data, parts, zones, recipe, params.features, as_of)


def train_challenger(settings: Settings, plan: Plan, params: Params, kind: str | None = None) -> DurationModel:
    """Fit the recipe (or another ``kind`` of it) on the plan's window; raise ValueError if a trip is from after it."""
    recipe = params.model.model_copy(update={"kind": kind}) if kind else params.model
    return fit_parts(settings, training_parts(settings, plan), recipe, params, plan.as_of("challenger"))


def keep_challenger(settings: Settings, plan: Plan, model: DurationModel) -> None:
    """Save the challenger where the next steps look for it."""
    save_model(model, settings.month(plan.service, plan.month).models / "challenger")


def load_challenger(settings: Settings, plan: Plan) -> DurationModel:
    """Load the challenger that 04-train left."""
    return load_model(settings.month(plan.service, plan.month).models / "challenger")


def load_incumbent(settings: Settings, plan: Plan) -> DurationModel | None:
    """Load the champion that was in use when the month began; None if the plan says that there was none."""
    if plan.incumbent is None:
        return None
    return load_model(settings.month(plan.service, plan.month).models / "incumbent")


def train_winner(settings: Settings, plan: Plan, params: Params) -> DurationModel:
    """Fit the winner's recipe on the window that includes the month itself."""
    parts = month_parts(settings, plan.service, plan.refit_window)
    return fit_parts(settings, parts, params.model, params, plan.as_of("winner"))


def refit_winner(settings: Settings, plan: Plan, params: Params) -> None:
    """Fit the winner's recipe on the window that includes the month itself, and save it as ``winner``."""
    save_model(train_winner(settings, plan, params), settings.month(plan.service, plan.month).models / "winner")


def train_simple(settings: Settings, trips: pd.DataFrame, params: Params, kind: str) -> DurationModel:
    """Fit the floor or the linear model on trips, of which the newest (``newest_trips``) are enough."""
    recipe = params.model.model_copy(update={"kind": kind})
    return fit_model(trips, read_zones(settings.zones), recipe, params.features)
