"""Tables about features: what they are, how they relate to the duration, what is new, and whether anything leaks."""

import numpy as np
import pandas as pd
from sklearn.feature_selection import mutual_info_regression

from taxi.features import GROUPS, NAMES, TripFeatures
from taxi.params import Params
from taxi.schema import AT_PICKUP

AFTER = ("dropoff", "trip_distance", "RatecodeID", "payment_type", "fare_amount", "total_amount", "duration")


def column_table(trips: pd.DataFrame) -> pd.DataFrame:
    """Return each column that is known at pickup, with its missing share and number of values."""
    return pd.DataFrame(
        {
            "missing": trips[AT_PICKUP].isna().mean().map("{:.1%}".format),
            "different values": trips[AT_PICKUP].nunique(),
        }
    )


def feature_frame(features: TripFeatures, trips: pd.DataFrame) -> pd.DataFrame:
    """Return the features of trips as a named frame, shape (n, 48)."""
    return pd.DataFrame(features.transform(trips[AT_PICKUP]), columns=NAMES, index=trips.index)


def feature_list() -> str:
    """Return the features by group, as Markdown."""
    return "\n".join(f"- **{group}**: {', '.join(names)}" for group, names in GROUPS.items())


def relation_table(seen: pd.DataFrame, duration: pd.Series, seed: int, rows: int = 8_000) -> pd.DataFrame:
    """Return rank correlation and shared information (bits) of each feature with the duration, strongest first."""
    drawn = seen.sample(min(rows, len(seen)), random_state=seed)
    truth = duration.loc[drawn.index]
    shared = mutual_info_regression(drawn.fillna(-1), truth, random_state=seed) / np.log(2)
    varied = drawn.columns[drawn.nunique() > 1]  # what is the same for all trips is correlated with nothing
    ranks = drawn[varied].rank().corrwith(truth.rank()).reindex(drawn.columns)
    table = pd.DataFrame({"rank correlation": ranks, "shared information": shared})
    return table.sort_values("shared information", ascending=False).round(3).rename_axis("feature")


def novelty(past: pd.DataFrame, trips: pd.DataFrame) -> dict[str, float]:
    """Return the share of trips whose pickup zone, drop-off zone or zone pair the past months never had."""
    pairs = [frame["PULocationID"].astype(int) * 1000 + frame["DOLocationID"].astype(int) for frame in (past, trips)]
    return {
        "pickup zone": float((~trips["PULocationID"].isin(past["PULocationID"].unique())).mean()),
        "drop-off zone": float((~trips["DOLocationID"].isin(past["DOLocationID"].unique())).mean()),
        "zone pair": float((~pairs[1].isin(pairs[0].unique())).mean()),
    }


def leaking_features(features: TripFeatures, trips: pd.DataFrame) -> list[str]:
    """Return the features that change when every column known only at drop-off is poisoned."""
    poisoned = trips.assign(**{name: -999.0 for name in AFTER if name in trips.columns})
    before, after = features.transform(trips), features.transform(poisoned)
    same = (before == after) | (np.isnan(before) & np.isnan(after))
    return [name for name, fine in zip(NAMES, same.all(axis=0), strict=True) if not fine]


def recipe_table(params: Params) -> pd.DataFrame:
    """Return the recipe's parameters."""
    recipe = params.features.model_dump() | params.model.model_dump()
    return pd.DataFrame({"value": {name: str(value) for name, value in recipe.items()}})


def feature_answers(relations: pd.DataFrame, leaks: list[str], new: dict[str, float], bought: str) -> list[str]:
    """Return what the notebook found, in sentences with numbers."""
    best = relations.index[0]
    return [
        f"`{best}` tells most of the duration: {relations['shared information'].iloc[0]:.2f} bits, rank correlation {relations['rank correlation'].iloc[0]:.2f}.",
        bought,
        f"{new['zone pair']:.1%} of trips go between zones that were never paired before; the features fall back on coarser averages.",
        f"{len(leaks)} features depend on what is known only at drop-off.",
    ]
