"""A challenger is promoted for a gain that days agree on, and never at the cost of a slice."""

import numpy as np
import pandas as pd
import pytest

from taxi.models.evaluate import slices
from taxi.models.fitting import fit_model
from taxi.params import PromoteParams, load_params
from taxi.training.promotion import bootstrap_gain, decide_promotion
from tests.support.registered import make_month, make_zones

PARAMS = PromoteParams(resamples=500, confidence=0.95, slice_loss=0.03, slice_min_trips=50, seed=7)


def make_trips(days: int = 28, rows: int = 2800) -> pd.DataFrame:
    pickup = pd.Timestamp("2023-03-01") + pd.to_timedelta(np.linspace(0, days - 0.01, rows), unit="D")
    return pd.DataFrame({"pickup": pickup, "duration": np.random.default_rng(1).uniform(2, 40, rows)})


def noisy(trips: pd.DataFrame, minutes: float, seed: int) -> pd.Series:
    return trips["duration"] + np.random.default_rng(seed).normal(0, minutes, len(trips))


def decide(trips, before, challenger, masks=None, **changes):
    return decide_promotion(trips, before, challenger, masks or {}, PARAMS.model_copy(update=changes))


def test_a_clear_gain_is_promoted_with_its_numbers():
    trips = make_trips()

    decision = decide(trips, noisy(trips, 5, 2), noisy(trips, 4, 3))

    low, high = decision.interval
    assert decision.promote
    assert 0 < low < decision.gain < high
    assert decision.gain == pytest.approx(0.2, abs=0.04)
    assert decision.reason.startswith(f"RMSE {decision.gain:.1%} lower than the champion's, 95% interval {low:.1%} to ")


def test_half_the_error_is_a_gain_of_half():
    trips = make_trips()

    decision = decide(trips, trips["duration"] + 2, trips["duration"] - 1)

    assert decision.gain == pytest.approx(0.5)
    assert decision.interval == pytest.approx((0.5, 0.5))


def test_the_same_predictions_are_no_gain():
    trips = make_trips()
    champion = noisy(trips, 5, 2)

    decision = decide(trips, champion, champion.copy())

    assert not decision.promote
    assert decision.gain == 0
    assert "the interval is not above 0" in decision.reason


def test_a_gain_of_one_odd_day_is_not_believed():
    trips = make_trips()
    champion, challenger = noisy(trips, 4, 2), noisy(trips, 4.1, 3)
    odd = trips["pickup"].dt.day == 5
    champion = champion.where(~odd, champion + 30)

    decision = decide(trips, champion, challenger)

    assert decision.gain > 0.1
    assert not decision.promote


def test_a_slice_that_loses_stops_a_challenger_that_gains_overall():
    trips = make_trips()
    few = np.arange(len(trips)) % 20 == 0
    champion, challenger = noisy(trips, 5, 2), noisy(trips, 4, 3)
    challenger = challenger.where(~few, trips["duration"] + (champion - trips["duration"]) * 1.2)

    decision = decide(trips, champion, challenger, {"airport: to or from": few, "all": np.ones(len(trips), bool)})

    assert not decision.promote
    assert "slice 'airport: to or from' is 20.0% worse (limit 3%)" in decision.reason
    assert decision.slices["ok"].to_dict() == {"airport: to or from": False, "all": True}
    assert decide(trips, champion, challenger, {"airport: to or from": few}, slice_loss=0.25).promote


def test_a_slice_of_too_few_trips_does_not_count():
    trips = make_trips()
    few = np.arange(len(trips)) % 60 == 0
    champion, challenger = noisy(trips, 5, 2), noisy(trips, 4, 3)
    challenger = challenger.where(~few, trips["duration"] + (champion - trips["duration"]) * 1.2)

    decision = decide(trips, champion, challenger, {"few": few})

    assert decision.promote
    assert decision.slices.empty


@pytest.mark.parametrize("days", [1, 2])
def test_a_few_days_are_too_few_to_tell(days):
    trips = make_trips(days)

    decision = decide(trips, noisy(trips, 5, 2), noisy(trips, 4, 3))

    assert not decision.promote
    assert f"{days} days are too few" in decision.reason


def test_no_trips_promote_nobody():
    trips = make_trips()[:0]

    assert not decide(trips, trips["duration"], trips["duration"]).promote


def test_a_champion_without_any_error_is_not_beaten():
    trips = make_trips()

    for challenger in (noisy(trips, 1, 3), trips["duration"]):
        assert not decide(trips, trips["duration"], challenger).promote


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_predictions_that_are_not_finite_are_refused_by_whose_they_are(bad):
    trips = make_trips()
    broken = noisy(trips, 4, 3)
    broken.iloc[[3, 5]] = bad

    with pytest.raises(ValueError, match="finite predictions of the challenger; 2 are not"):
        decide(trips, noisy(trips, 5, 2), broken)


def test_predictions_of_other_trips_are_refused():
    trips = make_trips()

    with pytest.raises(ValueError, match="for the same 2,800 trips"):
        decide(trips, noisy(trips, 5, 2), noisy(trips, 4, 3)[::-1])


def test_the_same_trips_give_the_same_interval_whatever_their_order():
    trips = make_trips()
    champion, challenger = noisy(trips, 5, 2), noisy(trips, 4.8, 3)

    first, again = decide(trips, champion, challenger), decide(trips, champion, challenger)

    assert first.interval == again.interval
    assert (first.draws == again.draws).all()


@pytest.mark.slow
def test_the_interval_covers_a_true_gain_about_as_often_as_it_says():
    draw, hits = np.random.default_rng(0), 0
    day = pd.Series(np.repeat(np.arange(28), 40))
    for _ in range(200):
        old, new = draw.normal(0, 5, len(day)), draw.normal(0, 4.5, len(day))
        _, (low, high), _ = bootstrap_gain(day, old, new, PARAMS)
        hits += low <= 0.1 <= high

    assert 0.88 <= hits / 200 <= 1


@pytest.mark.slow
def test_a_model_of_shuffled_targets_is_refused_as_challenger_and_as_first_model():
    zones, params = make_zones(), load_params()
    quick = params.model.model_copy(
        update={"planned": False, "rounds": 20, "learning_rate": 0.3, "interval_rounds": 2, "max_depth": 4}
    )
    past, month = (_learnable(make_month(name, 3000, seed)) for name, seed in (("2023-02", 1), ("2023-03", 2)))
    shuffled = past.assign(duration=np.random.default_rng(3).permutation(past["duration"]))
    floor = quick.model_copy(update={"kind": "pair-median"})
    predicted = {
        name: fit_model(trips, zones, recipe, params.features).predict(month)["mean"]
        for name, trips, recipe in (("honest", past, quick), ("shuffled", shuffled, quick), ("floor", past, floor))
    }
    masks = slices(month, zones)

    first = {"against": "the floor", "by_slice": False}
    assert not decide_promotion(month, predicted["honest"], predicted["shuffled"], masks, PARAMS).promote
    assert not decide_promotion(month, predicted["floor"], predicted["shuffled"], masks, PARAMS, **first).promote
    assert decide_promotion(month, predicted["floor"], predicted["honest"], masks, PARAMS, **first).promote


def _learnable(trips: pd.DataFrame) -> pd.DataFrame:
    """Make duration depend on the distance between zones (which lie on a line), the hour, and some noise."""
    apart = (trips["PULocationID"] - trips["DOLocationID"]).abs() / 10
    rush = 1 + 0.3 * trips["pickup"].dt.hour.between(7, 18)
    noise = np.random.default_rng(9).normal(0, 1.5, len(trips))
    return trips.assign(duration=(4 + apart * rush + noise).clip(1, 60))
