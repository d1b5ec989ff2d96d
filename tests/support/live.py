"""Live trips made for tests: days with a weather of their own, two arms, a log as the prediction store gives it."""

from typing import Any

import numpy as np
import pandas as pd
from scipy.signal import lfilter

from taxi.predictions.arms import assign

WEATHER = 0.25  # sigma of the logarithm of a day's errors, which both arms share


def simulate_errors(
    draw: np.random.Generator, days: int = 28, daily: int = 720, minutes: float = 5.0
) -> tuple[pd.Series, np.ndarray]:
    """Return pickups in order and a champion's errors (minutes): larger on bad days and at rush hours, with long tails."""
    hours = np.tile(np.r_[[0.3] * 6, [1.2] * 4, [1.0] * 6, [1.6] * 4, [0.8] * 4], days)
    trips = draw.poisson(hours * daily / 24)
    hour = np.repeat(np.arange(len(hours)), trips)
    pickup = pd.Series(pd.Timestamp("2024-03-04") + pd.to_timedelta(hour * 60 + 30, unit="min"))
    bad = np.exp(draw.normal(0, WEATHER, days))[hour // 24] * np.where(hour % 24 // 4 == 4, 1.4, 1.0)
    return pickup, minutes * bad * draw.standard_t(8, len(hour))


def build_log(pickup: pd.Series, **columns: Any) -> pd.DataFrame:
    """Return one champion's row a trip, predicted exactly and joined with its outcome; ``columns`` replace some."""
    n = len(pickup)
    frame = pd.DataFrame(
        {
            "prediction_id": [f"p{number}" for number in range(n)],
            "trip_id": [f"t{number}" for number in range(n)],
            "made_at": (pickup + pd.Timedelta(hours=4)).dt.strftime("%Y-%m-%dT%H:%M:%S+00:00").to_numpy(),
            "service": "green",
            "pickup": pickup.to_numpy(),
            "arm": "champion",
            "shadow": False,
            "fallback": False,
            "version": 3,
            "mean": 15.0,
            "median": 15.0,
            "p10": 10.0,
            "p90": 22.0,
            "duration": 15.0,
        }
    )
    return frame.assign(**columns)


def share_log(pickup: pd.Series, error: np.ndarray, factor: float = 1.0, share: float = 0.5) -> pd.DataFrame:
    """Return the log of a shared experiment; the challenger's errors are ``factor`` times the champion's."""
    log = build_log(pickup, duration=30.0)
    challenger = np.array([assign(trip, "first", share) for trip in log["trip_id"]])
    predicted = 30 + error * np.where(challenger, factor, 1.0)
    arm = np.where(challenger, "challenger", "champion")
    return log.assign(arm=arm, version=np.where(challenger, 4, 3), mean=predicted, median=predicted)


def shadow_log(pickup: pd.Series, champion: np.ndarray, challenger: np.ndarray) -> pd.DataFrame:
    """Return the log of a shadow experiment: every trip has the champion's answer and a shadow row."""
    answers = build_log(pickup, duration=30.0, mean=30 + champion, median=30 + champion)
    shadows = answers.assign(
        prediction_id="s" + answers["trip_id"], arm="challenger", shadow=True, version=4,
        mean=30 + challenger, median=30 + challenger,
    )  # fmt: skip
    return pd.concat([answers, shadows], ignore_index=True)


def simulate_spells(draw: np.random.Generator, days: int, phi: float, week: float = 0.0) -> np.ndarray:
    """Return days' effects that come in spells: of unit variance, correlated by ``phi`` with the day before.

    ``week`` is the correlation of what remains with the same weekday of the week before: (1 - phi B)(1 - week B^7) x = noise.
    """
    process = np.convolve([1, -phi], [1, 0, 0, 0, 0, 0, 0, -week])
    scale = np.sqrt((lfilter([1], process, np.r_[1.0, np.zeros(999)]) ** 2).sum())
    return lfilter([1], process, draw.normal(size=days + 400))[-days:] / scale


def spell_blocks(draw: np.random.Generator, days: int, phi: float, week: float = 0.0, hours: int = 4) -> pd.DataFrame:
    """Return the blocks of a shadow experiment on two models of equal error whose days come in spells."""
    champion = np.exp(draw.normal(0, WEATHER, days)).repeat(hours)
    suits = 0.05 * simulate_spells(draw, days, phi, week).repeat(hours) + draw.normal(0, 0.02, days * hours)
    day = pd.Timestamp("2024-03-04") + pd.to_timedelta(np.arange(days * hours) // hours, unit="D")
    return pd.DataFrame({"day": day, "trips": 100, "challenger": champion * (1 + suits), "champion": champion})


def lengths_log(seed: int, days: int = 28, daily: int = 480) -> pd.DataFrame:
    """Return a shadow experiment's log of two models whose RMSE is equal: the challenger is better on short trips, worse on long.

    Trips are of 3 to 55 minutes; a quarter, those from 25 minutes on, are long.
    """
    draw = np.random.default_rng(seed)
    pickup, error = simulate_errors(draw, days, daily)
    long = draw.random(len(error)) < 0.25
    length = np.where(long, draw.uniform(25, 55, len(error)), draw.uniform(3, 25, len(error)))
    error = error * np.where(long, 1.5, 1.0)
    other = error * np.sqrt(np.where(long, 1 + 0.3 * 3 / 2.25, 1 - 0.3))
    log = shadow_log(pickup, error, other)
    lengths = np.tile(length, 2)
    return log.assign(duration=lengths, **{name: log[name] - 30 + lengths for name in ("mean", "median", "p10", "p90")})
