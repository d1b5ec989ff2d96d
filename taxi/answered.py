"""One prediction that was answered: found in the log by its id, and predicted again from the inputs kept there."""

from pathlib import Path
from typing import Any

import pandas as pd
from sqlalchemy.engine import make_url

from taxi.errors import UsageError
from taxi.evidence import Finding
from taxi.golden import ANSWERS, TOLERANCE
from taxi.model import DurationModel
from taxi.predictions import open_store

Json = dict[str, Any]


def read_prediction(url: str, prediction_id: str) -> Json:
    """Return the row that the prediction log keeps of one prediction; raise UsageError if there is none, StoreDown without an answer."""
    if (place := make_url(url)).drivername == "sqlite" and not Path(str(place.database)).is_file():
        raise UsageError(f"expected the prediction log at {place.database}; there is none (TAXI_PREDICTIONS)")
    row = open_store(url).find_prediction(prediction_id)
    if row is None:
        raise UsageError(f"the prediction log has no prediction {prediction_id!r}")
    return row


def predict_again(model: DurationModel, row: Json) -> pd.Series:
    """Return mean, median, p10 and p90 (minutes) that ``model`` predicts for the inputs in a row of the prediction log."""
    miles = row.get("planned_distance_miles")
    trip = {"pickup": pd.Timestamp(row["pickup"]), "VendorID": row["vendor"]}
    trip |= {name: row[name] for name in ("PULocationID", "DOLocationID", "passenger_count", "trip_type")}
    frame = pd.DataFrame([trip]).astype({"pickup": "datetime64[us]", "PULocationID": "int32", "DOLocationID": "int32"})
    frame = frame.astype(dict.fromkeys(("passenger_count", "trip_type", "VendorID"), "float64"))
    if miles is None or model.planned is None:
        return model.predict(frame).iloc[0]
    return model.planned.predict(frame.assign(planned_distance=float(miles))).iloc[0]


def check_prediction(model: DurationModel, row: Json) -> Finding:
    """Predict again with the version's model and compare with what was answered."""
    again = predict_again(model, row)
    for name in ANSWERS:
        if not abs(again[name] - float(row[name])) <= TOLERANCE:
            said = f"{name} was answered as {row[name]} minutes; the model says {again[name]:.4f}"
            return Finding("prediction", row["prediction_id"], "differs", said)
    return Finding("prediction", row["prediction_id"], "same")
