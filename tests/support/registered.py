"""A registry with small real models: months made for tests, recorded as a month's run records them."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as parquet

from taxi.config import Settings
from taxi.data.schema import read_trips, to_arrow
from taxi.files import write_json
from taxi.models.evaluate import score
from taxi.models.fitting import fit_model
from taxi.models.model import DurationModel, load_model, save_model
from taxi.params import Params, load_params
from taxi.registry.versions import champion_before
from taxi.runs.mlflow_run import record_month
from taxi.training.plan import make_plan
from taxi.training.step_result import CompareResult
from tests.support.databases import give_registry
from tests.support.month_results import make_compare, write_origin
from tests.support.worlds import ROOT as CHECKOUT

PARAMS = load_params(CHECKOUT / "params.yaml")
MONTHS = ["2023-01", "2023-02", "2023-03"]
SCORES = {"rmse": 5.25, "mae": 3.5, "n": 300}


def make_zones() -> pd.DataFrame:
    ids = np.arange(1, 266)
    return pd.DataFrame(
        {
            "borough": np.where(ids % 2, "Queens", "Manhattan"),
            "zone": [f"zone {one}" for one in ids],
            "service_zone": "Boro Zone",
            "x": ids / 10.0,
            "y": ids % 7 / 1.0,
            "area": 1.0,
            "airport": ids == 132,
        },
        index=pd.Index(ids, name="LocationID"),
    )


def make_month(month: str, rows: int = 300, seed: int = 1) -> pd.DataFrame:
    draw = np.random.default_rng(seed)
    begun = np.sort(draw.uniform(0, 28 * 1440, rows)).round()
    pickup = pd.Timestamp(f"{month}-01") + pd.to_timedelta(begun, unit="min")
    minutes = draw.uniform(3, 40, rows).round(2)
    pickup = pd.Series(pickup).astype("datetime64[us]")
    dropoff = (pickup + pd.to_timedelta(minutes * 60, unit="s")).astype("datetime64[us]")
    zone = draw.integers(1, 264, (rows, 2)).astype("int32")
    money = draw.uniform(5, 50, rows).round(2)
    return pd.DataFrame(
        {
            "row": np.arange(rows, dtype="int64"), "pickup": pickup, "dropoff": dropoff,
            "PULocationID": zone[:, 0], "DOLocationID": zone[:, 1], "VendorID": 2.0,
            "passenger_count": np.where(draw.random(rows) < 0.1, np.nan, 1.0), "trip_type": 1.0, "RatecodeID": 1.0,
            "payment_type": 1.0, "trip_distance": minutes / 4, "fare_amount": money, "total_amount": money + 1,
            "null_block": False, "distance_suspect": False, "duration": minutes,
        }
    )  # fmt: skip


def small_model() -> DurationModel:
    """Fit a small model on a made month."""
    quick = PARAMS.model.model_copy(update={"rounds": 3, "head_rounds": 2, "interval_rounds": 3, "max_depth": 3})
    return fit_model(make_month("2023-01"), make_zones(), quick, PARAMS.features)


def settings_of(place: Path) -> Settings:
    """Return settings of a place with a registry in it."""
    return Settings(CHECKOUT, "unused", place / "data", place / "reports", f"sqlite:///{place / 'mlflow.db'}")


def settings_with_months(place: Path, model: DurationModel) -> Settings:
    """Return settings of a place with an empty registry and three months that were run, up to their registration."""
    give_registry(place)
    made = settings_of(place)
    for month in MONTHS:
        paths = made.month("green", month)
        for path in (paths.raw, paths.trips):
            path.parent.mkdir(parents=True, exist_ok=True)
        paths.raw.write_bytes(f"published {month}".encode())
        write_origin(paths, address=f"https://example.org/{month}", synthetic={"seed": 7})
        parquet.write_table(to_arrow(make_month(month)), paths.trips)
        for role in ("challenger", "winner"):
            save_model(model, paths.models / role)
        paths.reports.mkdir(parents=True)
        for name in ("01-explore.html", "05-compare.ipynb"):
            (paths.reports / name).write_text(month)
    return made


def judge(settings: Settings, month: str) -> dict[str, float]:
    """Return the scores of the month's challenger on its trips, and keep them as 05-compare records them."""
    paths = settings.month("green", month)
    trips = read_trips(paths.trips)
    scores = score(trips["duration"], load_model(paths.models / "challenger").predict(trips))
    write_json(paths.reports / "05-compare.json", make_compare(scores, True))
    return scores


def record(
    settings: Settings,
    month: str,
    promote: bool = True,
    fingerprint: str | None = None,
    params: Params = PARAMS,
    scores: dict[str, float] = SCORES,
) -> dict[str, int]:
    champion = champion_before(settings.tracking_uri, "green", month)
    incumbent = champion and {"version": champion.number}
    plan = make_plan("green", month, [one for one in MONTHS if one < month], 12, incumbent)
    compare = CompareResult(**make_compare(scores, promote))
    return record_month(settings, plan, params, scores, compare, fingerprint or f"print-{month}")
