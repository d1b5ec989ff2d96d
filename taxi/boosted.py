"""One trunk, three heads: boosted trees for a trip's whole distribution, as fitted by ``taxi.boosting``.

The trunk gives the logarithm of the minutes; the mean and the median start from it, the 10 % and 90 % quantiles from history.
"""

from pathlib import Path

import numpy as np
import xgboost

from taxi.calibration import Calibration
from taxi.features import NAMES

PARTS = ("trunk", "mean", "median", "interval")  # in the order of learning: heads start from the trunk
MISSING = -999.0  # trees read a number faster, and in an eighth of the memory, than a gap
START = NAMES.index("pair_band_minutes")


def filled(seen: np.ndarray) -> np.ndarray:
    """Return features with ``MISSING`` where there is none."""
    return np.nan_to_num(seen, nan=MISSING)


class Boosted:
    """A fitted trunk with its heads: ``predict`` gives mean, median, p10 and p90 from features."""

    def __init__(self, parts: dict[str, xgboost.Booster], calibration: Calibration) -> None:
        self.parts = parts
        self.calibration = calibration

    def margins(self, seen: np.ndarray) -> np.ndarray:
        """Return mean (minutes), median and both quantiles (log minutes) before calibration, shape (n, 4), float64."""
        full = filled(seen)
        trunk = self._ask("trunk", full, None)
        mean = self._ask("mean", full, np.exp(trunk.astype(np.float64)).astype(np.float32))
        median = self._ask("median", full, trunk)
        start = np.log(full[:, START].astype(np.float64)).astype(np.float32)
        edges = self._ask("interval", full, np.column_stack([start, start]))
        return np.column_stack([mean, median, edges]).astype(np.float64)

    def predict(self, seen: np.ndarray) -> np.ndarray:
        """Return mean, median, p10 and p90 in minutes within 1..60, in order, shape (n, 4)."""
        return self.calibration.finish(self.margins(seen), seen)

    def _ask(self, name: str, full: np.ndarray, start: np.ndarray | None) -> np.ndarray:
        return self.parts[name].inplace_predict(full, predict_type="margin", base_margin=start)

    def gains(self) -> np.ndarray:
        """Return each feature's gain in the trunk and the mean's head, shape (k,)."""
        total = np.zeros(self.parts["trunk"].num_features())
        for name in ("trunk", "mean"):
            for feature, gain in self.parts[name].get_score(importance_type="total_gain").items():
                total[int(feature[1:])] += gain
        return total

    def contributions(self, seen: np.ndarray) -> np.ndarray:
        """Return how much each feature moves the logarithm of the minutes, and the average last, shape (n, k + 1).

        Source: TreeSHAP, Lundberg et al., "From local explanations to global understanding" (2020), as XGBoost computes it.
        """
        return self.parts["trunk"].predict(xgboost.DMatrix(filled(seen)), pred_contribs=True)

    def save(self, folder: Path) -> None:
        """Write the boosters as UBJ and the calibration as NPZ."""
        for name, booster in self.parts.items():
            booster.save_model(folder / f"{name}.ubj")
        np.savez_compressed(folder / "calibration.npz", **self.calibration.state())

    @classmethod
    def load(cls, folder: Path) -> "Boosted":
        """Read what ``save`` wrote."""
        with np.load(folder / "calibration.npz", allow_pickle=False) as archive:
            calibration = Calibration(**archive)
        return cls({name: xgboost.Booster(model_file=str(folder / f"{name}.ubj")) for name in PARTS}, calibration)
