"""Losses by arm and hour, from the prediction log, and the outcomes that it lacks."""

from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np
import pandas as pd

from taxi.errors import TaxiError
from taxi.models.evaluate import score
from taxi.outputs import OUTPUTS
from taxi.params import CleanParams
from taxi.predictions.arms import ARMS, SHADOW, with_known_duration

LOSS = {"rmse": "mean", "mae": "median"}  # the prediction that each metric judges: the one that makes it smallest


@dataclass(frozen=True)
class Running:
    """The experiment that ran last: its two versions, when it began (UTC), and its rows of the log.

    ``rows`` has, beside the log's columns, ``unit`` (the trip) and ``challenger`` (the trip is dealt to the challenger).
    """

    mode: str
    champion: int
    challenger: int
    start: pd.Timestamp
    rows: pd.DataFrame


def _prepared(log: pd.DataFrame) -> pd.DataFrame:
    rows = log.assign(
        made_at=pd.to_datetime(log["made_at"], utc=True, format="ISO8601"),
        pickup=pd.to_datetime(log["pickup"]),
        unit=log["trip_id"].fillna(log["prediction_id"].str.removesuffix(SHADOW)),
        **{name: log[name].astype(bool) for name in ("shadow", "fallback")},
    )
    rows["challenger"] = (rows["arm"] == "challenger") | rows["fallback"]
    return rows.sort_values(["made_at", "prediction_id"], ignore_index=True)


def find_running(log: pd.DataFrame, since: datetime | None = None) -> Running:
    """Return the newest experiment in ``log`` (all predictions, as ``Store.with_outcomes`` gives them).

    Its versions are those that predicted last; it begins when both were there, or at ``since`` (UTC), and each trip counts
    once, with its first prediction. A trip that the challenger failed to answer stays the challenger's: otherwise it could
    leave out the hard ones. Raises TaxiError where an arm predicted nothing.
    """
    rows = _prepared(log)
    tried = rows[rows["challenger"] & ~rows["fallback"]]
    answered = rows[(rows["arm"] == "champion") & ~rows["fallback"]]
    if tried.empty or answered.empty:
        missing = "challenger" if tried.empty else "champion"
        raise TaxiError(
            f"expected predictions of both arms; the log has none of a {missing}: set experiment.mode in params.yaml"
        )
    shadow, pair = bool(tried["shadow"].iloc[-1]), {int(one["version"].iloc[-1]) for one in (answered, tried)}
    own = rows[rows["version"].isin(pair) & (~rows["shadow"] | shadow)]
    seen = own[~own["fallback"] & (~own["challenger"] | (own["shadow"] == shadow))]
    start = pd.Timestamp(since) if since is not None else seen.groupby("challenger")["made_at"].min().max()
    inside = own[own["made_at"] >= start].drop_duplicates(["unit", "shadow"])
    champion, challenger = (int(one["version"].iloc[-1]) for one in (answered, tried))
    return Running("shadow" if shadow else "share", champion, challenger, start, inside.reset_index(drop=True))


# --- Outcomes that are late or lost: hours that lack too many are not judged, and what is missing must be missing at random.

SETTLING = pd.Timedelta(days=1)  # of a younger trip it tells nothing that its outcome is missing: it may still run
QUARTERS = ("shortest", "short", "long", "longest")  # of the trips, by their predicted duration


def _share_known(rows: pd.DataFrame, unit: str) -> pd.Series:
    """Return the share of answered trips whose outcome came, by hour ("h") or day ("D") of pickup."""
    answered = rows[~rows["shadow"]]
    return answered["duration"].notna().groupby(answered["pickup"].dt.floor(unit)).mean()


def _newest_complete(rows: pd.DataFrame, share: float) -> pd.Timestamp:
    """Return the newest day of pickup in which ``share`` of the trips have an outcome; NaT if there is none."""
    begun = rows["pickup"] <= rows["made_at"].max().tz_localize(
        None
    )  # UTC is ahead of New York: no trip of today is lost
    days = _share_known(rows[begun], "D")
    return days.index[days >= share].max()


def keep_complete(running: Running, share: float) -> Running:
    """Return the experiment with the hours of pickup alone in which ``share`` of the answered trips have an outcome.

    None is younger than the newest day that is as complete: there an hour may have no late outcome by having no long trip.
    """
    rows = running.rows
    came = rows["pickup"].dt.floor("h").map(_share_known(rows, "h"))
    old = rows["pickup"].dt.normalize() <= _newest_complete(rows, share)
    return replace(running, rows=rows[(came >= share) & old])


def _settled(rows: pd.DataFrame, share: float) -> pd.DataFrame:
    """Return the answered trips whose outcomes are not just late: a day old, and of no day after the newest complete one."""
    answered = rows[~rows["shadow"] & (rows["made_at"] < rows["made_at"].max() - SETTLING)]
    newest = _newest_complete(rows, share)
    return answered if pd.isna(newest) else answered[answered["pickup"].dt.normalize() <= newest]


def missing_outcomes(running: Running, share: float) -> pd.DataFrame:
    """Return how many outcomes are missing by arm and quarter of the predicted duration, and how many chance would leave out.

    Columns trips, missing, expected, a row for each group. Chance is that within each hour of pickup, so that hours without
    any outcome say nothing of the groups; trips whose outcomes may yet come do not count (``share``: see ``keep_complete``).
    """
    rows = _settled(running.rows, share)
    quarter = np.searchsorted(rows["mean"].quantile([0.25, 0.5, 0.75]), rows["mean"])
    predicted = pd.Categorical(np.take(QUARTERS, quarter), QUARTERS)
    lost = rows["duration"].isna()
    expected = lost.groupby(rows["pickup"].dt.floor("h")).transform("mean")
    groups = [np.where(rows["challenger"], *reversed(ARMS)), predicted]
    counted = pd.DataFrame({"trips": 1, "missing": lost.astype(int), "expected": expected.astype(float)})
    return counted.groupby(groups, observed=True).sum().rename_axis(["arm", "predicted"])


def pair_predictions(rows: pd.DataFrame) -> pd.DataFrame:
    """Return one row a trip that both models predicted: pickup, duration, and mean and median of each arm (minutes)."""
    shadow = rows[rows["shadow"] & ~rows["fallback"]].set_index("unit")[OUTPUTS].add_suffix("_challenger")
    answer = rows[~rows["shadow"]].set_index("unit")[["pickup", "duration", *OUTPUTS]]
    answer = answer.rename(columns={name: f"{name}_champion" for name in OUTPUTS})
    return answer.join(shadow, how="inner").sort_values("pickup").reset_index()


def loss(predicted: pd.Series, duration: pd.Series, metric: str) -> np.ndarray:
    """Return what each prediction loses: its squared error (rmse) or its absolute error (mae), in minutes."""
    error = np.asarray(predicted, dtype=float) - np.asarray(duration, dtype=float)
    return error**2 if metric == "rmse" else np.abs(error)


def _hours(pickup: pd.Series) -> tuple[np.ndarray, pd.DatetimeIndex]:
    code, hours = pd.factorize(pickup.dt.floor("h"), sort=True)
    return code, pd.DatetimeIndex(hours)


def _blocks(hours: pd.DatetimeIndex, **columns: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame({"day": hours.normalize().to_numpy(), **columns}, index=hours)


def share_blocks(pickup: pd.Series, challenger: np.ndarray, lost: np.ndarray) -> pd.DataFrame:
    """Return what the arms lost in each hour of pickup, by trips that were dealt to one arm or the other.

    Arms are compared within the hour, so that neither gains from having had the quieter hours: the hour's mean loss of each
    arm, times n1 * n0 / (n1 + n0), the weight that makes the comparison most precise. Hours without one arm tell nothing.
    ``dealt`` is the variance of the arms' difference that the dealing alone makes, which no weather carries to the next day.
    """
    code, hours = _hours(pickup)
    size = len(hours)
    counts = [np.bincount(code[arm], minlength=size) for arm in (~challenger, challenger)]
    sums = [np.bincount(code[arm], lost[arm], size) for arm in (~challenger, challenger)]
    both = (counts[0] > 0) & (counts[1] > 0)
    here, there = (count[both] for count in counts)
    weight = here * there / (here + there)
    means = [total[both] / count for total, count in zip(sums, (here, there), strict=True)]
    around = np.bincount(code, lost**2, size)[both] - here * means[0] ** 2 - there * means[1] ** 2
    dealt = weight * np.maximum(around, 0) / np.maximum(here + there - 2, 1)
    columns = {"trips": here + there, "challenger": weight * means[1], "champion": weight * means[0], "dealt": dealt}
    return _blocks(hours[both], **columns)


def paired_blocks(pickup: pd.Series, champion: np.ndarray, challenger: np.ndarray) -> pd.DataFrame:
    """Return what both models lost in each hour of pickup, by trips that both predicted."""
    code, hours = _hours(pickup)
    new, old = (np.bincount(code, lost, len(hours)) for lost in (challenger, champion))
    return _blocks(hours, trips=np.bincount(code, minlength=len(hours)), challenger=new, champion=old)


def judged_trips(running: Running, clean: CleanParams) -> pd.DataFrame:
    """Return the trips with an outcome that judge the arms: each with its own arm's prediction, or in shadow mode with both."""
    if running.mode == "shadow":
        return with_known_duration(pair_predictions(running.rows), clean)
    return with_known_duration(running.rows[~running.rows["shadow"]], clean)


def compare_arms(trips: pd.DataFrame, mode: str, metric: str) -> pd.DataFrame:
    """Return the hours' blocks of ``judged_trips`` in ``metric`` (rmse or mae), in order of time."""
    column, duration = LOSS[metric], trips["duration"]
    if mode == "share":
        return share_blocks(trips["pickup"], trips["challenger"].to_numpy(), loss(trips[column], duration, metric))
    lost = [loss(trips[f"{column}_{arm}"], duration, metric) for arm in ARMS]
    return paired_blocks(trips["pickup"], *lost)


def score_arms(trips: pd.DataFrame, mode: str) -> pd.DataFrame:
    """Return each arm's scores on its own trips (share), or on the same trips (shadow); see ``taxi.evaluate.score``."""
    scores = {}
    for arm in ARMS:
        suffix = "" if mode == "share" else f"_{arm}"
        own = trips[trips["challenger"] == (arm == "challenger")] if mode == "share" else trips
        predicted = own[[f"{name}{suffix}" for name in OUTPUTS]].set_axis(OUTPUTS, axis=1)
        if len(own):
            scores[arm] = score(own["duration"], predicted)
    return pd.DataFrame.from_dict(scores, orient="index")
