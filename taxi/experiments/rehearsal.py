"""Trips that an experiment is judged by: those of the prediction log, or a rehearsal on a month's recorded trips."""

import numpy as np
import pandas as pd

from taxi.config import Settings
from taxi.errors import TaxiError, UsageError
from taxi.params import ExperimentParams
from taxi.predictions.arms import assign
from taxi.training.plan import read_plan
from taxi.training.train import judging_trips, load_challenger, load_incumbent

NOTE = (
    "A rehearsal: nobody was answered. Both models predicted the month's recorded trips, which neither has seen, and each trip "
    "was dealt to an arm as the service would deal it."
)
UNREGISTERED = 0  # the version that a rehearsal gives the month's challenger


def read_log(settings: Settings, service: str) -> pd.DataFrame:
    """Return the service's predictions from the prediction store, with their outcomes as far as these came.

    Those without one count too: an arm that loses outcomes is seen against all that it predicted.
    """
    from taxi.predictions.store import open_store  # a rehearsal needs no database

    store = open_store(settings.predictions, make=False)
    try:
        return store.with_outcomes(service)
    finally:
        store.close()


def rehearse(settings: Settings, service: str, month: str, mode: str, params: ExperimentParams) -> pd.DataFrame:
    """Return the log that champion and challenger of ``month`` would have left on its trips, each trip with its outcome.

    ``mode`` is share or shadow. Raises TaxiError where the month was not run, or had no champion to try against.
    """
    if mode not in ("share", "shadow"):
        raise UsageError(f"expected mode as share or shadow; got {mode!r}")
    plan = read_plan(settings, service, month)
    champion = load_incumbent(settings, plan)
    if champion is None or plan.incumbent is None:
        raise TaxiError(f"{service} {month} had no champion: there is nothing to try a challenger against")
    trips = judging_trips(settings, plan).sort_values("pickup", ignore_index=True)
    old, new = champion.predict(trips), load_challenger(settings, plan).predict(trips)
    return as_log(trips, old, new, mode, params, int(plan.incumbent["version"]), UNREGISTERED)


def _in_utc(pickup: pd.Series) -> pd.Series:
    summer_over = np.zeros(len(pickup), dtype=bool)  # the hour that comes twice is taken for winter's
    return pickup.dt.tz_localize("America/New_York", ambiguous=summer_over, nonexistent="shift_forward").dt.tz_convert(
        "UTC"
    )


def as_log(
    trips: pd.DataFrame,
    champion: pd.DataFrame,
    challenger: pd.DataFrame,
    mode: str,
    params: ExperimentParams,
    *versions: int,
) -> pd.DataFrame:
    """Return predictions of kept trips as the prediction log holds them; ``versions``: the champion's, the challenger's.

    A prediction is taken for made at the pickup; trips are named by their place in ``trips``.
    """
    ids = pd.Series([f"{row:08d}" for row in range(len(trips))], index=trips.index)
    shared = pd.DataFrame(
        {
            "trip_id": ids,
            "made_at": _in_utc(trips["pickup"]),
            "pickup": trips["pickup"],
            "fallback": False,
            "duration": trips["duration"],
        }
    )

    def arm(name: str, predicted: pd.DataFrame, shadow: bool) -> pd.DataFrame:
        number = versions[name == "challenger"]
        key = ids + ("-shadow" if shadow else "")
        return shared.join(predicted).assign(prediction_id=key, arm=name, shadow=shadow, version=number)

    if mode == "shadow":
        both = [arm("champion", champion, False), arm("challenger", challenger, True)]
        return pd.concat(both, ignore_index=True)
    dealt = np.array([assign(trip, params.salt, params.share) for trip in ids], dtype=bool)
    parts = [arm("champion", champion, False)[~dealt], arm("challenger", challenger, False)[dealt]]
    return pd.concat(parts).sort_index(ignore_index=True)


def experiment_trips(
    settings: Settings, service: str, month: str, source: str, mode: str, params: ExperimentParams
) -> pd.DataFrame:
    """Return the log to judge: ``source`` log (the prediction store) or rehearsal (of ``month``, in ``mode``)."""
    if source not in ("log", "rehearsal"):
        raise UsageError(f"expected source as log or rehearsal; got {source!r}")
    return read_log(settings, service) if source == "log" else rehearse(settings, service, month, mode, params)
