"""Months played again under each policy: the month's own code, nothing computed twice, nothing lost to a kill."""

import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as parquet
import pytest

from pipelines.cli import main
from taxi.config import Settings
from taxi.data.synthetic import write_sample
from taxi.errors import TaxiError, UsageError
from taxi.experiments.backtest import Asked, gather_months, play
from taxi.experiments.backtest_tables import Standings, read_backtest, served_by, summarise, to_table
from taxi.files import STAGING_MARK, read_json
from taxi.fingerprint import Shelf, code_of, modules_of
from taxi.params import load_params, override, parse_overrides
from taxi.processes import FORKING
from taxi.training.policy import TrainingDecision, replay
from tests.support.state_table import unnamed
from tests.support.worlds import fork_what_more_is_forked_from

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
MONTHS = ["2024-01", "2024-02", "2024-04", "2024-05"]  # 2024-03 is missing, and with it 2024-04's whole window
TINY = {
    "model.window_months": 1,
    "model.rounds": 8,
    "model.max_depth": 3,
    "model.head_rounds": 4,
    "model.head_max_depth": 3,
    "model.interval_rounds": 4,
    "model.interval_max_depth": 3,
    "model.trips_per_round": 100,
    "model.planned": False,
    "promote.resamples": 200,
    "monitor.sample_rows": 1000,
}
ASKED = Asked("green", MONTHS[0], MONTHS[-1], overrides=TINY)


def places(folder: Path) -> Settings:
    return Settings(ROOT, "", folder / "data", folder / "reports", "")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source")
    write_sample(folder, "green", MONTHS, rows=1500)
    return folder


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return places(tmp_path_factory.mktemp("backtest"))


@pytest.fixture(scope="module")
def played(settings: Settings, source: Path) -> dict[str, Any]:
    return play(settings, ASKED, load_params(), source=str(source))


def fresh(settings: Settings, folder: Path) -> Settings:
    """Return other places, with the months on hand and nothing played yet."""
    shutil.copytree(settings.data, folder / "data", ignore=shutil.ignore_patterns("backtest"))
    return places(folder)


def outcome(result: dict[str, Any]) -> list[dict[str, Any]]:
    """Return all months' results but the seconds that their fits took."""
    return [{name: value for name, value in one.items() if name != "fit_seconds"} for one in result["months"]]


def under(result: dict[str, Any], policy: str) -> list[dict[str, Any]]:
    return [one for one in result["months"] if one["policy"] == policy]


def test_every_policy_meets_every_month_and_decides_for_itself(played: dict[str, Any], settings: Settings) -> None:
    assert [[one["month"] for one in under(played, policy)] for policy in ASKED.policies] == [MONTHS] * 3
    assert [one["trained"] for one in under(played, "always")] == [True] * 4
    assert [one["trained"] for one in under(played, "never")] == [True, False, False, False]
    assert {one["champion"]["version"] for one in under(played, "never")[1:]} == {2}
    assert all(one["champion"] is None for one in played["months"] if one["month"] == MONTHS[0])
    assert read_backtest(settings, "green") == played
    assert unnamed(settings.data) == []


def test_every_decision_can_be_replayed_from_what_was_recorded(played: dict[str, Any]) -> None:
    for one in played["months"]:
        assert replay(TrainingDecision.of(one["decision"])).as_dict() == one["decision"]


def test_no_champion_has_seen_its_month(played: dict[str, Any]) -> None:
    assert all(one["trained_to"] < one["month"] for one in played["months"] if one["champion"])


def test_a_gap_is_listed_and_the_month_behind_it_says_what_it_is_compared_with(played: dict[str, Any]) -> None:
    behind = under(played, "always")[2]

    assert played["missing"] == ["2024-03"]
    assert behind["compared_with"] == "2024-02"
    assert next(line for line in behind["alarm_reasons"] if line.startswith("volume")).endswith(
        "compared with 2024-02, the newest month before it: 2024-03 is not on hand"
    )
    assert not under(played, "always")[3]["gap"]
    assert "2024-04 is compared with 2024-02" in Standings(played).note


def test_policies_share_every_fit_and_a_retraining_after_a_promotion_is_the_same_fit(
    played: dict[str, Any], settings: Settings
) -> None:
    kept = list((settings.data / "backtest/green/fits").glob("*.json"))
    wanted = {"holdout of 01", "01", "02", "holdout of 04", "04", "05"}

    assert len(kept) <= len(wanted)
    assert sum(one["fits"] for one in played["months"]) > len(kept)


def test_a_finished_backtest_computes_nothing_again(played: dict[str, Any], settings: Settings) -> None:
    before = {path: path.stat().st_mtime_ns for path in (settings.data / "backtest/green").glob("[fwj]*/*.json")}

    again = play(settings, ASKED, load_params())

    assert again == played
    assert {
        path: path.stat().st_mtime_ns for path in (settings.data / "backtest/green").glob("[fwj]*/*.json")
    } == before


def _play_in(folder: Path, jobs: int) -> None:
    fork_what_more_is_forked_from(at_once=True)
    play(places(folder), ASKED, load_params(), jobs)


def test_kill_9_leaves_no_process_and_the_next_call_goes_on_with_other_jobs(
    played: dict[str, Any], settings: Settings, tmp_path: Path
) -> None:
    again = fresh(settings, tmp_path)
    process = FORKING.Process(target=_play_in, args=(tmp_path, 2))
    process.start()
    fits = tmp_path / "data/backtest/green/fits"
    while not list(fits.glob("*.json")) and process.is_alive():
        time.sleep(0.02)
    workers = psutil.Process(process.pid).children(recursive=True)
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join()
    gone, alive = psutil.wait_procs(workers, 60)
    had = {path: path.stat().st_ino for path in fits.glob("*.json")}

    result = play(again, ASKED, load_params(), jobs=2)

    assert gone and not alive
    assert had and had.items() <= {path: path.stat().st_ino for path in fits.glob("*.json")}.items()
    assert outcome(result) == outcome(played)
    assert not list((tmp_path / "data/backtest").rglob(f"*{STAGING_MARK}*"))


def test_a_source_is_asked_for_the_window_before_the_first_month_too(source: Path, tmp_path: Path) -> None:
    params, asked = override(load_params(), TINY | {"model.window_months": 2}), Asked("green", "2024-04", "2024-05")

    found = gather_months(places(tmp_path), asked, params, str(source))

    assert (found.played, found.missing) == (["2024-04", "2024-05"], [])  # 2024-03, which nobody has, was not asked for
    assert places(tmp_path).months_on_hand("green") == ["2024-02", "2024-04", "2024-05"]


def test_a_refused_month_is_said_and_nothing_learns_from_it(source: Path, tmp_path: Path) -> None:
    shutil.copytree(source, tmp_path / "source")
    next((tmp_path / "source").rglob("green_tripdata_2024-02.parquet")).write_bytes(b"no Parquet")
    asked = Asked("green", "2024-01", "2024-04", ("always",), TINY)

    result = play(places(tmp_path), asked, load_params(), source=str(tmp_path / "source"))

    assert list(result["refused"]) == ["2024-02"]
    assert [one["month"] for one in result["months"]] == ["2024-01", "2024-04"]
    assert "2024-02" not in json.dumps(result["months"][1]["decision"])
    assert result["months"][1]["compared_with"] == "2024-01"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--from", "2024-05", "--to", "2024-01"], 2, "expected the first month to be no later than the last"),
        (["--from", "2024-01", "--to", "2024-05", "--policy", "auto,often"], 2, "out of auto, never, always; got"),
        (["--from", "2024-01", "--to", "2024-05", "-p", "clean.min_minutes=2"], 2, "section one of features, model"),
        (["--from", "2024-01", "--to", "2024-05", "-p", "model.rounds=many"], 2, "model.rounds"),
        (["--from", "2019-01", "--to", "2024-05"], 3, "2019-01 not on hand: name months that are"),
    ],
)
def test_what_cannot_be_played_is_explained(
    words: list[str],
    code: int,
    said: str,
    played: dict[str, Any],
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("pipelines.runtime.prepare_process", lambda _: None)  # it changes this process's environment
    monkeypatch.setenv("TAXI_DATA", str(settings.data))
    monkeypatch.setenv("TAXI_REPORTS", str(settings.reports))
    monkeypatch.delenv("TAXI_SOURCE", raising=False)
    monkeypatch.setattr(sys, "argv", ["taxi", "backtest", "--service", "green", *words])

    with pytest.raises(SystemExit) as ended:
        main()

    assert ended.value.code == code
    assert said in capsys.readouterr().err


def test_without_a_backtest_one_is_told_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(TaxiError, match="run `taxi backtest --service green"):
        read_backtest(places(tmp_path), "green")


def test_a_shelf_makes_each_result_once_and_another_for_other_inputs(tmp_path: Path) -> None:
    shelf, made = Shelf(tmp_path), []

    def make(place: Path) -> dict[str, Any]:
        made.append(place)
        return {"number": len(made)}

    first, again, other = (shelf.take("fits", {"seed": seed}, make) for seed in (1, 1, 2))

    assert (first, again, other) == ({"number": 1}, {"number": 1}, {"number": 2})
    assert read_json(made[0].with_suffix(".json"))["made_from"] == {"seed": 1}
    made[0].with_suffix(".json").write_text('{"made_from": {"seed"')
    assert shelf.take("fits", {"seed": 1}, make) == {"number": 3}


def test_the_code_behind_a_fit_is_what_fitting_imports_and_no_more() -> None:
    assert {
        "taxi.models.fitting",
        "taxi.models.boosted",
        "taxi.features.trip_features",
        "taxi.features.history",
    } <= set(modules_of("taxi.models.fitting"))
    assert not {"taxi.serving.app", "taxi.monitoring.monitor", "taxi.reporting.plots"} & set(
        modules_of("taxi.models.fitting")
    )
    assert code_of("taxi.monitoring.monitor") != code_of("taxi.models.fitting")


def test_overrides_are_typed_and_checked_as_the_file_is() -> None:
    values = parse_overrides(["model.rounds=60", "retrain.on_alarm=[rmse]"], ("model", "retrain"))

    changed = override(load_params(), values)

    assert (changed.model.rounds, changed.retrain.on_alarm) == (60, ["rmse"])
    with pytest.raises(UsageError, match="unknown_entry"):
        override(load_params(), {"model.unknown_entry": 1})


def month(policy: str, name: str, mae: float | None, **more: Any) -> dict[str, Any]:
    scores = None if mae is None else {"rmse": 2 * mae, "mae": mae, "coverage80": 0.8}
    champion = scores and {"version": more.pop("version", 2), "metrics": scores}
    empty = dict.fromkeys(("compared_with", "trained_to", "age", "gain", "winner"))
    result: dict[str, Any] = {
        "findings": [],
        "trained": False,
        "promoted": False,
        "alarms": [],
        "fits": 0,
        "fitted_trips": 0,
        "fit_seconds": 0.0,
    }
    decision = {"trigger": "none", "reason": "no alarm"}
    told = {"service": "green", "policy": policy, "month": name, "trips": 100, "verdict": "calm", "reason": "none"}
    return told | empty | result | {"champion": champion, "decision": decision} | more


def test_policies_are_compared_by_months_in_which_each_had_a_champion() -> None:
    trained = {"trained": True, "promoted": True, "fits": 2, "fitted_trips": 300, "fit_seconds": 1.5}
    rows = [
        month("always", "2024-01", None, winner=2, **trained),
        month("always", "2024-02", 4.0, winner=4, gain=0.01, **trained),
        month("always", "2024-03", 3.0, version=4),
        month("never", "2024-01", None, winner=2, **trained),
        month("never", "2024-02", 4.0),
        month("never", "2024-03", 3.5),
        month("never", "2024-04", 9.0, findings=[{"rule": "error", "severity": "error"}]),
    ]

    summary, retrainings = summarise(to_table(rows)), served_by(to_table(rows), "always")

    assert summary["mae"].to_dict() == {"always": 3.5, "never": 3.75}
    assert summary["retrains"].to_dict() == {"always": 2, "never": 1}
    assert summary["fit_seconds"].to_dict() == {"always": 3.0, "never": 1.5}
    assert summary["errors"].to_dict() == {"always": 0, "never": 1}
    assert retrainings["bought"].tolist() == [0.0, 0.5]
    assert retrainings["months served"].tolist() == [1, 1]


def test_the_table_and_the_standings_hold_every_month(played: dict[str, Any], tmp_path: Path) -> None:
    stood = Standings(played, seconds=False)
    stood.table.to_parquet(tmp_path / "table.parquet", index=False)

    assert parquet.read_table(tmp_path / "table.parquet").num_rows == 12
    assert "fit_seconds" not in stood.table and "fit_seconds" not in stood.summary
    assert "fit_seconds" in Standings(played).table
    assert any(line.startswith("`auto` against `always`, over 3 months") for line in stood.answers)
    assert json.dumps(stood.result, allow_nan=False)
