"""One rule has one id: in params, the monitor's checks, alarms, events, the runbook and every document."""

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args

import pytest
import yaml

from taxi import params
from taxi.files import read_json, write_json
from taxi.monitoring.alarm_book import change_book, enter, read_book
from taxi.monitoring.alarm_rules import LEARNABLE, RULES
from taxi.params import load_params
from taxi.training.retraining import MENDABLE
from taxi.training.step_result import MEASURES, RENAMED, current_rule

ROOT = Path(__file__).parents[2]
WRITTEN = [ROOT / "README.md", ROOT / "prefect.yaml", ROOT / "params.yaml", *sorted((ROOT / "docs").glob("*.md"))]
SHOWN = [*sorted((ROOT / "monitoring").rglob("*.json")), *sorted((ROOT / "taxi" / "templates").rglob("*.j2"))]


def heard_by_the_server() -> set[str]:
    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text(encoding="utf-8"))["deployments"]
    triggers = [trigger for one in deployments for trigger in one.get("triggers", [])]
    return {rule for trigger in triggers for rule in trigger["match"].get("taxi.rule", [])}


def test_params_checks_rules_events_and_the_runbook_say_the_same_ids():
    runbook = re.findall(r"^## (.+)$", (ROOT / "docs/runbook.md").read_text(encoding="utf-8"), re.MULTILINE)

    assert set(get_args(params.MonitorRule)) == set(MEASURES)
    assert set(MEASURES) | LEARNABLE | set(MENDABLE) <= set(RULES)
    assert runbook == list(RULES)
    assert heard_by_the_server() == set(load_params().retrain.on_alarm) | {"live-rmse", "live-coverage"}


@pytest.mark.parametrize("path", [*WRITTEN, *SHOWN], ids=lambda path: path.name)
def test_no_document_names_a_rule_by_an_id_that_it_had_before(path):
    text = path.read_text(encoding="utf-8")
    named = re.findall(r"runbook\.md#([a-z-]+)", text)

    assert set(named) <= set(RULES)
    assert [old for old in RENAMED if re.search(rf"[`*#/]{old}[`*/]|[\[ ]{old}[,\]]", text) and old != "error"] == []


def test_the_runbook_refers_only_to_rules_that_there_are():
    text = (ROOT / "docs/runbook.md").read_text(encoding="utf-8")

    assert set(re.findall(r"(?<!\*)\*([a-z]+(?:-[a-z]+)*)\*(?!\*)", text)) <= {
        *RULES,
        "live",
        "error",
        "warning",
    }  # a part, and severities


def test_an_alarm_that_was_raised_under_an_earlier_id_stands_and_recovers(tmp_path):
    entry = {"severity": "error", "said": "RMSE 9", "month": "2023-03", "numbers": {}, "report": None, "part": ""}
    since = {"since": "2023-05-01T12:00:00+00:00", "first_month": "2023-03"}
    standing = {
        "green/error": entry | since | {"rule": "error"},
        "green/live-error/champion": entry | since | {"rule": "live-error", "part": "champion"},
        "yellow/slice-error": entry | since | {"rule": "slice-error"},
        "alarms/channel-dead/1": entry | since | {"rule": "channel-dead", "part": "1"},
    }
    path = tmp_path / "alarms.json"
    write_json(path, {"standing": standing, "checked": {"green": "2023-03"}, "live_checked": {}, "waiting": []})

    places = {place: one["rule"] for place, one in read_book(path)["standing"].items()}
    found = {"rmse": None, "live-rmse/champion": None}
    at, alarms = datetime(2023, 6, 1, tzinfo=UTC), load_params().alarms
    told = change_book(path, lambda book: enter(book, "green", found, "2023-04", at, alarms))

    assert places == {
        "green/rmse": "rmse",
        "green/live-rmse/champion": "live-rmse",
        "yellow/slice-rmse": "slice-rmse",
        "alarms/channel-dead/1": "channel-dead",
    }
    assert [(one.kind, one.rule, one.part) for one in told] == [
        ("recovered", "rmse", ""),
        ("recovered", "live-rmse", "champion"),
    ]
    assert set(read_json(path)["standing"]) == {"yellow/slice-rmse", "alarms/channel-dead/1"}


def test_an_earlier_id_is_understood_and_others_are_left_as_they_are():
    assert [current_rule(one) for one in ("error", "live-error", "coverage", "of-another-time")] == [
        "rmse",
        "live-rmse",
        "coverage",
        "of-another-time",
    ]
