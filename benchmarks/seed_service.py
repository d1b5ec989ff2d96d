"""A service as one often meets it: the model is loaded on every request, and inputs go through a DictVectorizer.

    python -m benchmarks.seed_service MODEL_FILE PORT

Written anew from what mircohoehne/e2e-taxi-ride-duration-prediction does: the zone pair as text, the distance, a linear regression,
both pickled into one file. Left out is the Polars query by which it makes the pair, which takes time too. Only the benchmark runs it.
"""

import sys
from pathlib import Path

import joblib
import pandas as pd
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from sklearn.feature_extraction import DictVectorizer
from sklearn.linear_model import LinearRegression


class Trip(BaseModel):
    """What it is asked."""

    PULocationID: int
    DOLocationID: int
    trip_distance: float


def _pair(pickup: object, dropoff: object) -> str:
    return f"{pickup}_{dropoff}"


def fit(trips: pd.DataFrame, file: Path) -> None:
    """Fit it on kept trips and leave model and vectorizer in ``file``."""
    asked = [
        {"pickup_dropoff_pair": _pair(pickup, dropoff), "trip_distance": miles}
        for pickup, dropoff, miles in zip(
            trips["PULocationID"], trips["DOLocationID"], trips["trip_distance"], strict=True
        )
    ]
    vectorizer = DictVectorizer()
    model = LinearRegression().fit(vectorizer.fit_transform(asked), trips["duration"])
    joblib.dump((model, vectorizer), file)


def main() -> None:
    """Serve it."""
    file, port = sys.argv[1:]
    app = FastAPI()

    @app.post("/predict")
    def predict(trip: Trip) -> dict[str, float]:
        model, vectorizer = joblib.load(file)
        pair = _pair(trip.PULocationID, trip.DOLocationID)
        asked = {"pickup_dropoff_pair": pair, "trip_distance": trip.trip_distance}
        return {"predicted_duration": float(model.predict(vectorizer.transform([asked]))[0])}

    uvicorn.run(app, host="127.0.0.1", port=int(port), log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
