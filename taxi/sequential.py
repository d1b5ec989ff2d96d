"""Statistics that may be looked at as often as one likes: a confidence sequence, its planned sample, the arms' sizes.

A confidence interval of the usual kind is right once, at a size fixed beforehand; who looks every day and stops when it
excludes zero is wrong far more often than it says. The ones here are right at all looks at once.

Sources: I. Waudby-Smith, D. Arbour, R. Sinha, E. H. Kennedy & A. Ramdas, "Time-uniform central limit theory and asymptotic
confidence sequences", Annals of Statistics 52(6), 2024 (arXiv 2103.06476), which rests on H. Robbins' normal mixture
(1970); M. Lindon & A. Malek, "Anytime-valid inference for multinomial count data", NeurIPS 2022.
"""

import math

import numpy as np
import pandas as pd
from scipy.special import betaln, lambertw
from scipy.stats import norm

RATIO_BELIEF = 1000.0  # trips' worth of belief in the planned share: departures of a point or so are found soonest


def _narrowest(alpha: float) -> float:
    """Return rho² times trips where the mixture is narrowest: the k that solves k = log((k + 1) / alpha²)."""
    return float(-lambertw(-(alpha**2) / math.e, k=-1).real - 1)


def sequence_radius(trips: np.ndarray, planned: float, alpha: float) -> np.ndarray:
    """Return the sequence's half width after each number of trips, in standard deviations of their sum; shape (n,).

    A mean outside ``estimate ± radius * sd`` at any look, of however many, has a chance of ``alpha`` (asymptotically). It is
    narrowest at ``planned`` trips and valid at all. Source: Waudby-Smith et al. (2024), Theorem 2.2, rho² = k / planned.
    """
    k = np.asarray(trips, dtype=float) * _narrowest(alpha) / planned
    return np.sqrt((k + 1) / k * np.log((k + 1) / alpha**2))


def _residual_squares(challenger: np.ndarray, champion: np.ndarray, unit: np.ndarray, ratio: np.ndarray) -> np.ndarray:
    """Return, after each block, the sum over units so far of (challenger - ratio * champion)², the open unit included."""
    first = np.r_[True, unit[1:] != unit[:-1]]
    start = np.maximum.accumulate(np.where(first, np.arange(len(unit)), 0))

    def so_far(one: np.ndarray, other: np.ndarray) -> np.ndarray:
        within = [np.cumsum(x) - (np.cumsum(x) - x)[start] for x in (one, other)]
        product = within[0] * within[1]
        closed = np.cumsum(np.where(first, np.r_[0.0, product[:-1]], 0.0))
        return closed + product

    squares = so_far(challenger, challenger) - 2 * ratio * so_far(challenger, champion)
    count = np.cumsum(first)
    return np.maximum(squares + ratio**2 * so_far(champion, champion), 0) * count / np.maximum(count - 1, 1)


def ratio_sequence(blocks: pd.DataFrame, planned: float, alpha: float) -> pd.DataFrame:
    """Return trips, days, ratio, low, high, variance and weight after each block of ``blocks``, which are in order of time.

    ``blocks`` has day, trips, and what challenger and champion lost in the block (see ``taxi.arms``); the ratio is that of
    the sums so far. Trips of one hour, and of one day, share weather and traffic, so they are not taken for independent:
    the variance is that of whole hours or that of whole days, whichever is larger, of challenger - ratio * champion.
    """
    challenger, champion = (blocks[name].to_numpy(dtype=float) for name in ("challenger", "champion"))
    trips, weight = np.cumsum(blocks["trips"].to_numpy()), np.cumsum(champion)
    ratio = np.cumsum(challenger) / weight
    day = blocks["day"].to_numpy()
    by_unit = [_residual_squares(challenger, champion, unit, ratio) for unit in (np.arange(len(day)), day)]
    variance = np.maximum(*by_unit)
    reach = sequence_radius(trips, planned, alpha) * np.sqrt(variance) / weight
    days = np.cumsum(np.r_[True, day[1:] != day[:-1]])
    columns = {"trips": trips, "days": days, "ratio": ratio, "low": ratio - reach, "high": ratio + reach}
    return pd.DataFrame(columns | {"variance": variance, "weight": weight}, index=blocks.index)


def plan_trips(looks: pd.DataFrame, ratio: float, alpha: float, power: float) -> int:
    """Return how many trips find a true ``ratio`` of losses with chance ``power``, however often one looks on the way.

    ``looks`` (of ``ratio_sequence``) tells the spread of a trip and its weight; the sequence is tuned to the answer.
    """
    last = looks.iloc[-1]
    needed = math.sqrt(_narrowest(alpha) + 1) + norm.ppf(power)
    spread = last["variance"] / last["trips"]
    shift = (1 - ratio) * last["weight"] / last["trips"]
    return math.ceil(spread * (needed / shift) ** 2)


def ratio_evidence(challengers: np.ndarray, trips: np.ndarray, share: float) -> np.ndarray:
    """Return the evidence (an e-value) against the planned ``share`` after each look, from counts so far; shape (n,).

    By Ville's inequality its maximum over all looks passes 1 / alpha with a chance of at most alpha where the share is as
    planned. Source: Lindon & Malek (2022), two arms: a Beta mixture about the share against the share itself.
    """
    there, rest = np.asarray(challengers, dtype=float), np.asarray(trips, dtype=float) - challengers
    prior = (RATIO_BELIEF * share, RATIO_BELIEF * (1 - share))
    mixed = betaln(prior[0] + there, prior[1] + rest) - betaln(*prior)
    return np.exp(np.minimum(mixed - there * math.log(share) - rest * math.log1p(-share), 700))
