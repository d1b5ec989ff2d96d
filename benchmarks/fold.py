"""One fold: every model fitted on months before the fold's month, and all asked about the same trips of it."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.intervals import pair_hour_interval
from benchmarks.peers import ONE_MONTH, WHOLE_WINDOW
from benchmarks.window import months_before
from taxi.config import Settings
from taxi.data.schema import read_trips
from taxi.data.zones import read_zones
from taxi.features.trip_features import planned_distance
from taxi.models.evaluate import score, score_by_slice
from taxi.models.fitting import fit_months
from taxi.months import month_bounds
from taxi.params import Params
from taxi.training.train import month_parts, read_months

MODELS = ("ours", "p3", "zc_linear", "zc_xgboost", "pair_hour_median")
PREDICTIONS = ("ours_mean", "ours_median", "ours_p10", "ours_p90", "ours_planned", *MODELS[1:])
LARGE_SLICE = 2000


@dataclass(frozen=True)
class Fold:
    """What came of one month: its record for JSON, and one row a trip with ``PREDICTIONS`` (minutes)."""

    record: dict[str, Any]
    predictions: pd.DataFrame


@dataclass(frozen=True)
class Answers:
    """Each model's prediction as ``evaluate.score`` reads it (mean, median, perhaps p10 and p90), and seconds of fit and predict."""

    predicted: dict[str, pd.DataFrame]
    seconds: dict[str, float]


def as_both(minutes: np.ndarray, index: pd.Index) -> pd.DataFrame:
    """Return a single prediction as mean and median at once."""
    return pd.DataFrame({"mean": minutes, "median": minutes}, index=index)


def ask_ours(
    settings: Settings, service: str, month: str, window: list[str], trips: pd.DataFrame, params: Params
) -> Answers:
    """Fit our two models on the window and ask both; ``ours_planned`` is there where ``params`` have the second."""
    begun, zones = time.perf_counter(), read_zones(settings.zones)
    parts = month_parts(settings, service, window)
    model = fit_months(parts, zones, params.model, params.features, month_bounds(month)[0])
    fitted = time.perf_counter()
    predicted = {"ours": model.predict(trips)}
    seconds = {"ours fit": fitted - begun, "ours predict": time.perf_counter() - fitted}
    if model.planned:
        predicted["ours_planned"] = model.planned.predict(planned_distance(trips))
    return Answers(predicted, seconds)


def ask_peers(
    settings: Settings, service: str, month: str, window: list[str], trips: pd.DataFrame, models: Sequence[str]
) -> Answers:
    """Fit and ask the peers: on the month before where that is their way (left out where it is missing), else on the window."""
    zones, answers = read_zones(settings.zones), Answers({}, {})
    before = [one for one in months_before(month, 1) if one in window]
    for recipes, months in ((ONE_MONTH, before), (WHOLE_WINDOW, window)):
        wanted = {name: recipe for name, recipe in recipes.items() if name in models}
        train = read_months(settings, service, months) if wanted and months else None
        for name, recipe in wanted.items() if train is not None else ():
            begun = time.perf_counter()
            answers.predicted[name] = as_both(recipe(train, trips, zones), trips.index)
            answers.seconds[name] = time.perf_counter() - begun
    return answers


def widest_miss(by_slice: pd.DataFrame) -> dict[str, Any] | None:
    """Return the slice whose coverage is farthest from 80 %, among those of ``LARGE_SLICE`` trips or more."""
    large = by_slice[by_slice["n"] >= LARGE_SLICE]
    if not len(large):
        return None
    worst = (large["coverage80"] - 0.8).abs().idxmax()
    return {"slice": worst, "coverage80": float(large.loc[worst, "coverage80"]), "n": int(large.loc[worst, "n"])}


def _interval(
    settings: Settings, service: str, window: list[str], trips: pd.DataFrame, ours: dict[str, float]
) -> dict[str, Any]:
    train = read_months(settings, service, window, ["pickup", "PULocationID", "DOLocationID", "duration"])
    peer = pair_hour_interval(train, trips, ours["coverage80"])
    ratio = ours["width80"] / peer["width"] if peer["width"] else None
    return {"coverage": ours["coverage80"], "width": ours["width80"], "pair_hour": peer, "width_ratio": ratio}


def _columns(service: str, month: str, trips: pd.DataFrame, predicted: dict[str, pd.DataFrame]) -> pd.DataFrame:
    found = {
        f"ours_{name}": predicted["ours"][name] for name in ("mean", "median", "p10", "p90") if "ours" in predicted
    }
    found |= {name: predicted[name]["mean"] for name in predicted if name != "ours"}
    whole = pd.DataFrame(found, index=trips.index).reindex(columns=list(PREDICTIONS)).astype(float)
    said = pd.DataFrame({"service": service, "month": month, "row": trips["row"], "duration": trips["duration"]})
    return pd.concat([said, whole], axis=1)


def _plain(table: pd.DataFrame) -> dict[str, dict[str, float | None]]:
    return {
        name: {key: float(value) for key, value in row.items() if pd.notna(value)} for name, row in table.iterrows()
    }


def run_fold(
    settings: Settings, service: str, month: str, window: list[str], models: Sequence[str], params: Params
) -> Fold:
    """Fit ``models`` on the ``window`` (months on hand, oldest first), and score them on the kept trips of ``month``."""
    trips = read_trips(settings.month(service, month).trips)
    peers = ask_peers(settings, service, month, window, trips, models)
    ours = ask_ours(settings, service, month, window, trips, params) if "ours" in models else Answers({}, {})
    predicted, zones = ours.predicted | peers.predicted, read_zones(settings.zones)
    scores = {name: score(trips["duration"], one) for name, one in predicted.items()}
    by_slice = {name: score_by_slice(trips, one, zones) for name, one in predicted.items()}
    record = {
        "month": month,
        "window": window,
        "trips": len(trips),
        "seconds": ours.seconds | peers.seconds,
        "scores": scores,
        "slices": {name: _plain(table) for name, table in by_slice.items()},
    }
    if "ours" in models:
        record["interval"] = _interval(settings, service, window, trips, scores["ours"])
        record["worst_slice"] = widest_miss(by_slice["ours"])
    return Fold(record, _columns(service, month, trips, predicted))
