"""Golden trips: a few trips whose predictions are kept with the model, so that whoever loads it can check that it answers the same."""

import json
from typing import Any

import numpy as np
import pandas as pd

from taxi.data.schema import AT_PICKUP
from taxi.models.model import DurationModel
from taxi.outputs import OUTPUTS
from taxi.registry.integrity import UnsafeModel

TRIPS = 16
TOLERANCE = 1e-4  # minutes
TYPES = {"PULocationID": "int32", "DOLocationID": "int32"}

Golden = dict[str, Any]


def choose_golden(trips: pd.DataFrame, count: int = TRIPS) -> pd.DataFrame:
    """Return at most ``count`` trips, evenly spaced over those given; only what is known at pickup."""
    chosen = np.unique(np.linspace(0, max(len(trips) - 1, 0), count).round().astype(int))[: len(trips)]
    return trips[AT_PICKUP].iloc[chosen].reset_index(drop=True)


def _columns(frame: pd.DataFrame, names: list[str] | tuple[str, ...]) -> dict[str, list[float | None]]:
    return {name: [None if np.isnan(one) else round(float(one), 6) for one in frame[name]] for name in names}


def _miles(count: int) -> list[float]:
    return [0.5 + 0.75 * one for one in range(count)]


def write_golden(model: DurationModel, trips: pd.DataFrame) -> str:
    """Return some of the trips and what ``model`` predicts for them (minutes), as the JSON text that a version's tag keeps."""
    chosen = choose_golden(trips)
    kept = {"pickup": [one.isoformat() for one in chosen["pickup"]], **_columns(chosen, AT_PICKUP[1:])}
    golden: Golden = {"trips": kept, "predicted": _columns(model.predict(chosen), OUTPUTS)}
    if model.planned:
        miles = _miles(len(chosen))
        planned = model.planned.predict(chosen.assign(planned_distance=miles))
        golden |= {"planned_distance": miles, "planned": _columns(planned, OUTPUTS)}
    return json.dumps(golden, separators=(",", ":"), allow_nan=False)


def read_golden(text: str | None) -> Golden:
    """Read what ``write_golden`` returned; raise UnsafeModel if there is none or it is not one."""
    if not text:
        raise UnsafeModel("no golden trips were recorded when this model was registered; register it anew")
    try:
        golden: Golden = json.loads(text)
        if len(golden_trips(golden)) != len(golden_answers(golden)) or not len(golden_trips(golden)):
            raise ValueError("trips and predictions do not match")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UnsafeModel(f"the recorded golden trips cannot be read: {error}") from error
    return golden


def golden_trips(golden: Golden) -> pd.DataFrame:
    """Return the golden trips with the at-pickup columns, and ``planned_distance`` (miles) where there is a planned model."""
    kept = golden["trips"]
    frame = pd.DataFrame({name: pd.Series(kept[name], dtype=TYPES.get(name, "float64")) for name in AT_PICKUP[1:]})
    frame.insert(0, "pickup", pd.to_datetime(pd.Series(kept["pickup"])).astype("datetime64[us]"))
    return frame.assign(planned_distance=golden["planned_distance"]) if "planned" in golden else frame


def golden_answers(golden: Golden, planned: bool = False) -> pd.DataFrame:
    """Return the predictions recorded for the golden trips: mean, median, p10, p90 in minutes."""
    return pd.DataFrame(golden["planned" if planned else "predicted"], columns=OUTPUTS, dtype="float64")


def answer_fault(golden: Golden, found: pd.DataFrame, planned: bool = False) -> str | None:
    """Return which golden trip is predicted otherwise than recorded; None if ``found`` agrees to 0.0001 minutes."""
    expected = golden_answers(golden, planned)
    apart = np.abs(found[OUTPUTS].to_numpy(dtype=float) - expected.to_numpy())
    if (apart <= TOLERANCE).all():
        return None
    trip, column = np.unravel_index(np.argmax(np.nan_to_num(apart, nan=np.inf)), apart.shape)
    name = OUTPUTS[column]
    return (
        f"golden trip {trip}: expected {name} {expected[name].iloc[trip]:.4f} minutes; got {found[name].iloc[trip]:.4f}"
    )


def check_golden(model: DurationModel, golden: Golden) -> None:
    """Raise UnsafeModel unless the loaded model predicts for the golden trips what was recorded at registration."""
    trips = golden_trips(golden)
    if ("planned" in golden) != (model.planned is not None):
        raise UnsafeModel("the golden trips and the model disagree on whether there is a model for planned distances")
    fault = answer_fault(golden, model.predict(trips))
    if not fault and model.planned:
        fault = answer_fault(golden, model.planned.predict(trips), planned=True)
    if fault:
        raise UnsafeModel(f"the model does not predict what it did when it was registered: {fault}")
