"""What notebooks recorded and what was planned, as typed documents: that of the commit before is read, damage is explained."""

import pytest

from taxi.config import MonthPaths
from taxi.errors import TaxiError
from taxi.files import write_json
from taxi.training.plan import load_plan, plan_file
from taxi.training.step_result import CompareResult, MonitorResult, StepResult, read_step, recorded
from tests.support.month_results import make_compare, make_step

SCORES = {"rmse": 5.1, "mae": 3.5, "n": 7689}
BEFORE = {
    "alarms": ["null-block"],
    "metrics": SCORES,
    "numbers": {"null_share": 0.2, "rmse_ratio": 1.02},
    "reasons": ["null-block: the null block holds 27.3% of trips, 7.3% before (limit ±8%)", "rmse: RMSE 5.13 minutes"],
    "verdict": "alarm",
}


@pytest.fixture
def paths(tmp_path):
    return MonthPaths(tmp_path / "data", tmp_path / "reports", "green", "2024-03")


def test_what_the_monitor_recorded_before_is_read_as_checks(paths):
    write_json(paths.reports / "03-monitor.json", make_step("03-monitor", **BEFORE))

    result = recorded(paths, MonitorResult)

    assert (result.verdict, result.alarms, result.metrics) == ("alarm", ["null-block"], SCORES)
    assert [check.numbers for check in result.checks] == [{"null_share": 0.2}, {"rmse_ratio": 1.02}]
    assert [str(check) for check in result.checks] == BEFORE["reasons"]


def test_what_the_comparison_recorded_is_read(paths):
    write_json(paths.reports / "05-compare.json", make_compare(SCORES, promote=True))

    result = recorded(paths, CompareResult)

    assert (result.promote, result.challenger, result.interval) == (True, SCORES, (0.05, 0.15))


def test_a_notebook_that_was_not_run_has_no_result(paths):
    assert read_step(paths, StepResult, "04-train") is None
    with pytest.raises(TaxiError, match=r"what 05-compare recorded at .*05-compare\.json; it is not there"):
        recorded(paths, CompareResult)


def test_a_truncated_result_of_a_notebook_names_its_file(paths):
    paths.reports.mkdir(parents=True)
    (paths.reports / "03-monitor.json").write_text('{"verdict": "ca')

    with pytest.raises(TaxiError, match=r"expected what a notebook recorded as JSON at .*03-monitor\.json"):
        read_step(paths, MonitorResult)


def test_a_plan_of_the_commit_before_is_read_and_a_foreign_one_names_its_file(paths):
    incumbent = {"version": 2, "trained_from": "2024-01", "trained_to": "2024-01", "metrics": SCORES}
    months = {"window": ["2024-01"], "refit_window": ["2024-01", "2024-03"], "holdout_from": None, "before": "2024-01"}
    write_json(plan_file(paths), {"service": "green", "month": "2024-03", "incumbent": incumbent, **months})

    assert load_plan(plan_file(paths)).incumbent == incumbent

    write_json(plan_file(paths), {"refit_window": []})
    with pytest.raises(TaxiError, match=r"expected a month's plan as JSON at .*plan\.json; .* service: Field required"):
        load_plan(plan_file(paths))
