"""A/B test on live trips, judged: errors by arm, the change over time, the arms' sizes, the verdict and its reason."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import chisquare

from taxi.errors import TaxiError, UsageError
from taxi.experiments.losses import (
    Running,
    compare_arms,
    find_running,
    judged_trips,
    keep_complete,
    missing_outcomes,
    score_arms,
)
from taxi.experiments.sequential import count_evidence, plan_trips, ratio_evidence, ratio_sequence
from taxi.params import ExperimentParams, Params

# --- What an experiment says at one look, and whether to stop it: a pure function that returns its reason.

INVALID = "invalid: sample ratio"
UNEVEN = "invalid: outcomes missing unevenly"
UNBOUNDED = "too few days to bound"
UNDECIDED, NO_DIFFERENCE = "undecided", "no difference"
BETTER = {True: "challenger better", False: "champion better"}


@dataclass(frozen=True)
class Look:
    """What is known at one moment. ``change`` (challenger's error against champion's) and its bounds are shares of 1.

    ``evidence`` is the largest so far against the planned share of trips (an e-value; 1 in shadow mode), ``fallback`` the
    share of the challenger's trips that it failed, ``unpaired`` that of trips without a shadow prediction; ``uneven`` says
    which outcomes are missing unevenly, ``complete`` is whether there are hours whose outcomes are complete enough to judge.
    """

    mode: str
    metric: str
    trips: int
    days: int
    change: float
    low: float
    high: float
    evidence: float = 1.0
    fallback: float = 0.0
    unpaired: float = 0.0
    uneven: str = ""
    complete: bool = True


@dataclass(frozen=True)
class ExperimentVerdict:
    """``name`` is one of the six verdicts; ``stop`` says that waiting for more trips cannot help."""

    name: str
    reason: str
    stop: bool


def _broken(look: Look, params: ExperimentParams) -> str | None:
    if look.evidence >= 1 / params.ratio_alpha:
        return (
            f"the split is not the planned one ({params.share:.0%} to the challenger): evidence {look.evidence:.3g}, "
            f"limit {1 / params.ratio_alpha:,.0f}; find out why before believing any number"
        )
    if look.unpaired > params.unpaired_limit:
        return f"{look.unpaired:.1%} of trips have no shadow prediction (limit {params.unpaired_limit:.0%})"
    return None


def _said(look: Look, params: ExperimentParams) -> str:
    bounds = f"{1 - params.alpha:.0%} interval {look.low:+.2%} to {look.high:+.2%} at any look"
    said = bounds if math.isfinite(look.high) else UNBOUNDED
    return f"{look.metric.upper()} {look.change:+.2%}, {said}, {look.trips:,} trips"


def decide(look: Look, params: ExperimentParams) -> ExperimentVerdict:
    """Decide by one look; first whether the experiment is sound, then whether the interval excludes zero.

    The interval holds at all looks at once, so that stopping at the first that decides keeps the error rate ``alpha``. That
    the planned trips are through shows no difference only where the interval became as narrow as they were to make it.
    """
    if (broken := _broken(look, params)) is not None:
        return ExperimentVerdict(INVALID, broken, True)
    if look.uneven:
        return ExperimentVerdict(UNEVEN, look.uneven, False)
    if look.fallback > params.fallback_limit:
        failed = f"the challenger failed on {look.fallback:.1%} of its trips (limit {params.fallback_limit:.0%})"
        return ExperimentVerdict(BETTER[False], failed, True)
    if not look.complete:
        late = f"no hour of pickup has the outcomes of {params.complete_share:.0%} of its trips yet"
        return ExperimentVerdict(UNDECIDED, f"{late} (experiment.complete_share)", False)
    if look.days <= params.least_days:
        begun = f"day {look.days}; no verdict before {params.least_days} whole days"
        return ExperimentVerdict(UNDECIDED, begun, False)
    said = _said(look, params)
    if look.high < 0 or look.low > 0:
        return ExperimentVerdict(BETTER[look.high < 0], said, True)
    if max(-look.low, look.high) < params.effect:
        return ExperimentVerdict(
            NO_DIFFERENCE, f"{said}: less than the {params.effect:.0%} that matters, either way", True
        )
    if look.trips < params.planned_trips:
        return ExperimentVerdict(UNDECIDED, f"{said} of {params.planned_trips:,} planned", False)
    if (look.high - look.low) / 2 < params.effect:
        return ExperimentVerdict(NO_DIFFERENCE, f"{said}: none was found in the {params.planned_trips:,} planned", True)
    return ExperimentVerdict(
        UNDECIDED, f"{said}: too wide to find {params.effect:.0%}, trips vary more than was planned for", False
    )


METRICS = ("rmse", "mae")


def _json(row: pd.Series) -> dict[str, float | None]:
    """Return the row as JSON holds it: bounds that too few days make infinite as null."""
    return {str(name): None if value == UNBOUNDED else float(value) for name, value in row.items()}


@dataclass(frozen=True)
class Judged:
    """Everything that the report shows; ``changes`` has a table of looks (one an hour of pickup) for each metric."""

    scores: pd.DataFrame
    changes: dict[str, pd.DataFrame]
    sizes: pd.DataFrame
    verdict: ExperimentVerdict
    first: tuple[pd.Timestamp, ExperimentVerdict] | None
    running: Running
    metric: str
    missing: pd.DataFrame

    @property
    def note(self) -> str:
        """What runs, since when, and on how many trips."""
        run, trips = self.running, int(self.changes[self.metric]["trips"].iloc[-1])
        begun = f"{run.start:%Y-%m-%d %H:%M} UTC"
        return (
            f"{run.mode.capitalize()}: version {run.challenger} against {run.champion} since {begun}; {trips:,} trips."
        )

    @property
    def change_table(self) -> pd.DataFrame:
        """The change of each metric and its bounds now, in percent of the champion's; words where too few days bound it."""
        last = {name: looks[["change", "low", "high"]].iloc[-1] * 100 for name, looks in self.changes.items()}
        table = pd.DataFrame(last).T.rename_axis("%").round(2)
        bounded = np.isfinite(table)
        return table if bounded.all(axis=None) else table.astype(object).where(bounded, UNBOUNDED)

    @property
    def verdict_text(self) -> str:
        """The verdict as Markdown, and when it was first reached."""
        text = f"**{self.verdict.name.capitalize()}.** {self.verdict.reason}"
        if self.first is None:
            return f"{text}\n\nNo look so far decided: go on."
        when, verdict = self.first
        return f"{text}\n\nThe first look that decided was at pickups of {when:%Y-%m-%d %H}:00: {verdict.name}."

    @property
    def result(self) -> dict[str, Any]:
        """What the notebook records and the command prints."""
        run = self.running
        return {
            "verdict": self.verdict.name,
            "reason": self.verdict.reason,
            "stop": self.verdict.stop,
            "decided_at": self.first and self.first[0].isoformat(),
            "mode": run.mode,
            "metric": self.metric,
            "versions": {"champion": run.champion, "challenger": run.challenger},
            "since": run.start.isoformat(),
            "trips": int(self.changes[self.metric]["trips"].iloc[-1]),
            "days": int(self.changes[self.metric]["days"].iloc[-1]),
            "change": {name: _json(row) for name, row in self.change_table.T.items()},
            "arms": self.scores.to_dict("index"),
            "sizes": self.sizes.to_dict("index"),
            "missing": self.missing.reset_index().to_dict("records"),
        }


def change_over_time(blocks: pd.DataFrame, metric: str, params: ExperimentParams) -> pd.DataFrame:
    """Return the looks of ``ratio_sequence`` with change, low and high: of RMSE or MAE, as shares of the champion's."""
    looks = ratio_sequence(blocks, params.planned_trips, params.alpha)
    bounds = looks[["ratio", "low", "high"]]
    changes = (bounds.clip(lower=0) ** 0.5 if metric == "rmse" else bounds) - 1
    changes["low"] = changes["low"].where(np.isfinite(looks["low"]), -np.inf)
    return looks.assign(change=changes["ratio"], low=changes["low"], high=changes["high"])


def plan_experiment(changes: Mapping[str, pd.DataFrame], params: ExperimentParams) -> pd.DataFrame:
    """Return, a row a metric, how many trips with an outcome find a change of ``params.effect``, and in how many days.

    The spread of a trip's loss and the trips a day are those of ``changes`` (see ``change_over_time``); metrics whose trips
    are of less than two days tell no spread and are left out.
    """
    rows = {}
    for metric, looks in changes.items():
        if looks["units"].iloc[-1] < 2:
            continue
        ratio = (1 - params.effect) ** (2 if metric == "rmse" else 1)
        trips, last = plan_trips(looks, ratio, params.alpha, params.power), looks.iloc[-1]
        rows[metric] = {"trips": trips, "days": math.ceil(trips / last["trips"] * last["days"])}
    return pd.DataFrame.from_dict(rows, orient="index", columns=["trips", "days"])


def _size(dealt: pd.Series, share: float) -> dict[str, float]:
    """Return an arm's size against its plan: chi-square's p (one look), and the evidence (all looks, its maximum)."""
    there, trips = int(dealt.sum()), len(dealt)
    fixed = chisquare([there, trips - there], [trips * share, trips * (1 - share)]).pvalue
    evidence = ratio_evidence(dealt.cumsum().to_numpy(), np.arange(1, trips + 1), share).max()
    return {"trips": trips, "challenger": there / trips, "planned": share, "p once": fixed, "evidence": evidence}


def arm_sizes(running: Running, trips: pd.DataFrame, share: float) -> pd.DataFrame:
    """Return the challenger's share of all trips and of those with an outcome, against the planned ``share``.

    A split that is right at first and wrong among outcomes means that one arm loses them. Raises UsageError for a share of
    0 or 1, which leaves nothing to compare.
    """
    if not 0 < share < 1:
        raise UsageError(f"expected experiment.share between 0 and 1 to judge a split; got {share}")
    answered = running.rows.loc[~running.rows["shadow"], "challenger"]
    return pd.DataFrame.from_dict(
        {"all": _size(answered, share), "with an outcome": _size(trips["challenger"], share)}, orient="index"
    )


def pair_sizes(running: Running, trips: pd.DataFrame) -> pd.DataFrame:
    """Return how many trips were answered, computed in the shadow too, and of these have an outcome."""
    answered, shadow = (running.rows.loc[running.rows["shadow"] == one, "unit"] for one in (False, True))
    both = int(answered.isin(shadow).sum())
    counts = {"all": len(answered), "in the shadow too": both, "with an outcome": len(trips)}
    return pd.DataFrame({"trips": counts, "share": {name: one / len(answered) for name, one in counts.items()}})


def read_looks(changes: pd.DataFrame, mode: str, metric: str) -> list[Look]:
    """Return the looks of ``change_over_time`` one by one, of an experiment that is sound."""
    columns = changes[["trips", "days", "change", "low", "high"]]
    return [Look(mode, metric, *row) for row in columns.itertuples(index=False, name=None)]


def first_decision(
    changes: pd.DataFrame, mode: str, metric: str, params: ExperimentParams
) -> tuple[pd.Timestamp, ExperimentVerdict] | None:
    """Return the first look (an hour of pickup) that decides, with its verdict: where who peeks every hour stops."""
    for when, look in zip(changes.index, read_looks(changes, mode, metric), strict=True):
        if (verdict := decide(look, params)).stop:
            return when, verdict
    return None


def describe_uneven(missing: pd.DataFrame, params: ExperimentParams) -> str:
    """Return which group's outcomes (of ``missing_outcomes``) are missing more often than chance explains; "" if none."""
    lost = missing[missing["expected"] > 0]
    if lost.empty:
        return ""
    evidence = float(
        count_evidence(lost["missing"].to_numpy(float), (lost["expected"] / lost["expected"].sum()).to_numpy())
    )
    shares = lost[["missing", "expected"]].div(lost["trips"], axis=0)
    worst = int((shares["missing"] - shares["expected"]).argmax())
    got, chance = shares.iloc[worst]
    arm, quarter = shares.index.to_frame().iloc[worst]
    if evidence < 1 / params.ratio_alpha or got - chance <= params.uneven_limit:
        return ""
    return (
        f"outcomes missing unevenly: {got:.1%} of the {arm}'s trips of the {quarter} predicted durations have none, where chance "
        f"would leave out {chance:.1%} (evidence {evidence:.3g}, limit {1 / params.ratio_alpha:,.0f}); find out why before "
        f"believing any number"
    )


def _health(running: Running, trips: pd.DataFrame, share: float) -> tuple[pd.DataFrame, dict[str, Any]]:
    dealt = running.rows.loc[running.rows["challenger"] & ~running.rows["shadow"], "fallback"]
    if running.mode == "shadow":
        sizes = pair_sizes(running, trips)
        return sizes, {"unpaired": 1 - float(sizes["share"].iloc[1])}
    sizes = arm_sizes(running, trips, share)
    evidence = float(sizes["evidence"].max()) / len(sizes)  # as many tests share one level
    return sizes, {"evidence": evidence, "fallback": float(dealt.mean())}


def judge_experiment(log: pd.DataFrame, params: Params) -> Judged:
    """Judge the newest experiment in ``log``, a frame of all predictions and their outcomes so far (``Store.with_outcomes``).

    Hours of pickup count once the outcomes of ``complete_share`` of their trips came; while there is none, nothing is decided.
    Raises TaxiError where there is no challenger or no trip with an outcome in both arms.
    """
    experiment, metric = params.experiment, params.experiment.metric
    running = find_running(log, experiment.start)
    with_outcome, mode = judged_trips(running, params.clean), running.mode
    trips = judged_trips(keep_complete(running, experiment.complete_share), params.clean)
    complete = len(compare_arms(trips, mode, metric)) > 0
    trips = trips if complete else with_outcome
    blocks = {name: compare_arms(trips, mode, name) for name in METRICS}
    if not len(blocks[metric]):
        raise TaxiError(f"expected outcomes of trips of both arms since {running.start}; there are none yet")
    changes = {name: change_over_time(block, name, experiment) for name, block in blocks.items()}
    sizes, health = _health(running, with_outcome, experiment.share)
    missing = missing_outcomes(running, experiment.complete_share)
    health |= {"uneven": describe_uneven(missing, experiment), "complete": complete}
    verdict = decide(replace(read_looks(changes[metric].tail(1), mode, metric)[0], **health), experiment)
    sound = complete and verdict.name not in (INVALID, UNEVEN)
    first = first_decision(changes[metric], mode, metric, experiment) if sound else None
    return Judged(score_arms(trips, mode), changes, sizes, verdict, first, running, metric, missing)
