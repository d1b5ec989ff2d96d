"""Evaluation metrics: errors in minutes, overall and by slice."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

HOURS = ((0, 6), (6, 10), (10, 16), (16, 20), (20, 24))


def score(duration: pd.Series, predicted: pd.DataFrame | pd.Series) -> dict[str, float]:
    """Return rmse in minutes, of the mean; mae, medae and p90 of absolute errors, within5 (share within 5 minutes), of the median; n.

    A frame has the columns ``mean`` and ``median``; a series is both. With ``p10`` and ``p90`` also coverage80 (share of
    durations inside the interval) and width80 (its mean width, minutes). ValueError without trips or with a number that is not finite.
    """
    both = (predicted["mean"], predicted["median"]) if isinstance(predicted, pd.DataFrame) else (predicted, predicted)
    truth = np.asarray(duration, dtype=float)
    error, size = (np.asarray(one, dtype=float) - truth for one in both)
    if not error.size:
        raise ValueError("expected at least one trip to score; got none")
    if bad := int((~np.isfinite(error + size)).sum()):
        raise ValueError(f"expected finite predictions and durations; {bad} are not")
    size = np.abs(size)
    scores = {
        "rmse": float(np.sqrt(np.mean(error**2))),
        "mae": float(size.mean()),
        "medae": float(np.median(size)),
        "p90": float(np.quantile(size, 0.9)),
        "within5": float((size <= 5).mean()),
        "n": int(error.size),
    }
    if isinstance(predicted, pd.DataFrame) and {"p10", "p90"} <= set(predicted.columns):
        low, high = (np.asarray(predicted[name], dtype=float) for name in ("p10", "p90"))
        scores |= {
            "coverage80": float(((low <= truth) & (truth <= high)).mean()),
            "width80": float((high - low).mean()),
        }
    return scores


def interval_score(duration: pd.Series, predicted: pd.DataFrame, share: float = 0.8) -> float:
    """Return the mean interval score (minutes): the width of p10..p90, and a fine for each minute that a trip ends outside it.

    Source: Gneiting & Raftery, "Strictly proper scoring rules" (2007), equation 43. Smaller is better; a wide or a wrong interval is not.
    """
    truth, low, high = (np.asarray(one, dtype=float) for one in (duration, predicted["p10"], predicted["p90"]))
    outside = np.maximum(low - truth, 0) + np.maximum(truth - high, 0)
    return float((high - low + 2 / (1 - share) * outside).mean())


def slices(trips: pd.DataFrame, zones: pd.DataFrame) -> dict[str, np.ndarray]:
    """Return boolean masks (one a slice, in the order of ``trips``): pickup borough, hour band, airport, null block."""
    borough = trips["PULocationID"].map(zones["borough"]).to_numpy()
    hour = trips["pickup"].dt.hour.to_numpy()
    airport = (trips["PULocationID"].map(zones["airport"]) | trips["DOLocationID"].map(zones["airport"])).to_numpy(bool)
    null = trips["passenger_count"].isna().to_numpy()
    known = sorted(name for name in pd.unique(borough) if name not in ("Unknown", "N/A") and not pd.isna(name))
    return {
        **{f"borough: {name}": borough == name for name in known},
        **{f"hours: {low:02d}-{high:02d}": (hour >= low) & (hour < high) for low, high in HOURS},
        "airport: to or from": airport,
        "airport: neither": ~airport,
        "null block: yes": null,
        "null block: no": ~null,
    }


def score_by_slice(trips: pd.DataFrame, predicted: pd.DataFrame, zones: pd.DataFrame, least: int = 1) -> pd.DataFrame:
    """Return the scores of every slice that has at least ``least`` trips, with ``bias`` (mean error, minutes)."""
    rows = {}
    for name, mask in slices(trips, zones).items():
        if mask.sum() >= least:
            part, truth = predicted[mask], trips["duration"][mask]
            rows[name] = score(truth, part) | {"bias": float((part["mean"] - truth).mean())}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("slice")


def score_models(duration: pd.Series, predicted: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Return one row of scores a model, all on the same trips."""
    return pd.DataFrame.from_dict({name: score(duration, one) for name, one in predicted.items()}, orient="index")


def error_by_predicted(duration: pd.Series, predicted: pd.DataFrame) -> pd.DataFrame:
    """Return trips, coverage80, width80 and mae by band of the predicted duration (minutes)."""
    bands = pd.cut(
        predicted["mean"], [0, 5, 10, 15, 20, 30, np.inf], labels=["0-5", "5-10", "10-15", "15-20", "20-30", "30+"]
    )
    rows = {}
    for band in bands.cat.categories:
        inside = (bands == band).to_numpy()
        if inside.any():
            rows[band] = score(duration[inside], predicted[inside])
    return pd.DataFrame.from_dict(rows, orient="index")[["n", "coverage80", "width80", "mae"]].rename_axis(
        "predicted minutes"
    )


def thin(trips: pd.DataFrame, most: int, seed: int) -> pd.DataFrame:
    """Return ``most`` of the trips at random, in their order; all where there are no more."""
    return trips.sample(most, random_state=seed).sort_index() if len(trips) > most else trips
