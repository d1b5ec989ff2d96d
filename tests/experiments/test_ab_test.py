"""What an experiment says of live trips: which trips count, whether the split is sound, and the verdict with its reason."""

import json
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest

from taxi.errors import TaxiError, UsageError
from taxi.experiments.ab_test import UNBOUNDED, UNEVEN, Look, decide, judge_experiment, plan_experiment
from taxi.experiments.losses import find_running, judged_trips, share_blocks
from taxi.params import ExperimentParams, Params, load_params
from taxi.reporting.plots import change_over_time as change_picture
from tests.support.campaign import at_scale
from tests.support.live import build_log, lengths_log, shadow_log, share_log, simulate_errors

PARAMS = load_params()
SOUND = Look("share", "rmse", 100_000, 30, -0.01, -0.03, 0.01)


def with_experiment(**changes: object) -> Params:
    return PARAMS.model_copy(update={"experiment": PARAMS.experiment.model_copy(update=changes)})


def errors(seed: int = 1, days: int = 14, daily: int = 400) -> tuple[pd.Series, np.ndarray]:
    return simulate_errors(np.random.default_rng(seed), days, daily)


@pytest.mark.parametrize(
    ("changes", "name", "reason", "stop"),
    [
        ({}, "undecided", "of 650,000 planned", False),
        ({"high": -0.001}, "challenger better", "RMSE -1.00%, 95% interval -3.00% to -0.10% at any look", True),
        ({"low": 0.001, "change": 0.01, "high": 0.03}, "champion better", "RMSE +1.00%", True),
        ({"low": -0.019, "high": 0.019}, "no difference", "less than the 2% that matters", True),
        ({"trips": 650_000, "low": -0.025}, "no difference", "none was found in the 650,000 planned", True),
        ({"trips": 650_000, "low": -0.05}, "undecided", "too wide to find 2%", False),
        ({"high": -0.001, "days": 7}, "undecided", "day 7; no verdict before 7 whole days", False),
        ({"evidence": 1500.0, "high": -0.001}, "invalid: sample ratio", "50% to the challenger): evidence 1.5e+03", True),
        ({"evidence": 999.0, "high": -0.001}, "challenger better", "RMSE", True),
        ({"unpaired": 0.06, "mode": "shadow"}, "invalid: sample ratio", "6.0% of trips have no shadow prediction", True),
        ({"high": np.inf, "low": -np.inf}, "undecided", "RMSE -1.00%, too few days to bound, 100,000 trips of 650,000", False),
        ({"high": np.inf, "low": -np.inf, "trips": 650_000}, "undecided", "too few days to bound", False),
        ({"uneven": "so and so", "high": -0.001}, "invalid: outcomes missing unevenly", "so and so", False),
        ({"complete": False, "high": -0.001}, "undecided", "has the outcomes of 95% of its trips yet", False),
        ({"fallback": 0.02, "high": -0.001}, "champion better", "failed on 2.0% of its trips (limit 1%)", True),
    ],
)  # fmt: skip
def test_the_verdict_of_one_look(changes: dict[str, object], name: str, reason: str, stop: bool) -> None:
    verdict = decide(replace(SOUND, **changes), PARAMS.experiment)  # type: ignore[arg-type]

    assert (verdict.name, verdict.stop) == (name, stop)
    assert reason in verdict.reason


def test_a_much_better_challenger_is_found_and_the_report_is_json() -> None:
    judged = judge_experiment(share_log(*errors(), factor=0.6), with_experiment(planned_trips=5000))

    result = json.loads(json.dumps(judged.result, allow_nan=False))
    assert result["verdict"] == "challenger better" and result["stop"]
    assert result["versions"] == {"champion": 3, "challenger": 4}
    assert result["change"]["rmse"]["low"] < -40 < result["change"]["rmse"]["high"] < 0
    assert result["decided_at"].startswith("2024-03-1")
    assert set(result["arms"]) == {"champion", "challenger"}
    assert "challenger better" in judged.verdict_text


def test_a_much_worse_one_is_found_by_the_absolute_error_too() -> None:
    judged = judge_experiment(share_log(*errors(), factor=1.6), with_experiment(planned_trips=5000, metric="mae"))

    assert judged.verdict.name == "champion better"
    assert judged.verdict.reason.startswith("MAE +")


@pytest.mark.slow
def test_the_order_in_which_the_log_is_read_does_not_matter() -> None:
    log = share_log(*errors(days=9), factor=0.9)

    assert judge_experiment(log, PARAMS).result == judge_experiment(log.sample(frac=1, random_state=3), PARAMS).result


@pytest.mark.slow
def test_the_shadow_sees_in_one_trip_what_shares_see_in_dozens() -> None:
    pickup, error = errors()
    other = error + np.random.default_rng(2).normal(0, 0.5, len(error))

    shadow = judge_experiment(shadow_log(pickup, error, other), with_experiment(planned_trips=5000))
    share = judge_experiment(share_log(pickup, error), with_experiment(planned_trips=5000))

    width = [one.change_table.loc["rmse", "high"] - one.change_table.loc["rmse", "low"] for one in (shadow, share)]
    assert shadow.running.mode == "shadow"
    assert shadow.sizes.loc["in the shadow too", "share"] == 1
    assert width[0] < width[1] / 4


def test_the_same_model_in_the_shadow_is_no_difference_at_all() -> None:
    pickup, error = errors(days=9)

    judged = judge_experiment(shadow_log(pickup, error, error), PARAMS)

    assert judged.verdict.name == "no difference"
    assert judged.change_table.loc["rmse"].tolist() == [0, 0, 0]


def test_a_shadow_that_misses_trips_is_no_comparison() -> None:
    pickup, error = errors(days=9)
    log = shadow_log(pickup, error, error)
    lost = log["shadow"] & (log["pickup"].dt.hour == 17)

    assert judge_experiment(log[~lost], PARAMS).verdict.name == "invalid: sample ratio"


def test_a_shadow_is_paired_by_prediction_where_trips_have_no_id() -> None:
    pickup, error = errors(days=3)
    log = shadow_log(pickup, error, error / 2)
    answer = log["prediction_id"].where(~log["shadow"], log["trip_id"].str.replace("t", "p") + "-shadow")
    nameless = log.assign(prediction_id=answer, trip_id=None)

    trips = judged_trips(find_running(nameless), PARAMS.clean)

    assert len(trips) == len(pickup)
    assert ((trips["mean_challenger"] - 30) * 2).to_numpy() == pytest.approx((trips["mean_champion"] - 30).to_numpy())


def test_outcomes_that_one_arm_loses_make_the_split_unsound() -> None:
    log = share_log(*errors(), factor=0.8)
    lost = (log["arm"] == "challenger") & (log.index % 4 == 0)

    judged = judge_experiment(log.assign(duration=log["duration"].mask(lost)), PARAMS)

    assert judged.verdict.name == "invalid: sample ratio"
    assert judged.first is None
    assert judged.sizes.loc["all", "evidence"] < 1000 < judged.sizes.loc["with an outcome", "evidence"]
    assert judged.sizes.loc["with an outcome", "p once"] < 1e-6


def test_another_share_than_the_planned_one_is_unsound() -> None:
    log = share_log(*errors(), share=0.4)

    assert judge_experiment(log, PARAMS).verdict.name == "invalid: sample ratio"
    assert judge_experiment(log, with_experiment(share=0.4)).verdict.name == "undecided"
    with pytest.raises(UsageError, match=r"expected experiment\.share between 0 and 1 to judge a split; got 1\.0"):
        judge_experiment(log, with_experiment(share=1.0))


def test_trips_that_the_challenger_failed_stay_its_own() -> None:
    log = share_log(*errors(), factor=0.6)
    failed = (log["arm"] == "challenger") & (log.index % 20 == 0)
    log = log.assign(arm=log["arm"].mask(failed, "champion"), version=log["version"].mask(failed, 3), fallback=failed)

    judged = judge_experiment(log, PARAMS)

    assert judged.sizes.loc["all", "challenger"] == pytest.approx(0.5, abs=0.02)
    assert judged.verdict.name == "champion better"
    assert "the challenger failed on" in judged.verdict.reason


def test_a_trip_that_was_asked_twice_counts_once() -> None:
    pickup, error = errors(days=2)
    log = share_log(pickup, error)
    later = log.assign(
        prediction_id=log["prediction_id"] + "x", made_at=log["made_at"].str.replace("00+00:00", "09+00:00"), mean=99.0
    )

    trips = judged_trips(find_running(pd.concat([later, log])), PARAMS.clean)

    assert len(trips) == len(pickup)
    assert trips["mean"].max() < 99


def test_trips_of_other_lengths_than_models_are_judged_by_do_not_count() -> None:
    log = share_log(*errors(days=2))
    odd = log.assign(duration=log["duration"].mask(log.index == 5, 1400.0).mask(log.index == 6, 0.2))

    assert len(judged_trips(find_running(odd), PARAMS.clean)) == len(log) - 2


def test_a_new_version_begins_a_new_experiment() -> None:
    log = share_log(*errors(days=4))
    late = log["pickup"] >= pd.Timestamp("2024-03-06")
    log["version"] = log["version"].where((log["arm"] == "champion") | ~late, 5)

    running = find_running(log)

    assert (running.champion, running.challenger) == (3, 5)
    assert running.rows["pickup"].min() >= pd.Timestamp("2024-03-06")
    assert set(running.rows["version"]) == {3, 5}


def test_since_leaves_out_what_was_before() -> None:
    log = share_log(*errors(days=4))
    since = ExperimentParams.model_validate(PARAMS.experiment.model_dump() | {"since": datetime(2024, 3, 6, 12)}).start

    assert since == datetime(2024, 3, 6, 12, tzinfo=UTC)
    assert find_running(log, since).rows["made_at"].min() >= pd.Timestamp(since)


def test_a_log_without_a_challenger_or_without_outcomes_says_so() -> None:
    pickup, error = errors(days=2)

    with pytest.raises(TaxiError, match=r"the log has none of a challenger: set experiment\.mode"):
        judge_experiment(build_log(pickup), PARAMS)
    with pytest.raises(TaxiError, match="expected outcomes of trips of both arms"):
        judge_experiment(share_log(pickup, error).assign(duration=np.nan), PARAMS)


@pytest.mark.parametrize("days", [1, 2])
def test_the_first_days_say_that_it_is_early(days: int) -> None:
    judged = judge_experiment(share_log(*errors(days=days)), PARAMS)

    json.dumps(judged.result, allow_nan=False)
    change_picture(judged.changes["rmse"], "rmse", 0.02)
    assert judged.verdict.name == "undecided"
    assert judged.verdict.reason == f"day {days}; no verdict before 7 whole days"
    assert "No look so far decided" in judged.verdict_text
    assert plan_experiment(judged.changes, PARAMS.experiment).empty


def test_bounds_of_the_first_days_are_words_and_no_number_of_thousands_of_percent() -> None:
    judged = judge_experiment(share_log(*errors(days=2, daily=60)), PARAMS)

    assert judged.change_table.loc["rmse", ["low", "high"]].tolist() == [UNBOUNDED] * 2
    assert judged.result["change"]["rmse"]["high"] is None
    assert UNBOUNDED in judged.change_table.to_string()


def late(log: pd.DataFrame, days: int = 4) -> pd.DataFrame:
    """Return the log as it is when outcomes of long trips come ``days`` late, and the last trip was just made."""
    young = log["pickup"] >= log["pickup"].max().floor("D") - pd.Timedelta(days=days - 1)
    return log.assign(duration=log["duration"].mask(young & (log["duration"] > 25)))


def lost(log: pd.DataFrame, share: float, seed: int = 5) -> pd.DataFrame:
    """Return the log without the outcomes of a share of the long trips, drawn at random; both arms' rows lose the same."""
    gone = pd.Series(np.random.default_rng(seed).random(len(log)), index=log["trip_id"])
    gone = gone[~gone.index.duplicated()] < share
    return log.assign(duration=log["duration"].mask((log["duration"] > 25) & log["trip_id"].map(gone)))


@pytest.mark.slow
@pytest.mark.campaign
def test_outcomes_of_long_trips_that_come_late_make_no_better_challenger() -> None:
    """Hours are judged once their outcomes are complete, so that nothing is decided on the short trips of the last days."""
    trials = at_scale(2, 100)
    verdicts = []
    for seed in range(trials):
        log = late(lengths_log(seed, days=16))
        log.loc[log["trip_id"] == "t7", "pickup"] += pd.DateOffset(years=18)  # a client's clock is wrong
        judged = judge_experiment(log, with_experiment(planned_trips=8000))
        verdicts.append(judged.verdict.name)
        assert judged.changes["rmse"].index.max() < pd.Timestamp(
            "2024-03-17"
        )  # of 4 to 19 March, the last 4 days are late

    assert verdicts.count("challenger better") / trials <= PARAMS.experiment.alpha
    assert UNEVEN not in verdicts


@pytest.mark.parametrize("share", [0.2, 0.6])
def test_outcomes_lost_of_long_trips_alone_are_said_and_judge_nothing(share: float) -> None:
    judged = judge_experiment(lost(lengths_log(2, days=12), share), PARAMS)

    assert (judged.verdict.name, judged.verdict.stop, judged.first) == (UNEVEN, False, None)
    assert "outcomes missing unevenly" in judged.verdict.reason
    assert "the champion's trips of the longest predicted durations have none" in judged.verdict.reason
    assert json.dumps(judged.result, allow_nan=False)
    table = {one["predicted"]: one["missing"] / one["trips"] for one in judged.result["missing"]}
    assert table["longest"] > share / 2 > 0.01 > table["shortest"]


def test_outcomes_that_one_arm_loses_of_its_long_trips_are_said() -> None:
    log = share_log(*errors(daily=900))
    log = log.assign(
        duration=log["duration"].mask((log["arm"] == "challenger") & (log["mean"] > 35) & (log.index % 4 == 0))
    )

    judged = judge_experiment(log, PARAMS)

    assert judged.verdict.name == UNEVEN
    assert "the challenger's trips of the longest predicted durations" in judged.verdict.reason


def test_outcomes_lost_by_chance_or_of_whole_nights_leave_the_experiment_sound() -> None:
    log = lengths_log(3, days=12)
    chance = log["trip_id"].map(lambda trip: int(trip[1:]) % 50 == 7)
    night = (log["pickup"].dt.hour < 5) & (log["pickup"].dt.day % 3 == 0)

    judged = judge_experiment(log.assign(duration=log["duration"].mask(chance | night)), PARAMS)

    assert judged.verdict.name == "undecided"
    hours = judged.changes["rmse"].index
    assert {3, 4} <= set(hours[hours.day % 3 == 1].hour)
    assert not (hours[hours.day % 3 == 0].hour < 5).any()
    assert judged.missing["missing"].sum() > 100


def test_outcomes_of_every_tenth_trip_lost_leave_no_hour_to_judge() -> None:
    log = lengths_log(3, days=9)
    log = log.assign(duration=log["duration"].mask(log["trip_id"].map(lambda trip: int(trip[1:]) % 10 == 7)))

    judged = judge_experiment(log, PARAMS)
    patient = judge_experiment(log, with_experiment(complete_share=0.6))

    assert "no hour of pickup has the outcomes of 95% of its trips yet" in judged.verdict.reason
    assert judged.verdict.name == patient.verdict.name == "undecided"
    assert "complete" not in patient.verdict.reason


def test_arms_are_compared_within_the_hour() -> None:
    """The challenger has more trips in the easy hour; within each hour the arms lose the same."""
    pickup = pd.Series(pd.to_datetime(["2024-03-04 03:10"] * 4 + ["2024-03-04 17:40"] * 4))
    challenger = np.array([True, True, True, False, True, False, False, False])

    blocks = share_blocks(pickup, challenger, np.array([1.0] * 4 + [9.0] * 4))

    assert blocks["challenger"].tolist() == blocks["champion"].tolist() == [0.75, 6.75]
    assert blocks["trips"].tolist() == [4, 4]


def test_an_hour_with_one_arm_alone_tells_nothing() -> None:
    pickup = pd.Series(pd.to_datetime(["2024-03-04 03:10"] * 2 + ["2024-03-04 04:40"] * 2))

    assert len(share_blocks(pickup, np.array([True, False, True, True]), np.ones(4))) == 1


@pytest.mark.parametrize(
    "wrong", [{"share": 1.2}, {"mode": "canary"}, {"salt": ""}, {"effect": 0}, {"alpha": 0.7}, {"colour": "red"}]
)
def test_parameters_that_make_no_experiment_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ExperimentParams.model_validate(PARAMS.experiment.model_dump() | wrong)


def test_what_is_changed_live_does_not_make_a_month_another_one() -> None:
    assert with_experiment(mode="shadow", share=0.1).lasting() == PARAMS.lasting()
