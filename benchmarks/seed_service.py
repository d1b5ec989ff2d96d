"""A service as one often meets it: the model is loaded from the registry on every request, and inputs go through a DictVectorizer.

    python -m benchmarks.seed_service REGISTRY_URI PORT

Written anew from what mircohoehne/e2e-taxi-ride-duration-prediction does; only the benchmark runs it.
"""

import sys

import mlflow
import pandas as pd
import uvicorn
from fastapi import FastAPI
from mlflow.models import infer_signature
from pydantic import BaseModel
from sklearn.feature_extraction import DictVectorizer
from sklearn.pipeline import make_pipeline
from xgboost import XGBRegressor

NAME = "seed"


class Trip(BaseModel):
    """What it is asked."""

    PULocationID: int
    DOLocationID: int


def _dicts(trips: pd.DataFrame) -> list[dict[str, str]]:
    return trips[["PULocationID", "DOLocationID"]].astype(str).to_dict("records")


def register(uri: str, experiment: str, trips: pd.DataFrame) -> None:
    """Fit it on kept trips and register it at ``uri``, with its files where the experiment keeps them."""
    mlflow.set_tracking_uri(uri)
    mlflow.set_experiment(experiment_id=experiment)
    model = make_pipeline(DictVectorizer(), XGBRegressor(n_estimators=100, n_jobs=1)).fit(
        _dicts(trips), trips["duration"]
    )
    asked = _dicts(trips.head(3))
    mlflow.sklearn.log_model(
        model,
        name="model",
        registered_model_name=NAME,
        serialization_format="cloudpickle",
        signature=infer_signature(pd.DataFrame(asked), model.predict(asked)),
        pip_requirements=["scikit-learn"],
    )


def main() -> None:
    """Serve it."""
    uri, port = sys.argv[1:]
    mlflow.set_tracking_uri(uri)
    app = FastAPI()

    @app.post("/predict")
    def predict(trip: Trip) -> dict[str, float]:
        model = mlflow.sklearn.load_model(f"models:/{NAME}/1")
        asked = {"PULocationID": str(trip.PULocationID), "DOLocationID": str(trip.DOLocationID)}
        return {"duration": float(model.predict([asked])[0])}

    uvicorn.run(app, host="127.0.0.1", port=int(port), log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
