"""When a challenger is trained; every decision is pure, says why, and can be replayed from its record."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taxi.data.month_rules import RuleFinding
from taxi.params import RetrainParams, load_params
from taxi.training.policy import Facts, TrainingDecision, decide_training, find_faults, gather_facts, replay

AUTO = load_params().retrain
CHECKS = ["volume", "null-block", "rmse", "coverage", "slice-rmse", "input-drift", "prediction-drift"]


def change(**fields) -> RetrainParams:
    return RetrainParams.model_validate(AUTO.model_dump() | fields)


def decide(retrain=AUTO, alarms=(), trained_to="2023-02", quality=(), last_trained=None) -> TrainingDecision:
    incumbent = trained_to and {"version": 3, "trained_to": trained_to}
    return decide_training(Facts("2023-03", tuple(alarms), tuple(quality), incumbent, last_trained), retrain)


@pytest.mark.parametrize(
    ("case", "train", "trigger", "said"),
    [
        ({"trained_to": None}, True, "first", "no champion yet"),
        ({}, False, "none", "the months that the champion, trained to 2023-02, knows"),
        ({"alarms": ["rmse"]}, False, "none", "alarm: rmse; but a challenger would learn from the months"),
        ({"alarms": ["volume", "rmse"], "trained_to": "2023-01"}, True, "alarm", "alarm: rmse"),
        ({"alarms": ["volume"], "trained_to": "2023-01"}, False, "none", "alarms (volume) do not count"),
        (
            {"alarms": ["rmse"], "trained_to": "2023-01", "retrain": change(on_alarm=[])},
            False,
            "none",
            "alarms (rmse) do not count",
        ),
        ({"trained_to": "2023-01"}, False, "none", "trained to 2023-01"),
        ({"trained_to": "2022-12"}, True, "age", "trained to 2022-12, 3 months ago"),
        ({"trained_to": "2022-12", "retrain": change(oldest_months=0)}, False, "none", "no alarm"),
        (
            {"trained_to": "2022-11", "last_trained": "2023-02"},
            False,
            "none",
            "last challenger was trained 1 month ago",
        ),
        ({"trained_to": "2022-06", "last_trained": "2022-12"}, True, "age", "last challenger was trained 3 months ago"),
        ({"retrain": change(every_months=1)}, True, "schedule", "due every month"),
        ({"trained_to": "2023-01", "retrain": change(every_months=2)}, True, "schedule", "due every 2 months"),
        ({"retrain": change(every_months=2)}, False, "none", "trained to 2023-02, knows"),
        ({"retrain": change(policy="always")}, True, "schedule", "every month"),
        ({"alarms": ["rmse"], "retrain": change(policy="never")}, False, "none", "never replaced"),
        ({"trained_to": None, "retrain": change(policy="never")}, True, "first", "no champion yet"),
    ],
)
def test_a_challenger_is_trained_when_the_policy_says_so(case, train, trigger, said):
    decision = decide(**case)

    assert (decision.train, decision.trigger) == (train, trigger)
    assert said in decision.reason


@pytest.mark.parametrize("policy", ["auto", "always", "never"])
@pytest.mark.parametrize("trained_to", [None, "2020-01"])
def test_nothing_is_learnt_from_records_in_doubt_whatever_else_calls_for_it(policy, trained_to):
    decision = decide(change(policy=policy, every_months=1), ["rmse"], trained_to, ["share-collapsed-clock"])

    assert (decision.train, decision.trigger) == (False, "held")
    assert "share-collapsed-clock" in decision.reason


def test_a_month_that_is_only_unlike_the_months_before_is_not_in_doubt():
    found = [("row-count", "warn"), ("null-share", "warn"), ("speed-jump", "warn"), ("share-void", "ok")]

    assert find_faults([RuleFinding(rule, level, "said") for rule, level in found]) == ()


def test_rules_that_refuse_and_faults_in_the_records_are_doubts():
    found = [("hour-shift", "refuse"), ("share-duplicate", "warn"), ("night-share", "warn"), ("kept-share", "ok")]

    faults = find_faults([RuleFinding(rule, level, "said") for rule, level in found])

    assert faults == ("hour-shift", "share-duplicate", "night-share")


def test_the_facts_name_the_newest_month_before_that_trained_a_challenger():
    incumbent = {"version": 4, "trained_to": "2022-11", "metrics": {}}

    facts = gather_facts("2023-03", ["rmse"], [], incumbent, ["2022-11", "2022-12", "2023-03"])

    assert facts.last_trained == "2022-12"
    assert (facts.age, facts.waited) == (4, 3)
    assert facts.incumbent == {"version": 4, "trained_from": None, "trained_to": "2022-11"}


months = st.builds("{:04d}-{:02d}".format, st.integers(2018, 2026), st.integers(1, 12))
rules = st.builds(
    RetrainParams,
    policy=st.sampled_from(["auto", "always", "never"]),
    on_alarm=st.lists(st.sampled_from(CHECKS), unique=True),
    oldest_months=st.integers(0, 12),
    every_months=st.integers(0, 12),
)
facts = st.builds(
    Facts,
    month=months,
    alarms=st.lists(st.sampled_from(CHECKS), unique=True).map(tuple),
    quality=st.lists(st.sampled_from(["share-void", "kept-share"]), unique=True).map(tuple),
    incumbent=st.none() | st.fixed_dictionaries({"version": st.integers(1), "trained_to": months}),
    last_trained=st.none() | months,
)


@given(facts, rules)
def test_any_decision_replayed_from_its_record_is_the_same(known, retrain):
    decision = decide_training(known, retrain)

    again = replay(TrainingDecision.of(json.loads(json.dumps(decision.as_dict()))))

    assert again == decision
    assert not (known.quality and decision.train)
    assert decision.train == (decision.trigger not in ("none", "held"))
