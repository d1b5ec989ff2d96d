"""The work that ``benchmarks.speed`` measures, our way and the peers' ways; each is called in a process of its own."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xgboost
from sklearn.feature_extraction import DictVectorizer

from benchmarks.peers import zc_inputs, zc_xgboost_fit
from benchmarks.window import ROOT
from taxi.config import Settings
from taxi.data.schema import AT_PICKUP, PREFIX, check_trips, read_published, read_trips
from taxi.data.trips import split_trips
from taxi.data.zones import read_zones
from taxi.features.trip_features import TripFeatures, planned_distance
from taxi.models.fitting import COLUMNS, fit_months
from taxi.models.model import DurationModel, load_model, save_model
from taxi.models.single_trip import FastModel
from taxi.months import month_bounds
from taxi.params import load_params
from taxi.training.train import month_parts, read_months


def prepare_ours(settings: Settings, service: str, months: list[str]) -> int:
    """Read published months, refuse what is no trip, make the features of the kept ones; return the rows read."""
    params, read, kept = load_params(ROOT / "params.yaml"), 0, []
    for month in months:
        rows = read_published(settings.month(service, month).raw, service)
        kept.append(check_trips(split_trips(rows, month, params.clean)[0])[[*AT_PICKUP, "duration"]])
        read += len(rows)
    trips = pd.concat(kept, ignore_index=True)
    kept.clear()
    TripFeatures(read_zones(settings.zones), **params.features.model_dump()).fit_transform(trips, trips["duration"])
    return read


def _read_as_taught(settings: Settings, service: str, months: list[str]) -> tuple[pd.DataFrame, int]:
    """Read as mlops-zoomcamp does: minutes row by row, then a filter; return the trips and the rows read."""
    whole = pd.concat([pd.read_parquet(settings.month(service, month).raw) for month in months], ignore_index=True)
    prefix = PREFIX[service]
    whole["duration"] = whole[f"{prefix}_dropoff_datetime"] - whole[f"{prefix}_pickup_datetime"]
    whole["duration"] = whole["duration"].apply(lambda taken: taken.total_seconds() / 60)
    return whole[(whole["duration"] >= 1) & (whole["duration"] <= 60)].copy(), len(whole)


def prepare_dicts(settings: Settings, service: str, months: list[str]) -> int:
    """mlops-zoomcamp: zone ids as text, one dictionary a trip, DictVectorizer; return the rows read."""
    trips, read = _read_as_taught(settings, service, months)
    ends = ["PULocationID", "DOLocationID"]
    trips[ends] = trips[ends].astype(str)
    trips["PU_DO"] = trips["PULocationID"] + "_" + trips["DOLocationID"]
    DictVectorizer().fit_transform(trips[["PU_DO", "trip_distance"]].to_dict(orient="records"))
    return read


def prepare_one_hot(settings: Settings, service: str, months: list[str]) -> int:
    """The other usual way: pandas.get_dummies of both zones, hour and weekday, with the distance; return the rows read."""
    trips, read = _read_as_taught(settings, service, months)
    pickup = trips[f"{PREFIX[service]}_pickup_datetime"].dt
    wide = trips[["PULocationID", "DOLocationID", "trip_distance"]].assign(hour=pickup.hour, weekday=pickup.dayofweek)
    pd.get_dummies(wide, columns=["PULocationID", "DOLocationID", "hour", "weekday"]).to_numpy(np.float32)
    return read


PREPARE: dict[str, Callable[[Settings, str, list[str]], int]] = {
    "ours": prepare_ours,
    "DictVectorizer": prepare_dicts,
    "get_dummies": prepare_one_hot,
}


def prepare(settings: Settings, service: str, months: list[str], way: str) -> dict[str, float]:
    """Prepare ``months`` by a ``way`` of ``PREPARE`` that has done one month before: what a first call imports is paid once."""
    PREPARE[way](settings, service, months[:1])
    begun, worked = time.perf_counter(), time.process_time()
    rows = PREPARE[way](settings, service, months)
    return {"rows": rows, "seconds": time.perf_counter() - begun, "cpu_seconds": time.process_time() - worked}


def fit_ours(settings: Settings, service: str, months: list[str], planned: bool, folder: Path) -> dict[str, Any]:
    """Fit on kept months, reading and features included, and save into ``folder``; return trips and seconds of saving."""
    params = load_params(ROOT / "params.yaml")
    recipe, as_of = params.model.model_copy(update={"planned": planned}), month_bounds(months[-1])[1]
    zones = read_zones(settings.zones)
    model = fit_months(month_parts(settings, service, months), zones, recipe, params.features, as_of)
    begun = time.perf_counter()
    save_model(model, folder)
    return {"trips": model.recipe["trips"], "saving": time.perf_counter() - begun}


def fit_zc(settings: Settings, service: str, months: list[str], asked: str) -> dict[str, Any]:
    """Fit mlops-zoomcamp's XGBoost on kept months; return trips, seconds of boosting, and trips a second asked of ``asked``."""
    train = read_months(settings, service, months, COLUMNS)
    encoder, seen = zc_inputs(train)
    begun = time.perf_counter()
    booster = zc_xgboost_fit(seen, train["duration"])
    fitted = time.perf_counter()
    trips = read_months(settings, service, [asked], COLUMNS)
    ready = time.perf_counter()
    booster.predict(xgboost.DMatrix(encoder(trips)))
    predicting = time.perf_counter() - ready
    return {
        "trips": len(train),
        "boosting": fitted - begun,
        "predicting": predicting,
        "after": time.perf_counter() - fitted,
        "asked": len(trips),
    }


def _asked(settings: Settings, service: str, month: str, planned: bool) -> pd.DataFrame:
    trips = read_trips(settings.month(service, month).trips, COLUMNS)
    return planned_distance(trips) if planned else trips


def _pick(model: DurationModel, planned: bool) -> DurationModel:
    chosen = model.planned if planned else model
    if chosen is None:
        raise ValueError("expected a model with a planned distance; this one was fitted without")
    return chosen


def predict_batch(settings: Settings, service: str, month: str, planned: bool, folder: Path) -> dict[str, Any]:
    """Predict a whole month at once; return trips and the seconds of predicting alone."""
    model, trips = _pick(load_model(folder), planned), _asked(settings, service, month, planned)
    model.predict(trips.head(100))
    begun = time.perf_counter()
    model.predict(trips)
    return {"asked": len(trips), "predicting": time.perf_counter() - begun}


def predict_singly(
    settings: Settings, service: str, month: str, planned: bool, folder: Path, calls: int, frames: int
) -> dict[str, Any]:
    """Ask about ``calls`` trips one by one; return milliseconds a call, those of one-row frames, and how far from the batch."""
    model, trips = load_model(folder), _asked(settings, service, month, planned)
    chosen, fast = _pick(model, planned), FastModel(model)
    drawn = trips.sample(min(calls, len(trips)), random_state=7)
    names = ["pickup", "PULocationID", "DOLocationID", "passenger_count", "trip_type", "VendorID"]
    names += ["planned_distance"] if planned else []
    asked = list(zip(*(drawn[name].astype(object) for name in names), strict=True))
    answers, took = zip(*(_timed(fast.predict_one, *one) for one in asked), strict=True)
    rows = [drawn.iloc[[place]] for place in range(min(frames, len(drawn)))]
    singly = [_timed(chosen.predict, row)[1] for row in rows]
    apart = np.abs(np.array(answers) - chosen.predict(drawn).to_numpy()).max()
    return {"fast": milliseconds(took), "frame": milliseconds(singly), "largest_difference_minutes": float(apart)}


def _timed(call: Callable[..., Any], *given: Any) -> tuple[Any, int]:
    begun = time.perf_counter_ns()
    answer = call(*given)
    return answer, time.perf_counter_ns() - begun


def milliseconds(nanoseconds: Any) -> dict[str, float]:
    """Return median and 99th percentile in milliseconds, and how many there are."""
    taken = np.asarray(nanoseconds, dtype=float) / 1e6
    return {"median_ms": float(np.median(taken)), "p99_ms": float(np.quantile(taken, 0.99)), "calls": int(taken.size)}
