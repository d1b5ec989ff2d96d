"""MLflow pyfunc loader of a registered model: our own files, no pickle."""

from pathlib import Path

import pandas as pd

from taxi.models.model import DurationModel, load_model


class ServedModel:
    """Predicts from a frame with the at-pickup columns; returns mean, median, p10 and p90 in minutes."""

    def __init__(self, model: DurationModel) -> None:
        """Serve ``model``."""
        self.model = model

    def predict(self, trips: pd.DataFrame, params: dict[str, object] | None = None) -> pd.DataFrame:
        """Return one row of mean, median, p10 and p90 a trip."""
        return self.model.predict(trips)


def _load_pyfunc(path: str) -> ServedModel:
    return ServedModel(load_model(Path(path)))
