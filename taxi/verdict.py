"""What an experiment says at one look, and whether to stop it: a pure function that returns its reason."""

from dataclasses import dataclass

from taxi.params import ExperimentParams

INVALID = "invalid: sample ratio"
UNDECIDED, NO_DIFFERENCE = "undecided", "no difference"
BETTER = {True: "challenger better", False: "champion better"}


@dataclass(frozen=True)
class Look:
    """What is known at one moment. ``change`` (challenger's error against champion's) and its bounds are shares of 1.

    ``evidence`` is the largest so far against the planned share of trips (an e-value; 1 in shadow mode), ``fallback`` the
    share of the challenger's trips that it failed, ``unpaired`` that of trips without a shadow prediction.
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


@dataclass(frozen=True)
class Verdict:
    """``name`` is one of the five verdicts; ``stop`` says that waiting for more trips cannot help."""

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
    bounds = f"interval {look.low:+.2%} to {look.high:+.2%}"
    return (
        f"{look.metric.upper()} {look.change:+.2%}, {1 - params.alpha:.0%} {bounds} at any look, {look.trips:,} trips"
    )


def decide(look: Look, params: ExperimentParams) -> Verdict:
    """Decide by one look; first whether the experiment is sound, then whether the interval excludes zero.

    The interval holds at all looks at once, so that stopping at the first that decides keeps the error rate ``alpha``. That
    the planned trips are through shows no difference only where the interval became as narrow as they were to make it.
    """
    if (broken := _broken(look, params)) is not None:
        return Verdict(INVALID, broken, True)
    if look.fallback > params.fallback_limit:
        failed = f"the challenger failed on {look.fallback:.1%} of its trips (limit {params.fallback_limit:.0%})"
        return Verdict(BETTER[False], failed, True)
    if look.days <= params.least_days:
        begun = f"day {look.days}; no verdict before {params.least_days} whole days"
        return Verdict(UNDECIDED, begun, False)
    said = _said(look, params)
    if look.high < 0 or look.low > 0:
        return Verdict(BETTER[look.high < 0], said, True)
    if max(-look.low, look.high) < params.effect:
        return Verdict(NO_DIFFERENCE, f"{said}: less than the {params.effect:.0%} that matters, either way", True)
    if look.trips < params.planned_trips:
        return Verdict(UNDECIDED, f"{said} of {params.planned_trips:,} planned", False)
    if (look.high - look.low) / 2 < params.effect:
        return Verdict(NO_DIFFERENCE, f"{said}: none was found in the {params.planned_trips:,} planned", True)
    return Verdict(
        UNDECIDED, f"{said}: too wide to find {params.effect:.0%}, trips vary more than was planned for", False
    )
