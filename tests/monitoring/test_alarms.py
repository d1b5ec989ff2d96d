"""Alarms reach real receivers once; a dead channel holds up nothing and becomes an alarm; addresses stay secret."""

import json
import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pipelines.cli import app
from taxi.config import Settings
from taxi.monitoring.alarm_book import list_standing, read_book, tell
from taxi.monitoring.alarm_rules import Alarm
from taxi.monitoring.alarms import check_month, check_service
from taxi.params import Params, load_params
from taxi.runs.month_result import MonthResult, write_result
from tests.support.month_results import make_result
from tests.support.receivers import closed_port, mail_sink, silent, webhook

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)
TOKEN = "canary-5f2c81"
VARIABLE = "TAXI_ALARM_CHANNELS"
ERROR = Alarm("rmse", "error", "RMSE 9.10 minutes", "2023-03", report="reports/green/2023-03/03-monitor.html")
Json = dict[str, Any]


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("TAXI_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("TAXI_REPORTS", str(tmp_path / "reports"))
    monkeypatch.delenv(VARIABLE, raising=False)
    return Settings(tmp_path, "none", tmp_path / "data", tmp_path / "reports", f"sqlite:///{tmp_path / 'mlflow.db'}")


@pytest.fixture
def channels(monkeypatch: pytest.MonkeyPatch):
    """Set the channels' addresses."""
    return lambda *addresses: monkeypatch.setenv(VARIABLE, "\n".join(addresses))


def limited(seconds: float) -> Params:
    params = load_params()
    return params.model_copy(update={"alarms": params.alarms.model_copy(update={"channel_seconds": seconds})})


def raise_error(settings: Settings, params: Params | None = None) -> Json:
    return tell(settings, params or load_params(), "green", {"rmse": ERROR}, "2023-03", NOON)


def recover(settings: Settings) -> Json:
    return tell(settings, load_params(), "green", {"rmse": None}, "2023-04", NOON)


def log_lines(settings: Settings) -> list[Json]:
    return [json.loads(line) for line in settings.alarm_log.read_text(encoding="utf-8").splitlines()]


def mail_to(port: int) -> str:
    return f"mailto://taxi:{TOKEN}@127.0.0.1:{port}/?smtp=127.0.0.1&from=taxi@example.org&to=ops@example.org"


def test_without_a_channel_or_a_server_the_local_file_has_all_and_nothing_waits(settings, monkeypatch):
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    raise_error(settings)

    assert read_book(settings.alarm_book)["waiting"] == []
    (line,) = log_lines(settings)
    assert {name: line[name] for name in ("kind", "service", "rule", "severity", "month")} == {
        "kind": "raised",
        "service": "green",
        "rule": "rmse",
        "severity": "error",
        "month": "2023-03",
    }
    assert line["report"].endswith("03-monitor.html") and line["runbook"] == "docs/runbook.md#rmse" and line["act"]


@pytest.mark.slow
def test_webhook_and_mail_get_each_alarm_and_its_recovery_once_over_three_reruns(settings, channels):
    with webhook() as hook, mail_sink() as mail:
        channels(f"json://127.0.0.1:{hook.port}/{TOKEN}", mail_to(mail.port))
        for _ in range(3):
            raise_error(settings)
        for _ in range(3):
            recover(settings)

        titles = ["[error] green 2023-03: rmse", "[recovered] green 2023-04: rmse"]
        assert [one["title"] for one in hook.got] == titles
        assert [one["Subject"] for one in mail.got] == titles
        assert "docs/runbook.md#rmse" in hook.got[0]["message"]
        assert "RMSE 9.10 minutes" in mail.got[0].get_payload(0).get_payload(decode=True).decode()
    assert len(log_lines(settings)) == 2


@pytest.mark.parametrize("dead", ["closed", "silent", "refusing", "unreadable"])
def test_a_dead_channel_holds_up_no_other_and_is_itself_an_alarm_told_to_the_others(settings, channels, dead):
    with webhook() as hook, silent() as mute, webhook(500) as broken:
        ports = {"closed": closed_port(), "silent": mute.port, "refusing": broken.port}
        address = f"json://127.0.0.1:{ports[dead]}/{TOKEN}" if dead in ports else f"nothing-{TOKEN}"
        channels(address, f"json://127.0.0.1:{hook.port}/")

        came = raise_error(settings, limited(1.5))

        name = "1-json" if dead in ports else "1-unreadable"
        titles = [one["title"] for one in hook.got]
    assert titles == ["[error] green 2023-03: rmse", f"[error] alarms {name}: channel-dead"]
    assert [one["fault"] is None for one in came["channels"]] == [False, True, True]
    assert [one["rule"] for one in list_standing(settings, "green")] == ["channel-dead", "rmse"]


def test_what_a_dead_channel_missed_reaches_it_once_when_it_is_mended(settings, channels):
    channels(f"json://127.0.0.1:{closed_port()}/")
    raise_error(settings, limited(3))

    with webhook() as hook:
        channels(f"json://127.0.0.1:{hook.port}/")
        for _ in range(3):
            raise_error(settings)

        titles = [one["title"] for one in hook.got]
    assert titles == ["[error] green 2023-03: rmse", "[recovered] alarms 1-json: channel-dead"]


def test_a_channel_that_was_taken_away_is_no_longer_dead(settings, channels):
    channels(f"json://127.0.0.1:{closed_port()}/")
    raise_error(settings, limited(3))

    channels("")
    raise_error(settings)

    assert [one["rule"] for one in list_standing(settings)] == ["rmse"]


def test_addresses_are_in_no_file_no_log_and_no_result(settings, channels, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    with webhook(500) as broken:
        channels(f"json://user:{TOKEN}@127.0.0.1:{broken.port}/{TOKEN}", mail_to(closed_port()), f"what-{TOKEN}")

        came = raise_error(settings, limited(3))

    assert [bool(one["fault"]) for one in came["channels"]] == [True, True, True]
    files = [path for path in settings.root.rglob("*") if path.is_file()]
    assert {"alarms.json", "alarms.jsonl"} <= {path.name for path in files}
    assert [path for path in files if TOKEN in path.read_text(encoding="utf-8")] == []
    assert TOKEN not in json.dumps(came) + caplog.text + "".join(capfd.readouterr())


def keep(settings: Settings, result: MonthResult) -> None:
    write_result(settings, result)


def test_a_month_checked_three_times_is_told_once_and_a_gap_of_unchecked_months_is_an_alarm(settings):
    keep(settings, make_result("2023-01"))
    check_month(settings, load_params(), "green", "2023-01", NOON)
    keep(settings, make_result("2023-02"))
    keep(settings, make_result("2023-03", alarms=["rmse"]))

    came = [check_month(settings, load_params(), "green", "2023-03", NOON) for _ in range(3)]

    told = [sorted((one["kind"], one["rule"]) for one in each["told"]) for each in came]
    assert told[0] == [("raised", "check-did-not-run"), ("raised", "rmse")]
    assert told[1:] == [[("recovered", "check-did-not-run")], []]


def test_a_service_is_asked_for_overdue_months_and_for_its_live_check(settings):
    keep(settings, make_result("2023-03"))
    settings.server("green").mkdir(parents=True)

    came = check_service(settings, load_params(), "green", NOON)

    assert {one["rule"]: one["severity"] for one in came["told"]} == {
        "month-overdue": "error",
        "check-did-not-run": "error",
    }
    assert "never" in came["standing"][0]["said"]


def run(*words: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, list(words))
    return done.exit_code, done.output


def test_the_fire_drill_names_each_channel_and_fails_if_one_did(settings, channels):
    with webhook() as hook, mail_sink() as mail:
        channels(f"json://127.0.0.1:{hook.port}/{TOKEN}", mail_to(mail.port))
        assert run("alarms", "drill")[0] == 0
        channels(f"json://127.0.0.1:{hook.port}/{TOKEN}", mail_to(closed_port()))

        code, said = run("alarms", "drill", "--json")

        titles = [one["title"] for one in hook.got]
    assert code == 1
    assert [(one["channel"], bool(one["fault"])) for one in json.loads(said.splitlines()[-1])["channels"]] == [
        ("1-json", False),
        ("2-mailto", True),
    ]
    assert titles == ["[drill] taxi: drill"] * 2
    assert [one["Subject"] for one in mail.got] == ["[drill] taxi: drill"]
    assert TOKEN not in said and list_standing(settings) == []


def test_the_commands_say_what_stands(settings):
    keep(settings, make_result("2023-03", alarms=["coverage"]))

    code, said = run("alarms", "check", "--service", "green", "--month", "2023-03", "--json")
    listed = run("alarms", "list")[1]

    assert code == 0
    assert [one["rule"] for one in json.loads(said.splitlines()[-1])["told"]] == ["coverage"]
    assert "warning  coverage            green 2023-03: said of coverage" in listed


def test_addresses_may_lie_in_a_file(settings, channels, monkeypatch, tmp_path):
    with webhook() as hook:
        (tmp_path / "secret").write_text(f"json://127.0.0.1:{hook.port}/\n")
        monkeypatch.setenv(f"{VARIABLE}_FILE", str(tmp_path / "secret"))

        raise_error(settings)

        assert len(hook.got) == 1


def test_a_live_check_that_stopped_is_told_by_the_next_check_of_months(settings):
    params = load_params()
    tell(settings, params, "green", {}, None, NOON, {"green": NOON.isoformat()})

    late = check_service(settings, params, "green", NOON + timedelta(hours=3))

    assert [(one["rule"], one["part"]) for one in late["told"]] == [("check-did-not-run", "live")]
