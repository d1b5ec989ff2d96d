"""Feature explanation: contributions of many trips and of one, relations to the duration, ablation by group."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.feature_selection import mutual_info_regression

from taxi.data.schema import AT_PICKUP
from taxi.features.trip_features import GROUPS, NAMES, TripFeatures, at_pickup, planned_distance
from taxi.models.boosted import Boosted, Rows, quick_minutes
from taxi.models.evaluate import thin
from taxi.models.model import DurationModel
from taxi.params import ModelParams, Params
from taxi.training.plan import Plan

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


# --- What each group of features buys: the error on a later month without it, by a small and quick recipe.

ABLATION_ROWS = 50_000  # trips to learn from at most; the same number judges
QUICK = {"rounds": 60, "learning_rate": 0.2, "max_depth": 6, "colsample_bytree": 1.0, "subsample": 1.0}
LEAST = 0.001  # a smaller share of the error is nothing to name


def without(groups: Mapping[str, tuple[str, ...]], group: str) -> list[int]:
    """Return the numbers of the features that are not in ``group``."""
    return [number for number, name in enumerate(NAMES) if name not in groups[group]]


def ablate(
    features: TripFeatures, past: pd.DataFrame, trips: pd.DataFrame, params: ModelParams, rows: int = ABLATION_ROWS
) -> pd.DataFrame:
    """Return, by group left out, the number of its features, rmse (minutes) on ``trips`` and its ``change`` (share) against all.

    ``features`` were fitted on ``past`` (both frames with durations), which ends before ``trips``; the first row leaves nothing out.
    """
    drawn, judging = (thin(one, rows, params.seed) for one in (past, trips))
    learnt = features.look_back(drawn[AT_PICKUP])[:, : len(NAMES)]
    seen, truth = features.transform(judging[AT_PICKUP])[:, : len(NAMES)], judging["duration"].to_numpy()
    minutes, recipe = drawn["duration"].to_numpy(), params.model_copy(update=QUICK | {"threads": 1})

    def rmse(columns: list[int]) -> float:
        part = Rows(learnt[:, columns], minutes, np.ones(len(minutes)), np.zeros(len(minutes), dtype=bool))
        return float(np.sqrt(np.mean((quick_minutes(part, seen[:, columns], recipe) - truth) ** 2)))

    columns = {"nothing": list(range(len(NAMES)))} | {group: without(GROUPS, group) for group in GROUPS}
    with ThreadPoolExecutor(params.threads) as pool:  # threads within a small fit mostly wait for each other
        errors = dict(zip(columns, pool.map(rmse, columns.values()), strict=True))
    table = pd.DataFrame({"features": {"nothing": 0} | {group: len(names) for group, names in GROUPS.items()}})
    table["rmse"] = pd.Series(errors)
    table["change"] = table["rmse"] / errors["nothing"] - 1
    return table.rename_axis("left out")


def ablation_table(found: pd.DataFrame) -> pd.DataFrame:
    """Return ``ablate``'s table for a reader: minutes with two decimals, changes in percent with one."""
    return pd.DataFrame(
        {
            "features": found["features"],
            "RMSE (minutes)": found["rmse"].map("{:.2f}".format),
            "RMSE change": [signed_percent(change) for change in found["change"]],
        }
    )


def signed_percent(share: float) -> str:
    """Return a share as a signed percentage with one decimal; what rounds to nothing has no sign."""
    return f"{share:+.1%}" if abs(share) >= 0.0005 else "0.0%"


def ablation_answer(found: pd.DataFrame) -> str:
    """Return in a sentence which group buys most, and which buy nothing."""
    change = found["change"].drop("nothing").sort_values(ascending=False)
    idle = [group for group, value in change.items() if value < LEAST]
    said = f"Without the group *{change.index[0]}* the RMSE changes by {signed_percent(change.iloc[0])}, and rises less without any other"
    others = (
        f"; without {', '.join(f'*{group}*' for group in idle)} it rises by less than {LEAST:.1%}, or falls"
        if idle
        else ""
    )
    return f"{said}{others}."


# --- Tables about features: what they are, how they relate to the duration, what is new, and whether anything leaks.

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


PLANNED = "with distance"


def predict_both(challenger: DurationModel, trips: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the challenger's predictions by name, and beside them its second model's where the recipe has one.

    In place of a router's distance stands the metered one, cleaned, which nobody knows when a trip starts.
    """
    predicted = {"challenger": challenger.predict(trips)}
    if challenger.planned:
        predicted[PLANNED] = challenger.planned.predict(planned_distance(trips))
    return predicted


def _planned_answer(scores: pd.DataFrame) -> list[str]:
    if PLANNED not in scores.index:
        return []
    change = scores["rmse"][PLANNED] / scores["rmse"]["challenger"] - 1
    return [
        f"A planned distance changes the RMSE by {signed_percent(change)}, as far as the metered one stands in for a router's."
    ]


def training_answers(scores: pd.DataFrame, importance: pd.Series, plan: Plan) -> list[str]:
    """Return what the training notebook found, in sentences with numbers."""
    ours, floor = scores.loc["challenger"], scores.loc["pair-median"]
    return [
        f"On {plan.judged} the challenger's RMSE is {ours['rmse']:.2f} minutes and its MAE {ours['mae']:.2f}; "
        f"the floor's are {floor['rmse']:.2f} and {floor['mae']:.2f}.",
        f"{ours['coverage80']:.1%} of trips end inside the 80 % interval, which is {ours['width80']:.1f} minutes wide on average.",
        *_planned_answer(scores),
        f"`{importance.index[0]}` brings {importance.iloc[0]:.0%} of the gain.",
    ]
