"""A month of broken records, from its bytes to the policy and the alarms: refused or in doubt, and never learnt from."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from taxi.config import MonthPaths
from taxi.monitoring.alarm_rules import judge_result
from taxi.params import load_params
from taxi.runs.month_result import refused_result
from taxi.training.policy import decide_training, gather_facts, replay
from tests.support.catalogue import MUTATIONS, Mutation
from tests.support.changes import MONTH, TIMES, stuck
from tests.support.month_results import make_result
from tests.support.mutations import judge, mutate

PARAMS = load_params()
ALWAYS = PARAMS.retrain.model_copy(update={"policy": "always"})
CHAMPION = {"version": 3, "trained_to": "2022-06"}


def faulty(share: float) -> Callable[[pd.DataFrame], pd.DataFrame]:
    """Return the change by which that share of rows is vendor 6's, whose clocks show the month where the minute belongs."""

    def change(frame: pd.DataFrame) -> pd.DataFrame:
        theirs = np.random.default_rng(5).random(len(frame)) < share
        return stuck(TIMES, [3], lambda rows: theirs)(frame.assign(VendorID=frame["VendorID"].where(~theirs, 6)))

    return change


@pytest.mark.parametrize(
    "mutation",
    [
        Mutation("clock fault in half of the rows", "share-collapsed-clock", faulty(0.5)),
        *(one for one in MUTATIONS if one.name in ("kilometres", "times moved by +4 hours", "times moved by -4 hours")),
    ],
    ids=lambda one: one.name,
)
def test_a_broken_month_is_refused_raises_an_error_and_is_never_trained_on(mutation, data_with_history, made_months):
    raw, _ = mutate(mutation, made_months[MONTH])
    outcome = judge(raw, data_with_history)
    paths = MonthPaths(data_with_history, data_with_history / "reports", "green", MONTH)

    result = refused_result(paths, f"{mutation.rule}: refused", {}, PARAMS)

    assert mutation.rule in outcome.refused_by
    assert not paths.trips.exists()
    decision = replay(result.decision)
    assert (decision.train, decision.trigger) == (False, "held")
    assert mutation.rule in decision.facts.quality
    assert (result.promoted, result.challenger) == (False, None)
    found = judge_result({MONTH: result}, MONTH, (), PARAMS.alarms)
    assert [(one.rule, one.severity) for one in found.values()] == [("data-quality", "error")]


def test_a_fault_that_has_only_begun_to_grow_is_accepted_and_warned_of_and_not_learnt_from(
    data_with_history, made_months
):
    raw, _ = mutate(Mutation("clock fault in a tenth", "", faulty(0.1)), made_months[MONTH])
    summary = judge(raw, data_with_history).summary

    facts = gather_facts(MONTH, ["rmse"], summary.findings, CHAMPION, ())
    decision = decide_training(facts, ALWAYS)

    assert summary.status == "warned"
    assert (decision.train, decision.trigger) == (False, "held")
    assert "share-collapsed-clock" in decision.reason
    result = make_result(MONTH, warnings=summary.warnings, decision=decision)
    found = judge_result({MONTH: result}, MONTH, (), PARAMS.alarms)
    assert found["data-quality"].severity == "warning"


BLOCK = ["store_and_fwd_flag", "RatecodeID", "passenger_count", "payment_type", "trip_type"]


def test_a_month_that_is_only_unlike_those_before_is_warned_of_and_may_be_learnt_from(data_with_history, made_months):
    def emptied(frame: pd.DataFrame) -> pd.DataFrame:
        return frame.assign(**{name: frame[name].where(frame.index % 5 > 0) for name in BLOCK})

    summary = judge(
        mutate(Mutation("a larger null block", "", emptied), made_months[MONTH])[0], data_with_history
    ).summary
    facts = gather_facts(MONTH, ["rmse"], summary.findings, CHAMPION, ())
    decision = decide_training(facts, PARAMS.retrain)

    assert summary.status == "warned"
    assert decision.trigger == "alarm"
    result = make_result(MONTH, warnings=summary.warnings, decision=decision)
    found = judge_result({MONTH: result}, MONTH, (), PARAMS.alarms)
    assert found["data-quality"] is None
    assert found["unlike-before"].severity == "warning"
