"""The alarms' rules are pure: a result, or rows of the prediction log, in; findings with numbers out."""

import re
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from taxi.monitoring.alarm_rules import LEARNABLE, RULES, explain, judge_overdue, judge_result
from taxi.monitoring.live_rules import judge_arms, judge_live_volume
from taxi.runs.month_result import MonthResult
from taxi.training.step_result import MEASURES
from tests.support.month_results import PARAMS, make_result

ALARMS = PARAMS.alarms


def found(result: MonthResult, *before: MonthResult, unchecked=()) -> dict[str, tuple[str, str]]:
    """Return what goes off, by rule: its severity and sentence."""
    results = {one.month: one for one in (*before, result)}
    judged = judge_result(results, result.month, unchecked, ALARMS)
    return {key: (one.severity, one.said) for key, one in judged.items() if one}


CASES = [
    ({}, {}),
    ({"status": "refused", "reason": "hour-shift: moved by 4"}, {"data-quality": ("error", "hour-shift")}),
    (
        {"quality": ["share-void"], "warnings": ["share-void: 7 % of rows", "row-count: fewer"]},
        {"data-quality": ("warning", "share-void: 7 %"), "unlike-before": ("warning", "row-count: fewer")},
    ),
    ({"warnings": ["row-count: fewer"]}, {"unlike-before": ("warning", "row-count")}),
    ({"alarms": ["volume"], "numbers": {"volume": -0.35}}, {"volume": ("warning", "said of volume")}),
    ({"alarms": ["volume"], "numbers": {"volume": -0.84}}, {"volume": ("error", "said of volume")}),
    ({"alarms": ["volume"], "numbers": {"volume": 0.9}}, {"volume": ("warning", "said of volume")}),
    ({"alarms": ["rmse"], "numbers": {"rmse_ratio": 1.12}}, {"rmse": ("warning", "said of rmse")}),
    ({"alarms": ["rmse"], "numbers": {"rmse_ratio": 1.30}}, {"rmse": ("error", "said of rmse")}),
    ({"alarms": ["coverage"], "numbers": {"coverage": 0.70}}, {"coverage": ("warning", "said of coverage")}),
    ({"alarms": ["coverage"], "numbers": {"coverage": 0.50}}, {"coverage": ("error", "said of coverage")}),
    ({"alarms": ["coverage"], "numbers": {"coverage": 0.97}}, {"coverage": ("error", "said of coverage")}),
    ({"alarms": ["null-block"]}, {"null-block": ("warning", "said of null-block")}),
    ({"alarms": ["input-drift"]}, {"input-drift": ("warning", "said of input-drift")}),
    ({"alarms": ["prediction-drift"]}, {"prediction-drift": ("warning", "said of prediction-drift")}),
    ({"alarms": ["slice-rmse"]}, {"slice-rmse": ("warning", "said of slice-rmse")}),
    ({"trained_to": "2022-10"}, {}),
    ({"trained_to": "2022-09"}, {"champion-old": ("warning", "trained to 2022-09, 6 months ago")}),
    ({"trained_to": "2022-03"}, {"champion-old": ("error", "12 months ago")}),
    ({"trained_to": "2022-03", "promoted": True}, {}),
    ({"checks": []}, {"check-did-not-run": ("error", "not watched: 2023-03")}),
]


@pytest.mark.parametrize(("fields", "expected"), CASES)
def test_a_month_raises_just_the_alarms_that_its_numbers_call_for(fields, expected):
    said = found(make_result(**fields))

    assert {rule: severity for rule, (severity, _) in said.items()} == {rule: one[0] for rule, one in expected.items()}
    for rule, (_, words) in expected.items():
        assert words in said[rule][1]


def test_a_refused_month_says_nothing_of_the_champion_so_its_alarms_stand():
    judged = judge_result({"2023-03": make_result(status="refused")}, "2023-03", (), ALARMS)

    assert set(judged) == {"data-quality"}


def test_months_that_nobody_looked_at_are_named():
    said = found(make_result(), unchecked=["2023-01", "2023-02"])

    assert said == {"check-did-not-run": ("error", "done and not watched: 2023-01, 2023-02")}


@pytest.mark.parametrize(
    ("alarms", "promoted", "stalled"),
    [
        ([["rmse"], ["rmse"], ["rmse"]], [False, False, False], True),
        ([["rmse"], ["coverage"], ["slice-rmse"]], [False, False, False], True),
        ([["rmse"], [], ["rmse"]], [False, False, False], False),
        ([["volume"], ["volume"], ["volume"]], [False, False, False], False),
        ([["rmse"], ["rmse"], ["rmse"]], [True, False, False], False),
        ([["rmse"], ["rmse"]], [False, False], False),
    ],
)
def test_retraining_has_stalled_when_alarms_stand_for_months_and_nothing_is_promoted(alarms, promoted, stalled):
    months = ["2023-01", "2023-02", "2023-03"][-len(alarms) :]
    made = [make_result(*one[:2], promoted=one[2]) for one in zip(months, alarms, promoted, strict=True)]

    assert ("retraining-stalled" in found(made[-1], *made[:-1])) is stalled


@pytest.mark.parametrize(
    ("today", "severity"),
    [(date(2023, 6, 1), None), (date(2023, 7, 16), "warning"), (date(2023, 9, 1), "error")],
)
def test_a_month_is_overdue_by_the_days_since_its_end(today, severity):
    judged = judge_overdue(["2023-02", "2023-03"], today, ALARMS)["month-overdue"]

    assert (judged and judged.severity) == severity
    assert judged is None or "2023-04 was not run" in judged.said


def test_before_any_month_was_run_none_is_overdue():
    assert judge_overdue([], date(2023, 6, 1), ALARMS) == {}


def make_rows(n: int = 400, arm: str = "champion", version: int = 3, slower: float = 1.0, **columns) -> pd.DataFrame:
    """Return judged predictions whose error is about 3 minutes, and four in five of them inside the interval."""
    rng = np.random.default_rng(1)
    mean = rng.uniform(8, 20, n)
    frame = pd.DataFrame({"made_at": pd.Timestamp("2024-05-01") + pd.to_timedelta(np.arange(n), unit="s"), "arm": arm})
    guessed = {"mean": mean, "median": mean, "p10": mean - 3.85, "p90": mean + 3.85}
    return frame.assign(
        version=version, latency_ms=5.0, duration=slower * mean + rng.normal(0, 3, n), **guessed
    ).assign(**columns)


def live(rows: pd.DataFrame, promoted=None) -> dict[str, str]:
    """Return what goes off on live rows: severity by key."""
    registered = {3: 3.0, 4: 3.0} if promoted is None else promoted
    return {key: one.severity for key, one in judge_arms(rows, rows, registered, PARAMS.monitor, ALARMS).items() if one}


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (make_rows(), {}),
        (make_rows(slower=1.15), {"live-rmse/champion": "warning", "live-coverage/champion": "warning"}),
        (make_rows(slower=1.4), {"live-rmse/champion": "error", "live-coverage/champion": "error"}),
        (make_rows(latency_ms=150.0), {"live-latency/champion": "warning"}),
        (make_rows(latency_ms=900.0), {"live-latency/champion": "error"}),
        (make_rows(n=150, slower=1.4, latency_ms=900.0), {}),
        (
            pd.concat([make_rows(), make_rows(arm="challenger", slower=1.4)]),
            {"live-rmse/challenger": "error", "live-coverage/challenger": "error"},
        ),
        (pd.concat([make_rows(slower=1.4), make_rows(version=4)]), {}),
    ],
)
def test_live_errors_coverage_and_latency_go_off_by_arm_and_by_the_version_that_serves(rows, expected):
    assert live(rows.assign(made_at=pd.date_range("2024-05-01", periods=len(rows), freq="s"))) == expected


def test_after_a_swap_too_few_trips_of_the_new_version_say_nothing_yet():
    rows = pd.concat([make_rows(slower=1.4), make_rows(n=20, version=4)], ignore_index=True)
    rows["made_at"] = pd.date_range("2024-05-01", periods=len(rows), freq="s")

    judged = judge_arms(rows, rows, {3: 3.0, 4: 3.0}, PARAMS.monitor, ALARMS)

    assert "live-rmse/champion" not in judged
    assert judged["live-rmse/challenger"] is None  # not in use


@pytest.mark.parametrize(
    ("now", "weeks", "of_month", "severity"),
    [
        (100, [100, 110, 90, 100], None, None),
        (40, [100, 110, 90, 100], None, "warning"),
        (0, [100, 0, 90, 0], None, "error"),
        (40, [0, 0, 0, 0], 100.0, "warning"),
        (900, [100], None, None),
    ],
)
def test_live_volume_is_held_against_the_same_hour_of_the_weeks_before_or_the_month(now, weeks, of_month, severity):
    judged = judge_live_volume(now, weeks, of_month, ALARMS)["live-volume"]

    assert (judged and judged.severity) == severity


@pytest.mark.parametrize(("weeks", "of_month"), [([0, 0], None), ([0, 0], 20.0), ([30, 20], 500.0)])
def test_where_too_few_predictions_are_usual_volume_is_not_judged(weeks, of_month):
    assert judge_live_volume(0, weeks, of_month, ALARMS) == {}


def test_every_rule_has_an_owner_a_first_step_and_a_section_of_the_runbook():
    runbook = (Path(__file__).parents[2] / "docs/runbook.md").read_text(encoding="utf-8")

    assert re.findall(r"^## (.+)$", runbook, re.MULTILINE) == list(RULES)
    for rule in RULES:
        known = explain(rule, ALARMS)
        assert known["runbook"] == f"docs/runbook.md#{rule}"
        assert known["owner"] and known["act"]


def test_the_monitors_checks_all_have_a_rule_and_those_that_a_retrain_may_mend_are_checks():
    assert set(MEASURES) <= set(RULES)
    assert set(MEASURES) >= LEARNABLE
