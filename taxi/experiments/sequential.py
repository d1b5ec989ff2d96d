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
from scipy.special import gammaln, lambertw
from scipy.stats import chi2, norm
from scipy.stats import t as student

CAUTION = 0.2  # chance that a trip's spread is larger than it is planned for
RATIO_BELIEF = 1000.0  # trips' worth of belief in the planned share: departures of a point or so are found soonest

# Days come in spells (weather, holidays): the lag-1 autocorrelation of days that the bounds allow for. Paired daily losses on
# real months show 0.10 to 0.35 (docs/experiments.md). The variance of a sum of such days (an AR(1) process) is that many
# times what it is of independent ones: G. E. P. Box, "Some theorems on quadratic forms …", Ann. Math. Statist. 25, 1954.
SPELLS = 0.5
INFLATION = (1 + SPELLS) / (1 - SPELLS)


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


def widen_for_few(radius: np.ndarray, units: np.ndarray) -> np.ndarray:
    """Return ``radius`` (in standard deviations) as Student's t asks for it where the variance is that of few ``units``.

    Infinite under two units. Source: degrees of freedom as for a few clusters, Cameron & Miller, "A practitioner's guide to
    cluster-robust inference", Journal of Human Resources 50(2), 2015, section VI.
    """
    known = np.maximum(units - 1, 0.5)
    return np.where(units < 2, np.inf, student.isf(norm.sf(radius), known))


def _sums_of_products(one: np.ndarray, other: np.ndarray, unit: np.ndarray) -> np.ndarray:
    """Return, after each block, the sum over the units so far (the open one included) of the product of their two sums."""
    first = np.r_[True, unit[1:] != unit[:-1]]
    start = np.maximum.accumulate(np.where(first, np.arange(len(unit)), 0))
    within = [np.cumsum(x) - (np.cumsum(x) - x)[start] for x in (one, other)]
    product = within[0] * within[1]
    return np.cumsum(np.where(first, np.r_[0.0, product[:-1]], 0.0)) + product


def _spread(new: np.ndarray, old: np.ndarray, unit: np.ndarray, ratio: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the variance of the sum of new - ratio * old by whole units, and how many equal units these are worth."""
    squares = _sums_of_products(old, old, unit)
    units = np.cumsum(old) ** 2 / squares  # Kish (1965): a few heavy days are worth fewer
    residual = _sums_of_products(new, new, unit) - 2 * ratio * _sums_of_products(new, old, unit) + ratio**2 * squares
    return np.maximum(residual, 1e-300) * units / np.maximum(units - 1, 1e-9), units


def ratio_sequence(blocks: pd.DataFrame, planned: float, alpha: float) -> pd.DataFrame:
    """Return trips, days, ratio, low, high, variance, weight and units after each of ``blocks``, which are in order of time.

    ``blocks`` has day, trips, and what challenger and champion lost in the block (see ``losses``); the ratio is that of the
    sums so far. Trips of one hour, and of one day, share weather and traffic, so they are not taken for independent: the
    bounds are those of whole hours or those of whole days, whichever are wider. The latter know how few days there are, and
    that days come in spells (``SPELLS``); all but ``dealt``, the variance that dealing trips at random explains, if given.
    Where too few days keep the ratio neither from 0 nor from 1, the bounds are infinite.
    """
    shown = blocks[blocks["champion"].cumsum() > 0]
    new, old = (shown[name].to_numpy(dtype=float) for name in ("challenger", "champion"))
    day, trips, weight = shown["day"].to_numpy(), np.cumsum(shown["trips"].to_numpy()), np.cumsum(old)
    ratio = np.cumsum(new) / weight
    radius = sequence_radius(trips, planned, alpha)
    by_hour, hours = _spread(new, old, np.arange(len(shown)), ratio)
    by_day, units = _spread(new, old, day, ratio)
    dealt = np.cumsum(shown["dealt"].to_numpy()) if "dealt" in shown else 0.0
    doubt = np.sqrt(2 / np.maximum(units - 1, 1))  # the standard error of a variance of so many days, as a share of it
    by_day = by_day + (INFLATION - 1) * np.clip(by_day * (1 + doubt) - dealt, 0, by_day)
    deviation = [widen_for_few(radius, n) * np.sqrt(one) for one, n in ((by_hour, hours), (by_day, units))]
    reach = np.maximum(*deviation) / weight
    reach = np.where((reach < ratio) | (ratio + reach < 1), reach, np.inf)
    days = np.cumsum(np.r_[True, day[1:] != day[:-1]]) if len(shown) else np.zeros(0, int)
    columns = {"trips": trips, "days": days, "ratio": ratio, "low": ratio - reach, "high": ratio + reach}
    spread = {"variance": np.maximum(by_hour, by_day), "weight": weight, "units": units}
    return pd.DataFrame(columns | spread, index=shown.index)


def plan_trips(looks: pd.DataFrame, ratio: float, alpha: float, power: float) -> int:
    """Return how many trips find a true ``ratio`` of losses with chance ``power``, however often one looks on the way.

    ``looks`` (of ``ratio_sequence``) tells a trip's spread and weight, and how many trips a day is worth. The spread of few
    days is itself uncertain: taken is the value that it exceeds with a chance of 20 % (chi-square, by days). The sequence is
    tuned to the answer. Raises ValueError for less than two days of trips or a ratio of 1.
    """
    last = looks.iloc[-1]
    if not last["units"] >= 2 or ratio == 1:
        raise ValueError(
            f"expected looks at two days or more and a ratio other than 1; got {last['units']:.1f}, {ratio}"
        )
    known = last["units"] - 1
    spread = last["variance"] / last["trips"] * known / chi2.ppf(CAUTION, known)
    shift = (1 - ratio) * last["weight"] / last["trips"]
    radius, trips = np.sqrt(_narrowest(alpha) + 1), last["trips"]
    for _ in range(30):  # more trips are more days, which need less widening: settles within a few rounds
        wide = widen_for_few(radius, np.maximum(trips * last["units"] / last["trips"], 3.0))
        trips = spread * ((wide + norm.ppf(power)) / shift) ** 2
    return math.ceil(trips)


def ratio_evidence(challengers: np.ndarray, trips: np.ndarray, share: float) -> np.ndarray:
    """Return the evidence (an e-value) against the planned ``share`` after each look, from counts so far; shape (n,).

    By Ville's inequality its maximum over all looks passes 1 / alpha with a chance of at most alpha where the share is as
    planned.
    """
    there, rest = np.asarray(challengers, dtype=float), np.asarray(trips, dtype=float) - challengers
    return count_evidence(np.stack([there, rest], axis=-1), np.array([share, 1 - share]))


def count_evidence(counts: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Return the evidence (an e-value) against planned ``shares`` of some groups, from counts so far; shape (..., groups).

    Source: Lindon & Malek (2022): a Dirichlet mixture about the shares against the shares themselves.
    """
    prior, total = RATIO_BELIEF * shares, counts.sum(axis=-1)
    mixed = gammaln(RATIO_BELIEF) - gammaln(RATIO_BELIEF + total)
    mixed = mixed + (gammaln(prior + counts) - gammaln(prior) - counts * np.log(shares)).sum(axis=-1)
    return np.exp(np.minimum(mixed, 700))
