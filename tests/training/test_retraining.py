"""A retrain between months: what calls for it, what it learns from, and that its decision can be replayed."""

import json
from typing import Any

import pandas as pd
import pytest
import yaml
from prefect.events.schemas.deployment_triggers import DeploymentEventTrigger

from pipelines.alarms import emit_alarms, resource_of
from taxi.config import load_settings
from taxi.data.month_rules import RuleFinding
from taxi.params import RetrainParams, load_params
from taxi.registry.versions import Version
from taxi.training.plan import HOLDOUT_DAYS, make_plan, make_retrain_plan
from taxi.training.retraining import (
    MENDABLE,
    Call,
    decide_retrain,
    gather_call,
    name_attempt,
    pick_live,
    record_call,
    replay_retrain,
)
from taxi.training.step_result import MEASURES
from tests.support.worlds import ROOT

AUTO = load_params().retrain
ON_HAND = ["2023-01", "2023-02", "2023-03"]


def version(number: int, trained_to: str, **tags: str) -> Version:
    return Version("green", number, "2023-01", trained_to, trained_to, {"rmse": 5.0}, tags, "", "")


def decide(
    rule: str = "live-rmse", *there: Version, quality: str = "", retrain: RetrainParams = AUTO
) -> dict[str, Any]:
    findings = [RuleFinding(quality, "warn", "said")] if quality else []
    call, facts = gather_call(Call(rule, "error", "said", "event"), "2023-03", findings, there, ())
    return record_call(decide_retrain(call, facts, retrain), call)


CHAMPION = version(3, "2023-02")


@pytest.mark.parametrize(
    ("rule", "there", "quality", "train", "said"),
    [
        ("live-rmse", [CHAMPION], "", True, "alarm: rmse"),
        ("coverage", [CHAMPION], "", True, "alarm: coverage"),
        ("data-quality", [CHAMPION], "", False, "data-quality is no alarm that training mends"),
        ("live-latency", [CHAMPION], "", False, "live-latency is no alarm"),
        ("null-block", [CHAMPION], "", False, "alarms (null-block) do not count"),
        ("live-rmse", [CHAMPION], "share-duplicate", False, "records are in doubt (share-duplicate)"),
        ("live-rmse", [version(4, "2023-03")], "", False, "the champion has learnt from 2023-03, and no later month"),
        ("live-rmse", [CHAMPION, version(4, "2023-03", rolled_back="{}")], "", False, "rolled back (4)"),
    ],
)
def test_a_retrain_follows_what_training_can_mend_and_nothing_else(rule, there, quality, train, said):
    record = decide(rule, *there, quality=quality)

    assert (record["train"], record["call"]["rule"]) == (train, rule)
    assert said in record["reason"]


def test_a_policy_that_never_replaces_the_champion_holds_between_months_too():
    never = RetrainParams.model_validate(AUTO.model_dump() | {"policy": "never"})

    assert decide("live-rmse", CHAMPION, retrain=never)["train"] is False


def test_a_decision_whose_rule_had_another_id_is_made_again_from_its_record():
    record = json.loads(json.dumps(decide("live-rmse", CHAMPION)))
    record["call"]["rule"] = "live-error"

    assert replay_retrain(record).as_dict() == {name: record[name] for name in replay_retrain(record).as_dict()}


@pytest.mark.parametrize("rule", ["live-rmse", "data-quality"])
def test_a_decision_is_made_again_from_its_record(rule):
    record = json.loads(json.dumps(decide(rule, CHAMPION, version(4, "2023-03", rolled_back="{}"))))

    again = replay_retrain(record)

    assert record_call(again, Call(**record["call"] | {"withdrawn": tuple(record["call"]["withdrawn"])})) == record


def test_the_newest_month_trains_but_for_the_days_that_judge():
    plan = make_retrain_plan("green", "2023-03", ON_HAND, 12, {"version": 3})

    assert (plan.window, plan.learnt, plan.refit_window) == (ON_HAND[:2], ON_HAND, ON_HAND)
    assert pd.Timestamp(plan.holdout_from) == pd.Timestamp("2023-04-01") - pd.Timedelta(days=HOLDOUT_DAYS)
    assert plan.trained == "2 months, 2023-01 to 2023-02, and 2023-03 without its last 7 days"


def test_a_months_own_run_still_does_not_train_on_the_month():
    plan = make_plan("green", "2023-03", ON_HAND, 12, {"version": 3})

    assert (plan.learnt, plan.holdout_from, plan.trained) == (ON_HAND[:2], None, "2 months, 2023-01 to 2023-02")


def test_when_a_month_arrives_the_live_alarm_that_still_stands_asks_again():
    standing = [{"rule": rule} for rule in ("data-quality", "live-latency", "rmse", "live-coverage", "live-rmse")]

    assert pick_live(standing) == {"rule": "live-coverage"}
    assert pick_live(standing[:3]) is None


def test_without_a_server_an_alarm_is_no_event_and_no_failure(monkeypatch):
    monkeypatch.delenv("PREFECT_API_URL", raising=False)

    assert (
        emit_alarms(load_settings(), [{"id": "0" * 32, "kind": "raised", "service": "green", "rule": "live-rmse"}])
        == []
    )


def test_a_retrain_asked_for_twice_has_one_place_and_a_new_champion_another():
    assert name_attempt("2023-03", {"version": 3}) == name_attempt("2023-03", {"version": 3})
    assert name_attempt("2023-03", {"version": 3}) != name_attempt("2023-03", {"version": 4})


def deployed() -> dict[str, Any]:
    content = yaml.safe_load((ROOT / "prefect.yaml").read_text(encoding="utf-8"))
    return next(one for one in content["deployments"] if one["name"] == "on-alarm")


def matches(rule: str) -> bool:
    told = {"service": "green", "rule": rule, "severity": "error", "month": None, "part": "champion"}
    trigger = DeploymentEventTrigger.model_validate(deployed()["triggers"][0])
    return trigger.match.matches(resource_of(told))


def test_the_automation_listens_to_what_the_policy_counts_and_to_nothing_else():
    counted = {rule for rule, check in MENDABLE.items() if check in AUTO.on_alarm}
    others = {*MEASURES, "data-quality", "live-volume", "live-latency", "month-overdue"} - counted

    assert {rule for rule in counted if matches(rule)} == counted
    assert not {rule for rule in others if matches(rule)}
