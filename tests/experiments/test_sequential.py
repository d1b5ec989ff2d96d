"""Who looks every hour and stops at the first look that decides is wrong no more often than stated."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from taxi.experiments import sequential
from taxi.experiments.ab_test import change_over_time, first_decision, plan_experiment
from taxi.experiments.losses import loss, paired_blocks, share_blocks
from taxi.experiments.sequential import plan_trips, ratio_evidence, ratio_sequence, sequence_radius, widen_for_few
from taxi.params import load_params
from tests.support.campaign import at_scale
from tests.support.live import simulate_errors, spell_blocks

PARAMS = load_params().experiment


def make_blocks(challenger: list[float], champion: list[float], per_day: int = 2) -> pd.DataFrame:
    day = pd.Timestamp("2024-03-04") + pd.to_timedelta(np.arange(len(champion)) // per_day, unit="D")
    return pd.DataFrame({"day": day, "trips": 10, "challenger": challenger, "champion": champion})


def test_the_radius_solves_what_it_is_tuned_to() -> None:
    """Worked by hand: at the planned size radius² - 1 = k, and k = log((k + 1) / alpha²)."""
    k = sequence_radius(np.array([1000.0]), 1000, 0.05)[0] ** 2 - 1

    assert k == pytest.approx(math.log((k + 1) / 0.05**2))
    assert math.sqrt(k + 1) == pytest.approx(3.03, abs=0.01)


def test_the_bounds_are_narrowest_for_their_trips_where_they_are_tuned_to_be() -> None:
    at = np.array([10_000.0])
    tuned = {planned: sequence_radius(at, planned, 0.05)[0] for planned in (1000, 5000, 10_000, 20_000, 100_000)}

    assert min(tuned, key=lambda planned: tuned[planned]) == 10_000
    assert tuned[10_000] > norm.isf(0.025)


def test_few_days_widen_the_bounds_and_many_do_not() -> None:
    wide = widen_for_few(np.full(4, 3.0), np.array([1.0, 3.0, 30.0, 1e6]))

    assert wide[0] == np.inf
    assert wide[1] > wide[2] > wide[3]
    assert wide[3] == pytest.approx(3.0, abs=1e-4)


def test_a_sequence_worked_by_hand() -> None:
    """Four days whose residuals are 0.1, -0.1, 0.1 and -0.1: 0.04 in squares, 4/3 of it for one ratio estimated, 3 for spells."""
    looks = ratio_sequence(make_blocks([2.1, 2, 1.9, 2] * 2, [2] * 8), planned=80, alpha=0.05)

    last = looks.iloc[-1]
    assert looks["ratio"].tolist()[:2] == pytest.approx([1.05, 4.1 / 4])
    assert (last["trips"], last["days"], last["weight"], last["units"]) == (80, 4, 16, 4)
    assert last["ratio"] == pytest.approx(1)
    assert last["variance"] == pytest.approx(0.04 * 4 / 3 * 3)
    reach = widen_for_few(sequence_radius(np.array(80.0), 80, 0.05), np.array(4.0)) * 0.4 / 16
    assert last["high"] - 1 == 1 - last["low"] == pytest.approx(reach)


def test_what_random_dealing_explains_is_not_taken_for_spells() -> None:
    blocks = make_blocks([2.1, 2, 1.9, 2] * 2, [2] * 8)

    variance = [
        ratio_sequence(blocks.assign(dealt=dealt), 80, 0.05)["variance"].iloc[-1] for dealt in (0.0, 0.01, 0.02)
    ]

    by_day = 0.04 * 4 / 3
    at_most = by_day * (1 + math.sqrt(2 / 3))
    assert variance == pytest.approx([3 * by_day, by_day + 2 * (at_most - 0.08), by_day])


def test_the_variance_of_dealing_worked_by_hand() -> None:
    """Two trips an arm, which lose 1 and 3, and 2 and 6: about their means 2 + 8 in squares of 2 degrees, and weight 1."""
    pickup = pd.Series(pd.to_datetime(["2024-03-04 03:10"] * 4))
    blocks = share_blocks(pickup, np.array([False, False, True, True]), np.array([1.0, 3.0, 2.0, 6.0]))

    assert blocks[["challenger", "champion", "dealt"]].iloc[0].tolist() == [4, 2, 5]


def test_the_same_losses_are_no_change_at_all() -> None:
    looks = ratio_sequence(make_blocks([1.5, 2.5, 3.5, 0.5], [1.5, 2.5, 3.5, 0.5]), planned=40, alpha=0.05)

    assert looks.iloc[-1][["ratio", "low", "high"]].tolist() == [1, 1, 1]


def test_one_day_tells_nothing() -> None:
    looks = ratio_sequence(make_blocks([1, 2, 3], [2, 2, 2], per_day=3), planned=40, alpha=0.05)

    assert np.isinf(looks[["low", "high"]]).all().all()


def test_days_too_few_or_too_unlike_to_keep_the_ratio_from_0_and_from_1_bound_nothing() -> None:
    looks = ratio_sequence(make_blocks([2, 1, 3, 2], [2, 2, 2, 2]), planned=40, alpha=0.05)

    assert np.isinf(looks[["low", "high"]]).all().all()


def test_bounds_that_keep_the_ratio_from_1_alone_still_decide() -> None:
    """The challenger loses a tenth on average, and between nothing and a fifth by day: it is better, whatever its worth."""
    looks = ratio_sequence(make_blocks([0.0, 0.0, 0.4, 0.4] * 8, [2.0] * 32), planned=320, alpha=0.05)

    last = looks.iloc[-1]
    assert last["low"] < 0 < last["ratio"] < last["high"] < 1


def test_more_trips_are_planned_for_a_smaller_effect_and_for_more_certainty() -> None:
    rng = np.random.default_rng(1)
    looks = ratio_sequence(make_blocks(*rng.uniform(1, 3, (2, 200)).tolist()), planned=2000, alpha=0.05)

    base = plan_trips(looks, 0.98, 0.05, 0.9)
    assert plan_trips(looks, 0.99, 0.05, 0.9) > 3 * base
    assert plan_trips(looks, 0.98, 0.05, 0.99) > base
    assert plan_trips(looks, 0.98, 0.01, 0.9) > base
    with pytest.raises(ValueError, match="a ratio other than 1"):
        plan_trips(looks, 1.0, 0.05, 0.9)


def peek(draw: np.random.Generator, metric: str, factor: float, days: int, planned: int, **options: float) -> str:
    """Deal simulated trips to two arms, look every hour, and return the first verdict that says to stop."""
    pickup, error = simulate_errors(draw, days, int(options.get("daily", 720)))
    challenger = draw.random(len(error)) < options.get("share", 0.5)
    lost = loss(np.where(challenger, factor * error, error), np.zeros(len(error)), metric)
    params = PARAMS.model_copy(update={"planned_trips": planned, "effect": options.get("effect", 0.02)})
    looks = change_over_time(share_blocks(pickup, challenger, lost), metric, params)
    decided = first_decision(looks, "share", metric, params)
    return decided[1].name if decided else "undecided"


def planned_size(metric: str, effect: float, share: float = 0.5) -> int:
    pickup, error = simulate_errors(np.random.default_rng(99), 60, 1500)
    challenger = np.random.default_rng(98).random(len(error)) < share
    params = PARAMS.model_copy(update={"effect": effect})
    blocks = share_blocks(pickup, challenger, loss(error, np.zeros(len(error)), metric))
    return int(plan_experiment({metric: change_over_time(blocks, metric, params)}, params).loc[metric, "trips"])


@pytest.mark.slow
@pytest.mark.campaign
@pytest.mark.parametrize(("metric", "share"), [("rmse", 0.5), ("mae", 0.1)])
def test_two_arms_of_one_model_come_out_as_no_difference_over_many_experiments(metric: str, share: float) -> None:
    trials = at_scale(40, 500)
    planned = planned_size(metric, 0.1, share)
    days = math.ceil(planned / 600)

    said = [
        peek(np.random.default_rng(seed), metric, 1.0, days, planned, effect=0.1, share=share) for seed in range(trials)
    ]

    assert said.count("no difference") / trials >= 1 - PARAMS.alpha


@pytest.mark.slow
@pytest.mark.campaign
def test_a_challenger_that_is_2_percent_better_is_found_within_the_planned_sample() -> None:
    trials = at_scale(8, 60)
    planned = planned_size("mae", 0.02)
    days = math.ceil(planned / 1750)

    said = [peek(np.random.default_rng(seed), "mae", 0.98, days, planned, daily=2000) for seed in range(trials)]

    assert said.count("challenger better") / trials >= 0.85
    assert "champion better" not in said


@pytest.mark.slow
@pytest.mark.campaign
def test_days_that_suit_one_model_are_not_taken_for_a_better_model() -> None:
    """In the shadow, trips of one rainy day may all favour one model: taking hours for independent is wrong nearly always."""
    trials = at_scale(40, 200)
    wrong = {"whole days": 0, "hours alone": 0}
    for seed in range(trials):
        draw = np.random.default_rng(seed)
        pickup, error = simulate_errors(draw, 28, 480)
        suits = np.exp(draw.normal(0, 0.05, 28)) / np.exp(0.05**2)
        day = (pickup.dt.normalize() - pickup.min().normalize()).dt.days
        blocks = paired_blocks(pickup, error**2, (error * suits[day]) ** 2)
        for name, given in (("whole days", blocks), ("hours alone", blocks.assign(day=np.arange(len(blocks))))):
            looks = ratio_sequence(given, 13_000, 0.05)[
                blocks["day"].to_numpy() >= blocks["day"].iloc[0] + pd.Timedelta("7D")
            ]
            wrong[name] += bool(((looks["low"] > 1) | (looks["high"] < 1)).any())

    assert wrong["whole days"] / trials <= 0.05
    assert wrong["hours alone"] / trials > 0.5


def ever_wrong(blocks: pd.DataFrame, planned: float) -> bool:
    """Return whether bounds of two equal models ever exclude no change, at looks from the eighth day on."""
    looks = ratio_sequence(blocks, planned, 0.05)[
        blocks["day"].to_numpy() >= blocks["day"].iloc[0] + pd.Timedelta("7D")
    ]
    return bool(((looks["low"] > 1) | (looks["high"] < 1)).any())


@pytest.mark.slow
@pytest.mark.campaign
@pytest.mark.parametrize(("phi", "week"), [(0.2, 0.0), (0.4, 0.0), (0.6, 0.0), (0.3, 0.3)])
def test_equal_models_whose_days_come_in_spells_are_seldom_called_different(
    phi: float, week: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """28 days in the shadow, looked at all the time: days of real months are correlated by 0.35 at most, weeks by 0.2."""
    trials, limit = at_scale((50, 0.1), (2000, 0.05))  # of 50, a true rate of 4 % may well show 5
    experiments = [spell_blocks(np.random.default_rng(seed), 28, phi, week) for seed in range(trials)]

    assert np.mean([ever_wrong(one, 28 * 400) for one in experiments]) <= limit
    monkeypatch.setattr(sequential, "INFLATION", 1.0)
    assert phi < 0.4 or np.mean([ever_wrong(one, 28 * 400) for one in experiments]) > 0.08


def test_a_sound_split_is_seldom_called_wrong_and_a_lost_tenth_soon() -> None:
    rng, trips = np.random.default_rng(4), np.arange(1, 20_001)
    sound = [ratio_evidence(np.cumsum(rng.random(20_000) < 0.5), trips, 0.5).max() for _ in range(200)]
    lost = ratio_evidence(np.cumsum(rng.random(20_000) < 0.9 / 1.9), trips, 0.5)

    assert np.mean(np.array(sound) >= 20) <= 0.05
    assert np.argmax(lost >= 1000) < 15_000
    assert lost.max() > 1000


def test_evidence_worked_by_hand() -> None:
    """Of a first trip nothing is learnt: the mixture expects the planned share."""
    assert ratio_evidence(np.array([1, 0]), np.array([1, 1]), 0.3) == pytest.approx([1, 1])
    assert ratio_evidence(np.array([2]), np.array([2]), 0.5) == pytest.approx([501 / 1001 / 0.5])
