"""Training: from kept trips, month by month, to a fitted model; history is tallied, rows are drawn, no month is read whole twice.

Memory does not grow with history: of each month only sums by fold, and the rows drawn from it, stay.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import brentq

from taxi.data.schema import AT_PICKUP
from taxi.features.history import DAYS, Sums, merge
from taxi.features.trip_features import NAMES, PLANNED, TripFeatures, planned_distance
from taxi.models.baselines import SimpleDistribution
from taxi.models.boosted import XGBOOST, Boosted, Rows, fit_boosted
from taxi.models.model import FORMAT, DurationModel
from taxi.params import FeatureParams, ModelParams

Part = Callable[[], pd.DataFrame]
DAY_OF_YEAR = NAMES.index("day_of_year")
COLUMNS = [*AT_PICKUP, "trip_distance", "distance_suspect", "duration"]


@dataclass(frozen=True)
class Tally:
    """What one month adds: sums by fold, and its trips by day."""

    sums: list[Sums]
    days: pd.Series

    def join(self, other: "Tally") -> "Tally":
        """Return the tally of both."""
        sums = [merge(one, two) for one, two in zip(self.sums, other.sums, strict=True)]
        return Tally(sums, self.days.add(other.days, fill_value=0))


@dataclass(frozen=True)
class Draw:
    """Which trips are boosted on: all up to ``as_of``, thinned by age where ``scale`` says so; ``newest`` is a date."""

    as_of: pd.Timestamp
    newest: pd.Timestamp
    scale: float
    half_life_days: float
    season_doubt: float
    seed: int


def recency_weights(pickup: pd.Series, as_of: pd.Timestamp, half_life_days: float) -> np.ndarray:
    """Return weights that halve every ``half_life_days`` before the day ``as_of``, shape (n,); one day, one weight."""
    age = (as_of - pickup.dt.normalize()) / pd.Timedelta(days=1)
    return np.exp2(-age.to_numpy() / half_life_days)


def maker_of(zones: pd.DataFrame, params: ModelParams, features: FeatureParams) -> TripFeatures:
    """Return the unfitted features of a recipe; with those of a planned distance where it has the second model."""
    return TripFeatures(zones, features.smoothing, features.folds, params.planned)


def known_miles(trips: pd.DataFrame, maker: TripFeatures) -> pd.DataFrame:
    """Return trips with what ``maker`` reads of them."""
    return planned_distance(trips) if maker.planned else trips


def tally_month(part: Part, maker: TripFeatures, as_of: pd.Timestamp, half_life_days: float) -> Tally:
    """Read a month and return what it adds to history."""
    trips = known_miles(part(), maker)
    weight = recency_weights(trips["pickup"], as_of, half_life_days)
    days = trips["pickup"].dt.normalize().value_counts().sort_index().astype(float)
    return Tally(maker.tally(trips, trips["duration"].to_numpy(), weight), days)


def thinning(days: pd.Series, weight: np.ndarray, most: int) -> float:
    """Return the scale by which weights become shares to keep (1 at most), so that about ``most`` trips are kept."""
    counts = days.to_numpy()
    if counts.sum() <= most:
        return float("inf")
    return float(brentq(lambda scale: counts @ np.minimum(1, scale * weight) - most, 0, 1 / weight.min()))


def plan_draw(days: pd.Series, as_of: pd.Timestamp, params: ModelParams) -> Draw:
    """Decide which trips are boosted on, and which of them only calibrate the interval: the newest weeks, a quarter at most.

    Where the months just before ``as_of`` are missing, the newest weeks are those of the newest month there is.
    """
    weight = recency_weights(days.index.to_series(), as_of, params.half_life_days)
    end = days.index.max() + pd.Timedelta(days=1)
    newest = end - pd.Timedelta(days=min(params.calibration_days, (end - days.index.min()).days // 4))
    scale = thinning(days, weight, params.max_rows)
    return Draw(as_of, newest, scale, params.half_life_days, params.season_doubt, params.seed)


def draw_rows(part: Part, maker: TripFeatures, draw: Draw) -> Rows:
    """Read a month again and return the features of the trips drawn from it; a thinned trip weighs more.

    They are ordered by zone pair: trips that go down the trees together lie together, and boosting takes less time.
    """
    trips = part()
    weight = recency_weights(trips["pickup"], draw.as_of, draw.half_life_days)
    share = np.minimum(1.0, draw.scale * weight)
    month = trips["pickup"].min().toordinal() if len(trips) else 0
    luck = np.random.default_rng([draw.seed, month])
    chosen = luck.random(len(trips)) < share
    kept = np.flatnonzero(chosen)
    kept = kept[np.lexsort([trips[name].to_numpy()[kept] for name in ("DOLocationID", "PULocationID")])]
    drawn = known_miles(trips.iloc[kept], maker)
    newest = (drawn["pickup"] >= draw.newest).to_numpy()
    seen = doubt_season(maker.look_back(drawn), draw.season_doubt, luck)
    return Rows(seen, drawn["duration"].to_numpy(), (weight / share)[kept], newest)


def doubt_season(seen: np.ndarray, share: float, luck: np.random.Generator) -> np.ndarray:
    """Give a ``share`` of the trips, in place, some other day of the year; return the features.

    One year's January is one example of a January: so the trees pull what it tells towards the year's average.
    """
    doubted = (luck.random(len(seen)) < share) & ~np.isnan(seen[:, DAY_OF_YEAR])
    seen[doubted, DAY_OF_YEAR] = luck.integers(1, DAYS + 1, int(doubted.sum()))
    return seen


def fit_months(
    parts: Sequence[Part], zones: pd.DataFrame, params: ModelParams, features: FeatureParams, as_of: pd.Timestamp
) -> DurationModel:
    """Fit ``params.kind`` on months of kept trips (``COLUMNS``), all before ``as_of``; recent trips weigh more.

    Raises ValueError if there is no trip, or one at or after ``as_of``.
    """
    maker = maker_of(zones, params, features)
    tally = reduce(Tally.join, (tally_month(part, maker, as_of, params.half_life_days) for part in parts))
    check_days(tally.days, as_of)
    maker.restore(tally.sums)
    draw = plan_draw(tally.days, as_of, params)
    return assemble(maker, [draw_rows(part, maker, draw) for part in parts], tally.days, params, features)


def check_days(days: pd.Series, as_of: pd.Timestamp) -> None:
    """Raise ValueError unless there are trips, every one before the day ``as_of``."""
    if not len(days):
        raise ValueError("expected at least one trip to learn from; got none")
    if days.index.max() >= as_of:
        raise ValueError(
            f"expected every training pickup before {as_of}; the latest day is {days.index.max():%Y-%m-%d}"
        )


def assemble(
    maker: TripFeatures, rows: Sequence[Rows], days: pd.Series, params: ModelParams, features: FeatureParams
) -> DurationModel:
    """Fit the distributions on the drawn rows and put the model together."""
    recipe = describe_fit(days, sum(len(one.minutes) for one in rows), params, features)
    if params.kind != "xgboost":
        narrow = [one.narrow(len(NAMES)) for one in rows]
        seen, minutes, weight = (
            np.concatenate([getattr(one, name) for one in narrow]) for name in ("seen", "minutes", "weight")
        )
        plain = maker.with_planned(False)
        return DurationModel(plain, SimpleDistribution.fit(params.kind, seen, minutes, weight), recipe)
    return boost_both(
        lambda columns, own: fit_boosted([one.narrow(columns) for one in rows], own), maker, recipe, params
    )


def describe_fit(days: pd.Series, boosted_on: int, params: ModelParams, features: FeatureParams) -> dict[str, Any]:
    """Return the recipe that is kept with a model: parameters, columns, and on how many trips of which days."""
    return {
        "format": FORMAT,
        "kind": params.kind,
        "model": params.model_dump(mode="json"),
        "features": features.model_dump(mode="json"),
        "columns": NAMES,
        "trips": int(days.sum()),
        "boosted_on": boosted_on,
        "first_day": f"{days.index.min():%Y-%m-%d}",
        "last_day": f"{days.index.max():%Y-%m-%d}",
        "xgboost": XGBOOST,
    }


def boost_both(
    boost: Callable[[int, ModelParams], Boosted], maker: TripFeatures, recipe: dict[str, Any], params: ModelParams
) -> DurationModel:
    """Put the model together from ``boost``, which fits a recipe on the first so many columns: without a planned distance, and with."""
    second = None
    if params.planned:
        second = DurationModel(maker, boost(len(NAMES) + len(PLANNED), params.for_planned()), recipe)
    return DurationModel(maker.with_planned(False), boost(len(NAMES), params), recipe, second)


def fit_model(trips: pd.DataFrame, zones: pd.DataFrame, params: ModelParams, features: FeatureParams) -> DurationModel:
    """Fit on one frame of kept trips, as of the day after its newest."""
    if not len(trips):
        raise ValueError("expected at least one trip to learn from; got none")
    as_of = trips["pickup"].max().normalize() + pd.Timedelta(days=1)
    return fit_months([lambda: trips], zones, params, features, as_of)
