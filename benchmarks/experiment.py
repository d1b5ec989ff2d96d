"""How often experiments on real trips say what is so: two equal arms, a 2 % better one, and days that come in spells.

Two models of different months predict the same later months, which neither has seen; the trips keep their true order, hours
and weather, and only the dealing is simulated. Printed as JSON, with what a 95 % interval of the usual kind would have said
to one who looks as often; and how the paired losses of days are correlated, against what the bounds allow for.
``--simulated`` needs no trips: how often two equal models are called different, by the correlation of their days.
"""

import argparse
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from taxi.config import Settings, load_settings
from taxi.data.zones import read_zones
from taxi.experiments.ab_test import change_over_time, first_decision, plan_experiment
from taxi.experiments.losses import LOSS, loss, paired_blocks, share_blocks
from taxi.experiments.sequential import ratio_sequence
from taxi.files import write_json
from taxi.models.fitting import fit_model
from taxi.months import iterate_months
from taxi.params import ExperimentParams, load_params
from taxi.training.train import read_months
from tests.support.live import spell_blocks

LEVEL_DAYS = 91  # over which the true ratio of two models' losses is taken for one: seasons change it
SPAN = 28  # days of one experiment in the shadow
Losses = tuple[pd.Series, np.ndarray, np.ndarray]


def predict_both(settings: Settings, service: str, windows: list[list[str]], months: list[str]) -> list[pd.DataFrame]:
    """Return what models of the two windows predict for the trips of ``months``, in the order of pickup, with duration."""
    params, zones = load_params(), read_zones(settings.zones)
    trips = read_months(settings, service, months).sort_values("pickup", ignore_index=True)
    models = (
        fit_model(read_months(settings, service, window), zones, params.model, params.features) for window in windows
    )
    return [model.predict(trips).assign(pickup=trips["pickup"], duration=trips["duration"]) for model in models]


def usual_decision(blocks: pd.DataFrame, after: int) -> bool:
    """Return whether an interval of the usual kind (1.96 standard errors, hours independent) ever excluded no change."""
    new, old = blocks["challenger"].to_numpy(), blocks["champion"].to_numpy()
    ratio = new.cumsum() / old.cumsum()
    squares = (new**2).cumsum() - 2 * ratio * (new * old).cumsum() + ratio**2 * (old**2).cumsum()
    reach = 1.96 * np.sqrt(np.maximum(squares, 0)) / old.cumsum()
    late = (blocks["day"] - blocks["day"].iloc[0]).dt.days.to_numpy() >= after
    return bool((np.abs(ratio - 1) > reach)[late].any())


def try_often(
    deal: Callable[[np.random.Generator], pd.DataFrame], mode: str, metric: str, params: ExperimentParams, times: int
) -> dict[str, Any]:
    """Run ``times`` experiments, look at each every hour, and count the verdicts at which one stopped."""
    said: Counter[str] = Counter()
    stopped, usual = [], 0
    for seed in range(times):
        blocks = deal(np.random.default_rng(seed))
        enough = int(np.searchsorted(blocks["trips"].cumsum(), params.planned_trips)) + 1
        looks = change_over_time(blocks.iloc[:enough], metric, params)
        decided = first_decision(looks, mode, metric, params)
        said[decided[1].name if decided else "undecided"] += 1
        stopped.append(int(looks["trips"].loc[decided[0]] if decided else looks["trips"].iloc[-1]))
        usual += usual_decision(blocks.iloc[:enough], params.least_days)
    return {
        "verdicts": dict(said),
        "median trips until stopped": int(np.median(stopped)),
        "a usual interval, peeked at, excludes no change": usual / times,
    }


def deal_trips(losses: Losses, factor: float) -> Callable[[np.random.Generator], pd.DataFrame]:
    """Return a dealer of each trip to one of two arms of the champion; the challenger's losses are ``factor`` times its."""
    pickup, champion, _ = losses

    def deal(draw: np.random.Generator) -> pd.DataFrame:
        challenger = draw.random(len(pickup)) < 0.5
        return share_blocks(pickup, challenger, np.where(challenger, factor, 1.0) * champion)

    return deal


def swap_days(losses: Losses) -> Callable[[np.random.Generator], pd.DataFrame]:
    """Return a dealer that swaps the two models' names on days drawn at random: then neither is better, but days differ."""
    pickup, champion, challenger = losses
    day = pickup.dt.normalize().factorize()[0]

    def deal(draw: np.random.Generator) -> pd.DataFrame:
        swapped = (draw.random(day.max() + 1) < 0.5)[day]
        return paired_blocks(pickup, np.where(swapped, challenger, champion), np.where(swapped, champion, challenger))

    return deal


def ever_wrong(blocks: pd.DataFrame, alpha: float, after: int) -> bool:
    """Return whether the bounds of two equal models exclude no change at any look from the day ``after`` on."""
    looks = ratio_sequence(blocks, float(blocks["trips"].sum()), alpha)
    late = blocks["day"] >= blocks["day"].iloc[0] + pd.Timedelta(days=after)
    return bool(((looks["low"] > 1) | (looks["high"] < 1))[late].any())


def equalise(losses: Losses) -> pd.DataFrame:
    """Return the blocks of two models in the shadow, the challenger's losses scaled so that about each day both lose the same."""
    blocks = paired_blocks(*losses)
    days = blocks.groupby("day")[["challenger", "champion"]].sum()
    around = days.rolling(LEVEL_DAYS, center=True, min_periods=LEVEL_DAYS // 2).sum()
    level = (around["challenger"] / around["champion"]).reindex(blocks["day"]).to_numpy()
    return blocks.assign(challenger=blocks["challenger"] / level)


def correlate_days(blocks: pd.DataFrame) -> dict[str, float]:
    """Return the autocorrelation of the paired losses of days, by lag in days, and the variance's share that weekdays explain."""
    days = (blocks["challenger"] - blocks["champion"]).groupby(blocks["day"]).sum()
    weekday = days - days.groupby(days.index.dayofweek).transform("mean")
    lags = {f"lag {lag}": float(days.autocorr(lag)) for lag in (1, 2, 3, 7, 14)}
    rest = {f"lag {lag} without weekdays": float(weekday.autocorr(lag)) for lag in (1, 7)}
    return lags | rest | {"explained by weekdays": float(1 - weekday.var() / days.var())}


def in_true_order(losses: Losses, params: ExperimentParams) -> dict[str, Any]:
    """Return how days are correlated, and how often 28-day experiments on equal models, days in their order, are wrong."""
    blocks = equalise(losses)
    days = blocks["day"].unique()
    windows = [blocks[blocks["day"].isin(days[at : at + SPAN])] for at in range(0, len(days) - SPAN + 1, 3)]
    wrong = [ever_wrong(one, params.alpha, params.least_days) for one in windows]
    return {"windows": len(windows), "wrong": float(np.mean(wrong)), **correlate_days(blocks)}


def simulate_errors_by_spell(params: ExperimentParams, times: int) -> dict[str, float]:
    """Return how often 28-day experiments on equal models are wrong, by the correlation with the day, and the week, before."""
    kinds = [(phi, 0.0) for phi in (0.0, 0.2, 0.4, 0.5, 0.6, 0.7)] + [(0.3, 0.3), (0.3, 0.65)]
    return {
        f"day {phi}, week {week}": float(
            np.mean(
                [
                    ever_wrong(spell_blocks(np.random.default_rng(seed), SPAN, phi, week), params.alpha, 7)
                    for seed in range(times)
                ]
            )
        )
        for phi, week in kinds
    }


def experiments(
    predicted: list[pd.DataFrame], metric: str, params: ExperimentParams, times: int
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield name and outcome of each kind of experiment in ``metric``."""
    pickup = predicted[0]["pickup"]
    lost = [loss(one[LOSS[metric]], one["duration"], metric) for one in predicted]
    losses = (pickup, lost[0], lost[1])
    yield f"{metric}: shadow, true order", in_true_order(losses, params)
    better = (1 - params.effect) ** (2 if metric == "rmse" else 1)
    kinds = {
        "share, equal arms": ("share", deal_trips(losses, 1.0), times),
        "share, 2 % better": ("share", deal_trips(losses, better), times // 2),
        "shadow, days swapped": ("shadow", swap_days(losses), times),
    }
    for name, (mode, deal, count) in kinds.items():
        pilot = change_over_time(deal(np.random.default_rng(10**6)), metric, params)
        planned = int(plan_experiment({metric: pilot}, params).loc[metric, "trips"])
        tuned = params.model_copy(update={"planned_trips": planned})
        yield (
            f"{metric}: {name}",
            {"planned": planned, "on hand": len(pickup)} | try_often(deal, mode, metric, tuned, count),
        )


def main() -> None:
    """Measure on the kept months in TAXI_DATA."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--service", default="green")
    parser.add_argument("--months", nargs=2, default=["2022-07", "2023-06"], help="first and last month to try on")
    parser.add_argument("--windows", nargs=4, default=["2022-01", "2022-03", "2022-04", "2022-06"])
    parser.add_argument("--times", type=int, default=50)
    parser.add_argument("--simulated", action="store_true", help="only the simulation of days in spells")
    parser.add_argument("--out", type=Path, default=Path("build/bench/experiment.json"))
    given = parser.parse_args()
    if given.simulated:
        print(json.dumps(simulate_errors_by_spell(load_params().experiment, given.times)))
        return
    windows = [list(iterate_months(*given.windows[at : at + 2])) for at in (0, 2)]
    begun = time.perf_counter()
    predicted = predict_both(load_settings(), given.service, windows, list(iterate_months(*given.months)))
    found: dict[str, Any] = {}
    for metric in ("rmse", "mae"):
        for name, outcome in experiments(predicted, metric, load_params().experiment, given.times):
            print(json.dumps({name: outcome}), flush=True)
            found[name] = outcome
    write_json(given.out, found | {"seconds": time.perf_counter() - begun})


if __name__ == "__main__":
    main()
