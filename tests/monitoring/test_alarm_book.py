"""The alarm book: raised once, worse once, recovered once; whatever is run again, and by however many at once."""

from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from taxi.errors import TaxiError
from taxi.monitoring.alarm_book import change_book, claim, empty_book, enter, queue, read_book, remove_delivered
from taxi.monitoring.alarm_rules import Alarm, Checked, Message, make_message
from taxi.params import load_params

ALARMS = load_params().alarms
NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)
ERROR = Alarm("rmse", "warning", "RMSE 5.60 minutes", "2023-03", report="reports/green/2023-03/03-monitor.html")


def told(steps: list[tuple[Checked, str | None]], service: str = "green") -> list[list[tuple[str, str]]]:
    """Return what is told after each step, as kind and rule."""
    book, said = empty_book(), []
    for found, month in steps:
        book, messages = enter(book, service, found, month, NOON, ALARMS)
        said.append([(one.kind, one.rule) for one in messages])
    return said


def test_an_alarm_is_told_once_however_often_its_month_is_run():
    assert told([({"rmse": ERROR}, "2023-03")] * 3) == [[("raised", "rmse")], [], []]


def test_an_alarm_that_stands_for_months_is_told_once_and_its_recovery_once():
    later = {"rmse": replace(ERROR, month="2023-04")}
    calm: Checked = {"rmse": None}

    said = told([({"rmse": ERROR}, "2023-03"), (later, "2023-04"), (calm, "2023-05"), (calm, "2023-06")])

    assert said == [[("raised", "rmse")], [], [("recovered", "rmse")], []]


def test_a_worse_alarm_is_told_again_and_a_better_one_is_not():
    grave = {"rmse": replace(ERROR, severity="error")}

    said = told([({"rmse": ERROR}, "2023-03"), (grave, "2023-04"), ({"rmse": ERROR}, "2023-05")])

    assert said == [[("raised", "rmse")], [("worse", "rmse")], []]


def test_a_rule_that_could_not_look_leaves_its_alarm_standing():
    refused: Checked = {"data-quality": Alarm("data-quality", "error", "truncated", "2023-04")}

    said = told([({"rmse": ERROR}, "2023-03"), (refused, "2023-04"), ({"rmse": None}, "2023-05")])

    assert said == [[("raised", "rmse")], [("raised", "data-quality")], [("recovered", "rmse")]]


def test_an_older_month_run_again_changes_nothing():
    old: Checked = {"rmse": replace(ERROR, month="2023-01"), "volume": None}

    said = told([({"volume": replace(ERROR, rule="volume"), "rmse": None}, "2023-03"), (old, "2023-01")])

    assert said == [[("raised", "volume")], []]


def test_a_month_published_anew_recovers_within_the_month():
    assert told([({"rmse": ERROR}, "2023-03"), ({"rmse": None}, "2023-03")])[1] == [("recovered", "rmse")]


def test_arms_and_services_are_told_apart():
    live = Alarm("live-rmse", "error", "RMSE", part="champion")
    book, _ = enter(empty_book(), "green", {live.key: live}, None, NOON, ALARMS)

    book, other = enter(book, "yellow", {live.key: live}, None, NOON, ALARMS)
    challenger = replace(live, part="challenger")
    book, more = enter(book, "green", {challenger.key: challenger}, None, NOON, ALARMS)

    assert [one.title for one in other + more] == [
        "[error] yellow champion: live-rmse",
        "[error] green challenger: live-rmse",
    ]


def test_a_message_says_what_where_how_much_and_what_to_do():
    message = make_message("raised", "green", replace(ERROR, numbers={"rmse": 5.6}), NOON, ALARMS)

    assert message.title == "[warning] green 2023-03: rmse"
    for part in ("RMSE 5.60 minutes", "03-monitor.html", "owner: machine learning", "do: ", "runbook.md#rmse"):
        assert part in message.body
    assert message.numbers == {"rmse": 5.6}


def test_a_recovery_says_since_when_it_stood():
    book, _ = enter(empty_book(), "green", {"rmse": ERROR}, "2023-03", NOON, ALARMS)

    _, (message,) = enter(book, "green", {"rmse": None}, "2023-06", NOON, ALARMS)

    assert message.title == "[recovered] green 2023-06: rmse"
    assert "it stood since 2023-03: RMSE 5.60 minutes" in message.body


def waiting(*channels: str) -> tuple[dict, Message]:
    message = make_message("raised", "green", ERROR, NOON, ALARMS)
    return queue(empty_book(), [message], channels), message


def test_what_one_process_is_sending_no_other_takes_until_its_time_is_over():
    book, message = waiting("1-json")

    book, first = claim(book, ["1-json"], NOON, 30)
    book, second = claim(book, ["1-json"], NOON + timedelta(seconds=29), 30)
    _, third = claim(book, ["1-json"], NOON + timedelta(seconds=31), 30)

    assert (first, second, third) == ({"1-json": [message]}, {}, {"1-json": [message]})


def test_what_was_delivered_is_gone_and_what_was_not_waits_for_the_next_check():
    book, message = waiting("1-json", "2-mailto")
    book, _ = claim(book, ["1-json", "2-mailto"], NOON, 30)

    book = remove_delivered(book, {"1-json": [message.id]}, [message.id])

    assert claim(book, ["1-json", "2-mailto"], NOON, 30)[1] == {"2-mailto": [message]}
    assert remove_delivered(book, {"2-mailto": [message.id]}, [message.id])["waiting"] == []


def raise_alarm(path: Path) -> int:
    """Enter the same alarm as other processes do; return how many messages it made."""
    change = lambda book: enter(book, "green", {"rmse": ERROR}, "2023-03", NOON, ALARMS)  # noqa: E731
    return len(change_book(path, change))


def test_of_processes_that_raise_the_same_alarm_at_once_one_tells_it(tmp_path):
    path = tmp_path / "alarms.json"

    with ProcessPoolExecutor(4) as pool:
        made = list(pool.map(raise_alarm, [path] * 12))

    assert sum(made) == 1
    assert list(read_book(path)["standing"]) == ["green/rmse"]


def test_a_book_that_cannot_be_read_is_no_empty_book(tmp_path):
    (tmp_path / "alarms.json").write_text("{")

    with pytest.raises(TaxiError, match="Move it away"):
        raise_alarm(tmp_path / "alarms.json")
