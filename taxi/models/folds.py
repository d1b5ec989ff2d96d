"""Cross-validation folds in time for trying recipes: months before the month, each judging what was learnt from those before it."""

from dataclasses import dataclass

import pandas as pd

from taxi.config import Settings
from taxi.data.schema import read_trips
from taxi.errors import TaxiError
from taxi.models.evaluate import interval_score, score, thin
from taxi.models.fitting import COLUMNS, fit_months
from taxi.months import month_bounds, window_before
from taxi.params import FeatureParams, ModelParams, SearchParams

MEASURES = ("rmse", "mae", "interval")


@dataclass(frozen=True)
class Fold:
    """The months that train, oldest first, and the later month that judges."""

    learnt: list[str]
    judged: str


@dataclass(frozen=True)
class FoldTrips:
    """A fold's trips, thinned: those to learn from (``fitting.COLUMNS``), and those that judge."""

    fold: Fold
    past: pd.DataFrame
    judging: pd.DataFrame


def rolling_folds(month: str, on_hand: list[str], window_months: int, folds: int) -> list[Fold]:
    """Return the last ``folds`` months of the window before ``month``, each behind the window's months before it.

    ``month`` itself is in none, and nothing after it. Raises TaxiError unless the window has two months on hand.
    """
    window = window_before(month, on_hand, window_months)
    if len(window) < 2:
        raise TaxiError(
            f"expected two months or more on hand among the {window_months} before {month}; there are {len(window)}: "
            "`taxi ingest` fetches them"
        )
    return [Fold(window[:at], window[at]) for at in range(max(1, len(window) - folds), len(window))]


def read_fold(settings: Settings, service: str, fold: Fold, params: SearchParams) -> FoldTrips:
    """Read a fold, month by month, each thinned to its share of ``params.rows``."""

    def read(month: str, most: int) -> pd.DataFrame:
        return thin(read_trips(settings.month(service, month).trips, COLUMNS), most, params.seed)

    past = [read(month, max(1, params.rows // len(fold.learnt))) for month in fold.learnt]
    return FoldTrips(fold, pd.concat(past, ignore_index=True), read(fold.judged, params.judged_rows))


def measure(recipe: ModelParams, features: FeatureParams, trips: FoldTrips, zones: pd.DataFrame) -> dict[str, float]:
    """Fit a recipe on a fold; return ``MEASURES`` (minutes): RMSE of the mean, MAE of the median, score of the interval."""
    plain = recipe.model_copy(update={"planned": False})
    model = fit_months([lambda: trips.past], zones, plain, features, month_bounds(trips.fold.judged)[0])
    predicted, truth = model.predict(trips.judging), trips.judging["duration"]
    scores = score(truth, predicted)
    return {"rmse": scores["rmse"], "mae": scores["mae"], "interval": interval_score(truth, predicted)}


def relative_loss(scores: list[dict[str, float]], now: list[dict[str, float]]) -> float:
    """Return the mean, over folds and ``MEASURES``, of a recipe's score divided by the current recipe's: 0.99 is 1 % better."""
    ratios = [one[name] / other[name] for one, other in zip(scores, now, strict=False) for name in MEASURES]
    return sum(ratios) / len(ratios)
