"""Alias moves end whole, whatever kills them between two steps; a rollback holds until a person says otherwise."""

import json
import os
import subprocess
import sys

import pytest

from taxi.errors import Refused, TaxiError, UsageError
from taxi.locks import LockLost
from taxi.registry.aliases import (
    approve,
    choose_target,
    follow_tags,
    open_event,
    plan_event,
    roll_back,
    rollback_tags,
    settle,
)
from taxi.registry.events import Event, champions_served, read_event, write_event
from taxi.registry.mlflow_client import Client, connect
from taxi.registry.release import promote
from taxi.registry.versions import (
    aliased_version,
    champion_before,
    champion_now,
    find_version,
    versions,
)
from tests.support.aliased import (
    OLDER_ENTRY,
    OLDER_ROLLBACK,
    PARAMS,
    STEPS,
    aliases,
    history,
    keep_older,
    make_older,
    register,
)
from tests.support.worlds import ROOT as CHECKOUT

pytestmark = pytest.mark.slow


class Killed(BaseException):
    """Stands for the end of the process: nothing in the code may catch it."""


def kill_at(patch: pytest.MonkeyPatch, step: int, after: bool) -> None:
    """Let the process end just before (or after) the registry does its n-th change."""
    done = [0]

    def wrap(real):
        def call(*args, **kwargs):
            done[0] += 1
            if done[0] == step and not after:
                raise Killed
            answer = real(*args, **kwargs)
            if done[0] == step and after:
                raise Killed
            return answer

        return call

    for name in STEPS:
        patch.setattr(Client, name, wrap(getattr(Client, name)))


def test_rollback_returns_to_the_previous_champion(uri):
    before, now = roll_back(uri, "green", "ada", "wrong at the airports")

    assert (before.number, now.number) == (3, 2)
    assert aliases(uri) == {"champion": 2, "challenger": 4}
    assert champion_now(uri, "green").number == aliased_version(uri, "green", "champion").number == 2
    assert open_event(uri, "green") is None


def test_a_second_rollback_goes_one_further_and_a_third_finds_none(uri):
    roll_back(uri, "green", "ada", "bad")
    roll_back(uri, "green", "ada", "bad too")

    assert aliases(uri)["champion"] == 1
    with pytest.raises(Refused, match="green/1 has no champion before it that is still in use"):
        roll_back(uri, "green", "ada", "all bad")
    assert aliases(uri)["champion"] == 1


def test_a_rolled_back_version_does_not_come_back_by_itself(uri):
    roll_back(uri, "green", "ada", "bad")

    follow_tags(uri, "green", "green 2023-03 was run again")
    assert aliases(uri)["champion"] == 2
    assert champion_before(uri, "green", "2023-04").number == 2

    newer = register(uri, "2023-04")
    follow_tags(uri, "green", "green 2023-04 was run")
    assert aliases(uri)["champion"] == newer


def test_who_lost_the_lock_moves_nothing(uri, monkeypatch):
    def lost(lock):
        raise LockLost("the lock green was lost")

    monkeypatch.setattr("taxi.locks._FileLock.check", lost)
    with pytest.raises(LockLost):
        roll_back(uri, "green", "ada", "bad")

    assert len(history(uri)) == 4 and aliases(uri)["champion"] == 3


def test_a_rollback_can_be_traced(uri):
    roll_back(uri, "green", "ada", "wrong at the airports")

    last, note = history(uri)[-1], json.loads(find_version(uri, "green/3").tags["rolled_back"])
    assert last.aliases == {"champion": ["3", "2"]}
    assert (last.by, last.why) == ("ada", "rollback to 2: wrong at the airports")
    assert note["by"] == "ada" and note["why"] == "wrong at the airports" and note["to"] == 2
    assert note["at"] <= last.at


def test_a_version_that_never_served_is_not_what_rollback_returns_to(uri):
    register(uri, "2023-02")  # trained to the same month as 2, registered later, never champion

    _, now = roll_back(uri, "green", "ada", "bad")
    follow_tags(uri, "green", "green 2023-02 was run again")

    assert now.number == aliases(uri)["champion"] == 2


def test_a_rolled_back_version_comes_back_when_a_person_says_so(uri):
    roll_back(uri, "green", "ada", "bad")

    before, now = roll_back(uri, "green", "ada", "it was the weather", to=3)
    follow_tags(uri, "green", "green 2023-03 was run again")

    assert (before.number, now.number) == (2, 3)
    assert aliases(uri)["champion"] == 3
    assert [event.aliases.get("champion") for event in history(uri)][-2:] == [["3", "2"], ["2", "3"]]


@pytest.mark.parametrize("to", [3, 4, 99])
def test_a_rollback_to_what_is_no_earlier_champion_is_refused_with_those_there_are(uri, to):
    with pytest.raises(UsageError, match=f"got {to}; there are: 1, 2"):
        roll_back(uri, "green", "ada", "bad", to=to)


def test_a_service_without_champion_has_nothing_to_roll_back(tmp_path):
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"

    with pytest.raises(Refused, match="there is no champion"):
        roll_back(uri, "green", "ada", "bad")


def test_an_alias_that_names_nothing_is_none(uri):
    assert aliased_version(uri, "green", "shadow") is None
    assert aliased_version(uri, "yellow", "champion") is None


def test_a_champion_of_another_environment_is_another(uri):
    assert aliased_version(uri, "green", "champion", "prod") is None


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("step", [1, 2, 3])
def test_a_rollback_killed_at_any_step_is_whole_after_the_next_start(uri, step, after):
    with pytest.MonkeyPatch.context() as patch:
        kill_at(patch, step, after)
        with pytest.raises(Killed):
            roll_back(uri, "green", "ada", "bad")
    nothing_done = (step, after) == (1, False)
    number = 3 if nothing_done else 2
    assert champion_now(uri, "green").number == number  # by the event, before anything is settled

    told = settle(uri, "green")

    assert aliases(uri) == {"champion": number, "challenger": 4}
    assert champion_now(uri, "green").number == number
    assert open_event(uri, "green") is None
    assert len(history(uri)) == (4 if nothing_done else 5)
    whole = nothing_done or (step, after) == (3, True)
    assert told is None if whole else "finished a move of taxi-green begun at" in told
    assert settle(uri, "green") is None


@pytest.mark.parametrize(("step", "after"), [(1, False), (1, True), (3, False), (3, True), (4, False)])
def test_a_rollback_killed_at_any_step_and_typed_again_goes_back_once(uri, step, after):
    to = {1: None, 3: 2, 4: None}[step]
    with pytest.MonkeyPatch.context() as patch:
        kill_at(patch, step, after)
        with pytest.raises(Killed):
            roll_back(uri, "green", "ada", "bad", to)
    told = []

    before, now = roll_back(uri, "green", "ada", "bad", to, answer=lambda *numbers: told.append(numbers))

    assert (before.number, now.number) == (3, 2) and told == [(before, now)]
    assert aliases(uri)["champion"] == 2
    assert len(history(uri)) == 5


def test_another_persons_another_reason_or_another_days_rollback_is_another_request(uri, monkeypatch):
    def killed(*_):
        raise Killed

    with pytest.raises(Killed):
        roll_back(uri, "green", "ada", "bad", answer=killed)

    assert roll_back(uri, "green", "ada", "bad")[1].number == 2
    with pytest.raises(Killed):
        roll_back(uri, "green", "ada", "worse", answer=killed)
    assert aliases(uri)["champion"] == 1

    with pytest.raises(Refused, match="no champion before it"):
        roll_back(uri, "green", "bob", "worse")
    monkeypatch.setattr("taxi.registry.aliases.REPEAT_HOURS", -1)
    with pytest.raises(Refused, match="no champion before it"):
        roll_back(uri, "green", "ada", "worse")


@pytest.mark.parametrize("step", [1, 2, 4])
def test_a_promotion_killed_at_any_step_and_typed_again_enters_once_and_is_answered(uri, step):
    one = find_version(uri, "green/3")
    with pytest.MonkeyPatch.context() as patch:
        kill_at(patch, step, after=True)
        with pytest.raises(Killed):
            promote(uri, one, "staging", PARAMS, {}, "ada")

    made, checks = promote(uri, one, "staging", PARAMS, {}, "ada")

    assert (made.label, all(check.met for check in checks)) == ("green/1 in staging", True)
    assert [copy.source for copy in versions(uri, "green", "staging")] == ["models:/taxi-green/3"]
    with pytest.raises(Refused, match="is in staging already"):
        promote(uri, one, "staging", PARAMS, {}, "ada")


def test_an_approval_typed_again_is_one(uri):
    waiting = register(uri, "2023-04", awaits_approval="true")
    given = "dev", "05-compare.html", "ab" * 32

    for by in ("ada", "ada", "bob"):
        approve(uri, find_version(uri, f"green/{waiting}"), *given, by, PARAMS)

    assert [event.by for event in history(uri)[4:]] == ["ada", "bob"]


@pytest.mark.parametrize("step", [1, 2])
def test_a_monthly_move_killed_at_any_step_is_whole_after_the_next_months_run(uri, step):
    newer = register(uri, "2023-04")
    with pytest.MonkeyPatch.context() as patch:
        kill_at(patch, step, after=True)
        with pytest.raises(Killed):
            follow_tags(uri, "green", "green 2023-04 was run")

    follow_tags(uri, "green", "green 2023-04 was run")

    assert aliases(uri) == {"champion": newer, "challenger": 4}
    assert open_event(uri, "green") is None
    assert champions_served(history(uri)) == [1, 2, 3, newer]


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("step", range(1, 7))
def test_a_promotion_killed_at_any_step_is_whole_after_the_next_start_and_copies_once(uri, step, after):
    one = find_version(uri, "green/3")
    with pytest.MonkeyPatch.context() as patch:
        kill_at(patch, step, after)
        with pytest.raises(Killed):
            promote(uri, one, "staging", PARAMS, {}, "ada")

    settle(uri, "green", "staging")

    copies = versions(uri, "green", "staging")
    nothing_done = (step, after) == (1, False)
    assert [copy.source for copy in copies] == ([] if nothing_done else ["models:/taxi-green/3"])
    assert aliases(uri, "taxi-green-staging") == ({} if nothing_done else {"champion": 1})
    assert open_event(uri, "green", "staging") is None
    assert nothing_done or copies[0].tags["released_from"] == "green/3"


def test_a_move_to_a_version_that_was_deleted_meanwhile_is_undone(uri):
    with pytest.MonkeyPatch.context() as patch:
        kill_at(patch, 1, after=True)  # the alias is not moved yet
        with pytest.raises(Killed):
            roll_back(uri, "green", "ada", "bad")
    connect(uri).delete_model_version("taxi-green", "2")

    told = settle(uri, "green")

    assert "undid a move of taxi-green" in told
    assert aliases(uri) == {"champion": 3, "challenger": 4}
    assert champion_now(uri, "green").number == 3
    assert open_event(uri, "green") is None


def test_a_promotion_whose_source_was_deleted_meanwhile_is_undone(uri):
    with pytest.MonkeyPatch.context() as patch:
        kill_at(patch, 1, after=True)
        with pytest.raises(Killed):
            promote(uri, find_version(uri, "green/3"), "staging", PARAMS, {}, "ada")
    connect(uri).delete_registered_model_alias("taxi-green", "champion")
    connect(uri).delete_model_version("taxi-green", "3")

    told = settle(uri, "green", "staging")

    assert "undid" in told
    assert versions(uri, "green", "staging") == []
    assert open_event(uri, "green", "staging") is None


def test_a_registry_from_before_events_keeps_its_history_and_goes_on(uri):
    make_older(uri)
    assert settle(uri, "green") is None
    assert champions_served(history(uri)) == [1, 2, 3]

    roll_back(uri, "green", "ada", "bad")
    newer = register(uri, "2023-04")
    follow_tags(uri, "green", "green 2023-04 was run")

    assert champions_served(history(uri)) == [1, 2, 3, 2, newer]
    assert [event.by for event in history(uri)] == ["taxi run"] * 4 + ["ada", "taxi run"]


@pytest.mark.parametrize("done", range(4))
def test_a_rollback_that_an_older_taxi_was_killed_at_is_finished(uri, done):
    make_older(uri)
    client, note = connect(uri), json.loads(OLDER_ROLLBACK)["tags"]["3"]["rolled_back"][1]
    client.set_registered_model_tag("taxi-green", "journal", OLDER_ROLLBACK)
    steps = [
        lambda: client.set_model_version_tag("taxi-green", "3", "rolled_back", note),
        lambda: client.set_registered_model_alias("taxi-green", "champion", "2"),
        lambda: keep_older(uri, OLDER_ROLLBACK),
    ]
    for step in steps[:done]:
        step()
    assert champion_now(uri, "green").number == 2

    told = settle(uri, "green")

    assert "finished a move of taxi-green begun at 2023-05-09T08:00:00.033723Z by ada" in told
    assert aliases(uri) == {"champion": 2, "challenger": 4}
    assert find_version(uri, "green/3").tags["rolled_back"] == note
    assert champions_served(history(uri)) == [1, 2, 3, 2]
    assert settle(uri, "green") is open_event(uri, "green") is None


def test_a_rollback_of_an_older_taxi_to_a_version_that_is_gone_is_undone(uri):
    make_older(uri)
    client = connect(uri)
    client.set_registered_model_tag("taxi-green", "journal", OLDER_ROLLBACK)
    client.set_model_version_tag("taxi-green", "3", "rolled_back", "bad")
    client.delete_model_version("taxi-green", "2")

    assert "undid a move of taxi-green" in settle(uri, "green")

    assert champion_now(uri, "green").number == aliases(uri)["champion"] == 3
    assert open_event(uri, "green") is None


@pytest.mark.parametrize("copied", [False, True])
def test_an_entry_that_an_older_taxi_was_killed_at_is_finished(uri, copied):
    client = connect(uri)
    client.create_registered_model("taxi-green-staging")
    client.set_registered_model_tag("taxi-green-staging", "journal", OLDER_ENTRY)
    if copied:
        client.copy_model_version("models:/taxi-green/3", "taxi-green-staging")

    settle(uri, "green", "staging")

    (copy,) = versions(uri, "green", "staging")
    assert (copy.source, copy.tags["released_from"]) == ("models:/taxi-green/3", "green/3")
    assert aliases(uri, "taxi-green-staging") == {"champion": 1}
    assert open_event(uri, "green", "staging") is None


def test_an_alias_that_was_moved_by_hand_is_set_again_at_the_next_start(uri):
    connect(uri).set_registered_model_alias("taxi-green", "champion", "1")

    settle(uri, "green")

    assert aliases(uri) == {"champion": 3, "challenger": 4}


def test_the_champion_can_be_asked_for_without_a_write(uri, monkeypatch):
    with monkeypatch.context() as patch:
        kill_at(patch, 1, after=True)
        with pytest.raises(Killed):
            roll_back(uri, "green", "ada", "bad")
    kill_at(monkeypatch, 1, after=False)  # whatever is written now ends the process

    assert champion_now(uri, "green").number == champion_before(uri, "green", "2023-04").number == 2


def test_to_ask_a_registry_that_nobody_has_made_makes_nothing(tmp_path):
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"

    assert champion_now(uri, "green") is aliased_version(uri, "green", "champion") is None
    assert list(tmp_path.iterdir()) == []


def test_a_rollback_over_many_versions_fits_into_one_tag_of_any_database(uri):
    for number in range(40):
        register(uri, f"{2024 + number // 12}-{number % 12 + 1:02d}")

    roll_back(uri, "green", "ada", "bad " * 50, to=1)

    assert champion_now(uri, "green").number == 1
    assert all(len(text) < 5000 for text in connect(uri).get_registered_model("taxi-green").tags.values())


@pytest.mark.parametrize("tag", ["event.000009", "journal"])
def test_an_event_that_cannot_be_read_is_an_error_and_moves_nothing(uri, tag):
    connect(uri).set_registered_model_tag("taxi-green", tag, "{}nonsense")

    with pytest.raises(TaxiError, match="expected an event of the registry"):
        roll_back(uri, "green", "ada", "bad")
    assert aliases(uri)["champion"] == 3


def test_a_winner_that_awaits_approval_is_not_champion_until_a_person_has_read_its_report(uri):
    waiting = register(uri, "2023-04", awaits_approval="dev")
    follow_tags(uri, "green", "green 2023-04 was run")
    assert aliases(uri)["champion"] == 3

    approve(uri, find_version(uri, f"green/{waiting}"), "dev", "05-compare.html", "ab" * 32, "ada", PARAMS)

    assert aliases(uri)["champion"] == waiting
    note = json.loads(find_version(uri, f"green/{waiting}").tags["approved.dev"])
    assert (note["by"], note["report"], note["sha256"]) == ("ada", "05-compare.html", "ab" * 32)
    assert history(uri)[-1].why == f"green/{waiting} was approved for dev"


def test_an_approval_on_another_report_is_refused(uri):
    waiting = register(uri, "2023-04", awaits_approval="dev")

    with pytest.raises(Refused, match=r"x\.html is no report of green/5; its reports are 05-compare\.html"):
        approve(uri, find_version(uri, f"green/{waiting}"), "dev", "x.html", "cd" * 32, "ada", PARAMS)


def test_an_approval_that_nobody_asks_for_is_wrong_usage(uri):
    with pytest.raises(UsageError, match="asks for no approval in prod"):
        approve(uri, find_version(uri, "green/3"), "prod", "05-compare.html", "ab" * 32, "ada", PARAMS)


def test_an_event_reads_back_as_it_was_written():
    event = Event(
        "2023", "ada", "why", {"champion": [None, "2"]}, {"2": {"rolled_back": [None, "x"]}}, "models:/taxi-green/4"
    )

    assert read_event(write_event(event)) == event


def test_nothing_to_change_is_no_event(uri):
    there = versions(uri, "green")

    assert plan_event(there, {"champion": "3", "challenger": "4"}, "ada", "why") is None


def test_the_target_is_the_one_that_served_before_not_the_newest(uri):
    there = versions(uri, "green")
    history = [Event("1", "", "", {"champion": [None, "2"]}), Event("2", "", "", {"champion": ["2", "1"]})]
    history.append(Event("3", "", "", {"champion": ["1", "3"]}))

    target = choose_target(there, history)

    assert target.number == 1
    assert set(rollback_tags(there, target, "now", "ada", "bad")) == {"2,3"}


DRILL = """
import os, shutil, signal, sys
from pathlib import Path
import tests.support.aliased as t
from taxi.registry.aliases import open_event, roll_back, settle
from taxi.registry.mlflow_client import Client
from taxi.registry.versions import champion_now

def kill(step):
    done = [0]
    def wrap(real):
        def call(*args, **kwargs):
            answer = real(*args, **kwargs)
            done[0] += 1
            if done[0] == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return answer
        return call
    for name in t.STEPS:
        setattr(Client, name, wrap(getattr(Client, name)))

def in_child(work):
    child = os.fork()  # this process never opens the database itself
    if child == 0:
        work()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

def settled(place):
    for step in range(1, 3):
        uri = f"sqlite:///{place / str(step) / 'mlflow.db'}"
        assert "finished" in settle(uri, "green")
        assert t.aliases(uri) == {"champion": 2, "challenger": 4}, t.aliases(uri)
        assert champion_now(uri, "green").number == 2 and open_event(uri, "green") is None
        print("whole after step", step, flush=True)

for step in range(1, 3):
    place = Path(sys.argv[2]) / str(step)
    place.mkdir()
    for name in ("mlflow.db", ".mlflow.db.ready"):
        shutil.copyfile(Path(sys.argv[1]) / name, place / name)
    uri = f"sqlite:///{place / 'mlflow.db'}"
    ended = in_child(lambda: (kill(step), roll_back(uri, "green", "ada", "bad")))
    assert ended == -signal.SIGKILL, ended
assert in_child(lambda: settled(Path(sys.argv[2]))) == 0
"""


@pytest.mark.slow
def test_kill_9_between_any_two_steps_leaves_what_the_next_process_makes_whole(filled, tmp_path):
    command = [sys.executable, "-c", DRILL, str(filled), str(tmp_path)]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False, env={**os.environ})

    assert done.returncode == 0, done.stderr
    assert done.stdout.count("whole after step") == 2
