"""Models of a trip's duration: one scikit-learn pipeline for the mean, an 80 % interval, and files without pickle."""

from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xgboost
from sklearn.pipeline import Pipeline

from taxi.config import FeatureParams, ModelParams
from taxi.errors import TaxiError
from taxi.features import NAMES, TripFeatures, at_pickup
from taxi.files import read_json, staged, write_json
from taxi.simple import LinearMinutes, PairMedian, residual_quantiles

FORMAT = 1
ALPHAS = (0.1, 0.9)
SIMPLE = {"linear": LinearMinutes, "pair-median": PairMedian}
LOW, HIGH = 1.0, 60.0


def recency_weights(pickup: pd.Series, half_life_days: float) -> np.ndarray:
    """Return weights that halve every ``half_life_days`` before the newest pickup, shape (n,)."""
    age = (pickup.max() - pickup) / pd.Timedelta(days=1)
    return np.exp2(-age.to_numpy() / half_life_days)


def _booster(params: ModelParams, **changes: Any) -> xgboost.XGBRegressor:
    settings = {
        "n_estimators": params.rounds,
        "learning_rate": params.learning_rate,
        "max_depth": params.max_depth,
        "min_child_weight": params.min_child_weight,
        "subsample": params.subsample,
        "colsample_bytree": params.colsample_bytree,
        "reg_lambda": params.reg_lambda,
        "max_bin": params.max_bin,
        "device": params.device,
        "n_jobs": params.threads,
        "random_state": params.seed,
        "tree_method": "hist",
    }
    return xgboost.XGBRegressor(**settings | changes)


class DurationModel:
    """A fitted model: ``pipeline`` predicts the mean, ``interval`` the 10 % and 90 % quantiles, all in minutes."""

    planned: "DurationModel | None" = None

    def __init__(self, pipeline: Pipeline, interval: Any, recipe: dict[str, Any]) -> None:
        self.pipeline = pipeline
        self.interval = interval
        self.recipe = recipe

    def predict(self, trips: pd.DataFrame) -> pd.DataFrame:
        """Return mean, p10 and p90 (minutes, within 1..60, in order) for trips with the at-pickup columns."""
        seen = self.pipeline[0].transform(at_pickup(trips))
        mean = np.clip(self.pipeline[1].predict(seen), LOW, HIGH).astype(np.float64)
        if isinstance(self.interval, xgboost.XGBRegressor):
            edges = np.clip(self.interval.predict(seen), LOW, HIGH).astype(np.float64)
        else:
            edges = np.clip(mean[:, None] + self.interval[_band(mean)], LOW, HIGH)
        low, high = np.minimum(edges.min(axis=1), mean), np.maximum(edges.max(axis=1), mean)
        return pd.DataFrame({"mean": mean, "median": mean, "p10": low, "p90": high}, index=trips.index)

    def fast(self) -> "FastModel":
        """Return a single-trip predictor."""
        return FastModel(self)

    def importance(self) -> pd.Series:
        """Return each feature's share of the gain (XGBoost) or of the absolute standardised weight (linear), largest first."""
        regressor = self.pipeline[1]
        share = np.abs(
            regressor.feature_importances_ if hasattr(regressor, "feature_importances_") else regressor.coef_
        )
        return pd.Series(share / share.sum(), index=NAMES).sort_values(ascending=False)


class FastModel:
    """Predicts one trip at a time."""

    def __init__(self, model: DurationModel) -> None:
        self.model = model

    def predict_one(
        self,
        pickup: datetime,
        PULocationID: int,
        DOLocationID: int,
        passenger_count: float = np.nan,
        trip_type: float = np.nan,
        VendorID: float = np.nan,
        planned_distance: float | None = None,
    ) -> tuple[float, float, float, float]:
        """Return mean, median, p10 and p90 in minutes."""
        values = (pickup, PULocationID, DOLocationID, VendorID, passenger_count, trip_type)
        names = ("pickup", "PULocationID", "DOLocationID", "VendorID", "passenger_count", "trip_type")
        frame = pd.DataFrame([dict(zip(names, values, strict=True))])
        row = self.model.predict(frame.astype({"pickup": "datetime64[us]"})).iloc[0]
        return float(row["mean"]), float(row["median"]), float(row["p10"]), float(row["p90"])


def _band(mean: np.ndarray) -> np.ndarray:
    return np.clip(mean // 5, 0, 11).astype(int)


def fit_model(trips: pd.DataFrame, zones: pd.DataFrame, params: ModelParams, features: FeatureParams) -> DurationModel:
    """Fit ``params.kind`` on kept trips (canonical schema), recent trips weighing more; returns a DurationModel."""
    weight = recency_weights(trips["pickup"], params.half_life_days)
    maker = TripFeatures(zones, features.smoothing, features.folds)
    duration = trips["duration"].to_numpy()
    seen = maker.fit_transform(at_pickup(trips), trips["duration"], weight)
    if params.kind == "xgboost":
        regressor = _booster(params).fit(seen, duration, sample_weight=weight)
        interval: Any = _booster(
            params,
            objective="reg:quantileerror",
            quantile_alpha=np.array(ALPHAS),
            n_estimators=params.interval_rounds,
            learning_rate=params.interval_learning_rate,
            max_depth=params.interval_max_depth,
        ).fit(seen, duration, sample_weight=weight)
    else:
        regressor = SIMPLE[params.kind]().fit(seen, duration, sample_weight=weight)
        mean = np.clip(regressor.predict(seen), LOW, HIGH)
        interval = residual_quantiles(duration - mean, _band(mean), ALPHAS, 12)
    recipe = {
        "format": FORMAT,
        "kind": params.kind,
        "model": params.model_dump(mode="json"),
        "features": features.model_dump(mode="json"),
        "columns": NAMES,
        "trips": len(trips),
        "first_pickup": str(trips["pickup"].min()),
        "last_pickup": str(trips["pickup"].max()),
        "xgboost": xgboost.__version__,
    }
    return DurationModel(Pipeline([("features", maker), ("regressor", regressor)]), interval, recipe)


def save_model(model: DurationModel, folder: Path) -> None:
    """Write the model into ``folder``, whole or not at all; the same model gives the same bytes. No pickle is needed."""
    maker, regressor = model.pipeline[0], model.pipeline[1]
    arrays = {
        f"{kind}/{name}": part
        for name, both in maker.sums_.items()
        for kind, part in zip(("sum", "count"), both, strict=True)
    }
    with staged(folder) as part:
        part.mkdir(parents=True)
        if isinstance(regressor, xgboost.XGBRegressor):
            regressor.get_booster().save_model(part / "mean.ubj")
            model.interval.get_booster().save_model(part / "interval.ubj")
        else:
            arrays |= {f"regressor/{name}": value for name, value in regressor.state().items()}
            arrays["interval"] = model.interval
        np.savez_compressed(part / "tables.npz", **arrays)
        maker.zones.to_parquet(part / "zones.parquet")
        write_json(part / "recipe.json", model.recipe)


def _load_booster(path: Path) -> xgboost.XGBRegressor:
    regressor = xgboost.XGBRegressor()
    regressor.load_model(path)
    return regressor


def load_model(folder: Path) -> DurationModel:
    """Read what ``save_model`` wrote; raise TaxiError if there is no model, or one of another format."""
    if not (folder / "recipe.json").is_file():
        raise TaxiError(f"expected a model in {folder}; there is no recipe.json")
    recipe = read_json(folder / "recipe.json")
    if recipe.get("format") != FORMAT or recipe.get("columns") != NAMES:
        raise TaxiError(
            f"expected a model of format {FORMAT} with this code's {len(NAMES)} features in {folder}; it has another"
        )
    with np.load(folder / "tables.npz", allow_pickle=False) as archive:
        arrays = dict(archive)
    tables = {name.split("/")[1] for name in arrays if name.startswith("sum/")}
    sums = {name: (arrays[f"sum/{name}"], arrays[f"count/{name}"]) for name in tables}
    maker = TripFeatures(pd.read_parquet(folder / "zones.parquet"), **recipe["features"]).restore(sums)
    if recipe["kind"] == "xgboost":
        regressor: Any = _load_booster(folder / "mean.ubj")
        interval: Any = _load_booster(folder / "interval.ubj")
    else:
        own = {name.split("/")[1]: value for name, value in arrays.items() if name.startswith("regressor/")}
        regressor, interval = SIMPLE[recipe["kind"]]().restore(own), arrays["interval"]
    return DurationModel(Pipeline([("features", maker), ("regressor", regressor)]), interval, recipe)
