"""Why a model says what it says: each feature's own contribution, of many trips on average and of one trip."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from taxi.boosted import Boosted
from taxi.features import at_pickup, planned_distance
from taxi.folds import thin
from taxi.model import DurationModel

ROWS = 300
START, REST = "average trip", "all others"


@dataclass(frozen=True)
class Explained:
    """A sample of trips: their features (n, k), contributions (n, k) to the trunk's log minutes, and its ``base`` (log minutes)."""

    trips: pd.DataFrame
    seen: pd.DataFrame
    effect: pd.DataFrame
    base: float

    @property
    def minutes(self) -> np.ndarray:
        """The trunk's minutes, shape (n,): what base and contributions multiply up to."""
        return np.exp(self.base + self.effect.sum(axis=1).to_numpy())


def explain(model: DurationModel, trips: pd.DataFrame, seed: int, rows: int = ROWS) -> Explained | None:
    """Return the contributions on a sample of trips, the same for the same seed; None unless the model is boosted."""
    if not isinstance(model.distribution, Boosted):
        return None
    drawn, names = thin(trips, rows, seed), list(model.features.get_feature_names_out())
    known = planned_distance(drawn) if model.features.planned else drawn
    seen = model.features.transform(at_pickup(known, model.features.planned))
    parts = model.distribution.contributions(seen).astype(np.float64)
    effect = pd.DataFrame(parts[:, :-1], columns=names, index=drawn.index)
    return Explained(drawn, pd.DataFrame(seen, columns=names, index=drawn.index), effect, float(parts[0, -1]))


def _percent(effect: pd.Series) -> pd.Series:
    return 100 * np.expm1(effect)


def effect_table(found: Explained | None) -> pd.DataFrame:
    """Return by feature, largest first: by how much it moves a trip on average either way, and at most up and down (percent)."""
    columns = ["mean effect", "largest down", "largest up"]
    if found is None:
        return pd.DataFrame(columns=columns, dtype=float)
    size = [_percent(one) for one in (found.effect.abs().mean(), found.effect.min(), found.effect.max())]
    table = pd.DataFrame(dict(zip(columns, size, strict=True)))
    return table.sort_values("mean effect", ascending=False, kind="stable").rename_axis("feature")


def typical_trip(found: Explained) -> int:
    """Return the place of the sample's trip of median duration: an ordinary one, the same whatever the model."""
    return int(np.argsort(found.trips["duration"].to_numpy(), kind="stable")[len(found.trips) // 2])


def trip_table(found: Explained | None, most: int = 8) -> pd.DataFrame:
    """Return one trip's way from the average to the trunk's minutes: feature, value, effect (percent), minutes so far.

    The strongest ``most`` features come one by one, and the others as one step.
    """
    if found is None:
        return pd.DataFrame(columns=["value", "effect", "minutes"], dtype=float)
    place = typical_trip(found)
    effect, value = found.effect.iloc[place], found.seen.iloc[place]
    order = effect.abs().sort_values(ascending=False, kind="stable").index
    steps = pd.concat([pd.Series({START: 0.0}), effect[order[:most]], pd.Series({REST: effect[order[most:]].sum()})])
    minutes = np.exp(found.base + steps.cumsum())
    return pd.DataFrame({"value": value.reindex(steps.index), "effect": _percent(steps), "minutes": minutes})


def explanation(found: Explained | None, kind: str) -> str:
    """Return in words what the tables and pictures show, or why there are none."""
    if found is None:
        return (
            f"A model of kind {kind} has no trees; its weights are shown above, and trips are not explained one by one."
        )
    table, one = effect_table(found), found.trips.iloc[typical_trip(found)]
    strongest = ", ".join(f"`{name}` {value:.0f} %" for name, value in table["mean effect"].head(3).items())
    return (
        f"On {len(found.trips)} trips drawn at random, the features that move the minutes most: {strongest} on average, up or down. "
        f"The trip explained below is an ordinary one: {one['pickup']:%A %H:%M}, zone {one['PULocationID']} to zone {one['DOLocationID']}; it took {one['duration']:.1f} minutes."
    )
