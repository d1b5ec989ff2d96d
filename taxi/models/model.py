"""Model of a trip's duration: features and a distribution, saved in files without pickle."""

import zlib
from pathlib import Path
from typing import Any, Protocol
from zipfile import BadZipFile

import numpy as np
import pandas as pd
import pyarrow as arrow
from xgboost.core import XGBoostError

from taxi.errors import TaxiError
from taxi.features.history import SIZES, Sums
from taxi.features.trip_features import NAMES, TripFeatures, at_pickup
from taxi.files import read_json, staged, write_json
from taxi.models.baselines import SimpleDistribution
from taxi.models.boosted import Boosted
from taxi.outputs import OUTPUTS
from taxi.unpacking import content_fault

FORMAT = 5
DENSE_FORMAT = 4  # had every cell of the tables of sums, seen or not; still read
PLANNED_FOLDER = "planned"
# What the parsers raise over bytes that are not a model's.
UNREADABLE = (
    KeyError, ValueError, TypeError, AttributeError, IndexError, EOFError, MemoryError,
    OSError, BadZipFile, zlib.error, arrow.ArrowException, XGBoostError,
)  # fmt: skip


class Distribution(Protocol):
    """What turns features into mean, median, p10 and p90."""

    def predict(self, seen: np.ndarray) -> np.ndarray:
        """Return minutes, shape (n, 4)."""

    def gains(self) -> np.ndarray:
        """Return each feature's weight in the model."""

    def save(self, folder: Path) -> None:
        """Write into an existing folder."""


class DurationModel:
    """A fitted model. ``planned`` is the second model, for trips with a planned distance, or None."""

    def __init__(
        self,
        features: TripFeatures,
        distribution: Distribution,
        recipe: dict[str, Any],
        planned: "DurationModel | None" = None,
    ) -> None:
        self.features = features
        self.distribution = distribution
        self.recipe = recipe
        self.planned = planned

    def predict(self, trips: pd.DataFrame) -> pd.DataFrame:
        """Return mean, median, p10 and p90 (minutes, within 1..60, in order) for trips with the at-pickup columns.

        The ``planned`` model also needs ``planned_distance`` (miles, NaN where there is none); raises ValueError without it.
        """
        minutes = self.distribution.predict(self.features.transform(at_pickup(trips, self.features.planned)))
        return pd.DataFrame(minutes, columns=OUTPUTS, index=trips.index)

    def importance(self) -> pd.Series:
        """Return each feature's share of the gain (XGBoost) or of the absolute standardised weight (linear), largest first."""
        gains = self.distribution.gains()
        names = self.features.get_feature_names_out()[: len(gains)]
        return pd.Series(gains / gains.sum(), index=names).sort_values(ascending=False)


def _seen_cells(sums: Sums) -> dict[str, Any]:
    """Return what a file keeps of the sums: nine cells of ten have seen no trip, and reading them takes longer than all else."""
    arrays: dict[str, Any] = {}
    for name, (total, count) in sums.items():
        seen = np.flatnonzero(count)
        arrays |= {f"cell/{name}": seen, f"sum/{name}": total[seen], f"count/{name}": count[seen]}
    return arrays


def _all_cells(arrays: dict[str, np.ndarray]) -> Sums:
    """Return the sums of which ``arrays`` has the cells seen, or all of them."""

    def table(kind: str, name: str) -> np.ndarray:
        if f"cell/{name}" not in arrays:
            return arrays[f"{kind}/{name}"]
        whole = np.zeros(SIZES[name.removeprefix("way_")])
        whole[arrays[f"cell/{name}"]] = arrays[f"{kind}/{name}"]
        return whole

    names = {one.split("/")[1] for one in arrays}
    return {name: (table("sum", name), table("count", name)) for name in names}


def save_model(model: DurationModel, folder: Path) -> None:
    """Write the model into ``folder``, whole or not at all; the same model gives the same bytes. No pickle is needed."""
    with staged(folder) as part:
        part.mkdir(parents=True)
        model.distribution.save(part)
        if model.planned:
            (part / PLANNED_FOLDER).mkdir()
            model.planned.distribution.save(part / PLANNED_FOLDER)
        np.savez_compressed(part / "tables.npz", **_seen_cells(model.features.sums_))
        model.features.zones.to_parquet(part / "zones.parquet")
        write_json(part / "recipe.json", model.recipe | {"planned": model.planned is not None})


def _distribution(folder: Path, kind: str) -> Distribution:
    return Boosted.load(folder) if kind == "xgboost" else SimpleDistribution.load(folder, kind)


def load_model(folder: Path) -> DurationModel:
    """Read what ``save_model`` wrote; raise TaxiError if there is no model, one of another format, or one that is damaged."""
    if not (folder / "recipe.json").is_file():
        raise TaxiError(f"expected a model in {folder}; there is no recipe.json")
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        if fault := content_fault(path):
            raise TaxiError(f"expected a model in {folder}; {path.relative_to(folder)} {fault}")
    try:
        return _load(folder)
    except UNREADABLE as error:
        raise TaxiError(f"expected a model in {folder}; it cannot be read as one: {error!r}") from error


def _load(folder: Path) -> DurationModel:
    recipe = read_json(folder / "recipe.json")
    if recipe.get("format") not in (FORMAT, DENSE_FORMAT) or recipe.get("columns") != NAMES:
        raise TaxiError(
            f"expected a model of format {FORMAT} with this code's {len(NAMES)} features in {folder}; it has another"
        )
    with np.load(folder / "tables.npz", allow_pickle=False) as archive:
        sums = _all_cells(dict(archive))
    features = TripFeatures(pd.read_parquet(folder / "zones.parquet"), **recipe["features"]).restore([sums])
    planned = None
    if recipe["planned"]:
        planned = DurationModel(
            features.with_planned(True), _distribution(folder / PLANNED_FOLDER, recipe["kind"]), recipe
        )
    return DurationModel(features, _distribution(folder, recipe["kind"]), recipe, planned)
