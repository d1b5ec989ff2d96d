"""The command line, as a user meets it: whole runs on small sample months, in processes of their own."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from taxi.config import NOTEBOOKS
from taxi.data.synthetic import write_sample
from taxi.files import read_json, sha256_file
from taxi.registry.versions import versions
from taxi.training.policy import TrainingDecision, replay
from tests.support.automation import SMALL, make_checkout
from tests.support.campaign import only_in_campaign
from tests.support.prefect_server import flow_runs
from tests.support.state_table import unnamed
from tests.support.worlds import World

MONTHS = ["2025-07", "2025-08", "2025-09"]  # of no other test: all share a Prefect server
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, prefect: str) -> World:
    checkout = make_checkout(tmp_path_factory.mktemp("small") / "checkout", {"model": SMALL})
    made = World(tmp_path_factory.mktemp("world"), {"PREFECT_API_URL": prefect}, checkout)
    write_sample(made.place / "source", "green", MONTHS, rows=3000, shift_month=MONTHS[-1])
    return made


@pytest.fixture(scope="module")
def results(world: World) -> list[dict[str, Any]]:
    """What a backfill of all months says."""
    words = ("backfill", "--service", "green", "--from", MONTHS[0], "--to", MONTHS[-1], "--no-version")
    code, answer = world.answer(*words)
    assert code == 0
    assert answer["service"] == "green"
    return list(answer["months"])


@pytest.fixture
def copy(world: World, results: list[dict[str, Any]], tmp_path: Path) -> World:
    """The world after the backfill, its registry included, to be changed by one test."""
    for name in ("source", "data", "reports", "mlartifacts"):
        shutil.copytree(world.place / name, tmp_path / name)
    for name in ("mlflow.db", ".mlflow.db.ready"):  # by which the package sees that it was moved
        shutil.copyfile(world.place / name, tmp_path / name)
    for side in (tmp_path / "data" / "raw" / "green").glob("*.json"):
        side.write_text(side.read_text().replace(str(world.place), str(tmp_path)))
    return World(tmp_path, world.more, world.root)


@pytest.fixture
def lean(copy: World, tmp_path: Path) -> World:
    """The same, with notebooks that draw nothing from now on."""
    return replace(copy, root=make_checkout(tmp_path / "lean", {"model": SMALL}, lean=True))


def test_a_backfill_runs_every_month_and_keeps_the_contract(world: World, results: list[dict[str, Any]]) -> None:
    for result, month in zip(results, MONTHS, strict=True):
        rows = result["rows"]
        assert (result["service"], result["month"], result["status"]) == ("green", month, "done")
        assert rows["raw"] == rows["kept"] + rows["quarantined"]
        assert rows["quarantined"] == sum(rows["reasons"].values())
        assert result["verdict"] == ("first" if month == MONTHS[0] else result["verdict"]) in ("first", "calm", "alarm")
        done = NOTEBOOKS if result["trained"] else NOTEBOOKS[:3]
        assert {Path(page).stem for page in result["reports"]} == set(done)
        assert {"fetch", "clean", *done, "register"} <= set(result["seconds"])
        assert replay(TrainingDecision.of(result["decision"])).as_dict() == result["decision"]
    assert [one["decision"]["trigger"] for one in results] == ["first", "none", "alarm"]
    assert [one["alarm_check"]["failed"] for one in results] == [None] * 3
    assert unnamed(world.place / "data") == []
    assert "rmse" in {told["rule"] for told in results[2]["alarm_check"]["told"] if told["kind"] == "raised"}
    for result in (results[0], results[2]):
        assert set(result["challenger"]["metrics"]) >= {"rmse", "mae", "medae", "p90", "coverage80", "n"}
    assert results[0]["champion"] is None
    assert results[0]["promoted"] is True
    assert results[1]["champion"]["version"] == results[0]["winner"]


def test_reports_need_no_network_and_say_that_trips_are_synthetic(world: World, results: list[dict[str, Any]]) -> None:
    pages = sorted((world.place / "reports").rglob("*.html"))

    assert len(pages) == 2 + 3 * (len(NOTEBOOKS) + 1) - 2  # the second month trained nothing
    for page in pages:
        text = page.read_text(encoding="utf-8")
        outside = re.findall(r"<(?:script|link|img|iframe)[^>]+(?:src|href)=[\"']?https?:", text)
        assert not outside, (page, outside[:3])
        assert page.stat().st_size < 5_000_000, page
        if page.stem != "03-monitor-evidently":
            assert "Synthetic trips" in text, page


def test_a_finished_month_does_no_work_and_says_so(world: World, results: list[dict[str, Any]]) -> None:
    page = world.place / "reports/green/2025-09/04-train.html"
    before = page.stat().st_mtime_ns

    code, again = world.month("2025-09")

    assert code == 0
    assert again["finished_before"] is True
    assert again["alarm_check"]["told"] == []
    assert again["champion"] == results[-1]["champion"]
    assert page.stat().st_mtime_ns == before


def test_a_finished_month_publishes_what_is_missing_again_without_a_flow_run(copy: World, prefect: str) -> None:
    missing = [copy.place / name for name in ("reports/index.html", "reports/live.html", "data/metrics.db")]
    for path in missing:
        path.unlink()
    before = flow_runs(prefect, "green-2025")

    code, again = copy.month("2025-08")
    months = copy.answer("backfill", "--service", "green", "--from", "2025-07", "--to", "2025-09", "--no-version")[1]

    assert (code, again["finished_before"], again["alarm_check"]["failed"]) == (0, True, None)
    assert [one["finished_before"] for one in months["months"]] == [True] * 3
    assert [path for path in missing if not path.is_file()] == []
    assert before and flow_runs(prefect, "green-2025") == before


def test_another_installation_on_the_same_registry_takes_a_month_up_and_trains_nothing(
    world: World, results: list[dict[str, Any]], tmp_path: Path
) -> None:
    shared = {name: world.environment[name] for name in ("MLFLOW_TRACKING_URI", "TAXI_SOURCE")}
    other, uri = World(tmp_path, world.more | shared, world.root), world.environment["MLFLOW_TRACKING_URI"]
    before = len(versions(uri, "green"))

    code, answer = other.month(MONTHS[0])

    assert code == 0
    assert set(answer["seconds"]) == {"fetch", "clean", "plan", "publish"}
    apart = {"reports", "seconds", "alarm_check", "edition"}
    assert {name: answer[name] for name in set(answer) - apart} == {
        name: results[0][name] for name in set(answer) - apart
    }
    assert [page for page in answer["reports"] if not Path(page).is_file()] == []
    assert str(tmp_path) in answer["reports"][0]
    assert len(versions(uri, "green")) == before
    assert other.month(MONTHS[0])[1]["finished_before"] is True


def test_a_month_that_is_not_published_is_code_3(world: World) -> None:
    code, answer = world.month("2025-12")

    assert (code, answer["status"]) == (3, "not-published")
    assert answer["champion"] is None


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "--service", "blue", "--month", "2025-07"], "expected a service, one of green, yellow; got 'blue'"),
        (["run", "--service", "green", "--month", "2025-13"], "expected a month"),
        (["run", "--service", "green", "--month", "2025-07", "--source", "nowhere"], "expected a source as https"),
        (["backfill", "--service", "green", "--from", "2025-09", "--to", "2025-07"], "2025-09"),
        (["notebook", "06-none", "--service", "green", "--month", "2025-07"], "there are 01-explore, 02-features"),
        (
            ["notebook", "01-explore", "--service", "green", "--month", "2025-07", "-p", "colour='red'"],
            "01-explore has no parameter 'colour'; there are month, service",
        ),
        (["lineage", "green/999"], "999"),
    ],
)
def test_wrong_usage_is_code_2_and_says_what_there_is(
    words: list[str], said: str, world: World, results: list[dict[str, Any]]
) -> None:
    done = world.taxi(*words)

    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_place_that_cannot_be_written_is_one_explained_line(copy: World) -> None:
    (copy.place / "a-file").touch()
    blocked = World(copy.place, copy.more | {"TAXI_DATA": str(copy.place / "a-file")}, copy.root)

    done = blocked.taxi("ingest", "--service", "green", "--month", "2025-07")

    assert done.returncode == 1
    assert "a-file/raw/green: Not a directory" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_a_refused_month_is_code_4_and_leaves_evidence_and_the_champion(copy: World) -> None:
    broken = copy.place / "source/trip-data/green_tripdata_2025-10.parquet"
    broken.write_bytes((copy.place / "source/trip-data/green_tripdata_2025-09.parquet").read_bytes()[:-300])

    code, answer = copy.month("2025-10")

    assert (code, answer["status"], answer["promoted"]) == (4, "refused", False)
    assert answer["findings"][0]["rule"] == "truncated"
    assert (answer["decision"]["trigger"], answer["decision"]["facts"]["quality"]) == ("held", ["truncated"])
    told = [(one["rule"], one["severity"], one["month"]) for one in answer["alarm_check"]["told"]]
    assert told == [("data-quality", "error", "2025-10")]
    assert "truncated" in Path(answer["reports"][0]).read_text(encoding="utf-8")
    assert not (copy.place / "data/trips/green/2025-10.parquet").exists()


def test_a_check_of_alarms_that_fails_is_said_and_fails_no_month(copy: World) -> None:
    (copy.place / "data/alarms.json").write_text("{", encoding="utf-8")

    code, answer = copy.month("2025-09")

    assert (code, answer["status"]) == (0, "done")
    assert "expected the alarm book" in answer["alarm_check"]["failed"]


def test_the_file_of_another_month_is_refused(copy: World) -> None:
    shutil.copy(
        copy.place / "source/trip-data/green_tripdata_2025-07.parquet",
        copy.place / "source/trip-data/green_tripdata_2025-10.parquet",
    )

    code, answer = copy.month("2025-10")

    assert (code, answer["status"]) == (4, "refused")


def test_a_republished_month_is_fetched_and_rebuilt(lean: World, results: list[dict[str, Any]]) -> None:
    write_sample(lean.place / "source", "green", ["2025-08"], rows=3300)
    old = sha256_file(lean.place / "data/raw/green/2025-08.parquet")

    code, answer = lean.month("2025-08")

    assert (code, answer["edition"]) == (0, "republished")
    assert answer["rows"]["raw"] != results[1]["rows"]["raw"]
    assert read_json(lean.place / "data/raw/green/2025-08.json")["previous"][0]["sha256"] == old


def test_lineage_leads_to_the_raw_bytes(world: World, results: list[dict[str, Any]]) -> None:
    done = world.taxi("lineage", "green/champion", "--json")

    trail = json.dumps(json.loads(done.stdout))

    assert sha256_file(world.place / "data/raw/green/2025-07.parquet") in trail


def test_status_shows_months_and_champion(world: World, results: list[dict[str, Any]]) -> None:
    done = world.taxi("status", "--service", "green")

    assert "3 months on hand, 2025-07 to 2025-09; champion green/" in done.stdout


def test_a_backtest_says_of_each_month_what_its_run_said(copy: World, results: list[dict[str, Any]]) -> None:
    ends = ("--from", MONTHS[0], "--to", MONTHS[-1])

    code, answer = copy.answer("backtest", "--service", "green", *ends, "--policy", "auto")

    same = ["rows", "champion", "challenger", "winner", "verdict", "alarms", "alarm_reasons", "decision", "window"]
    same += ["trained", "trained_because", "promoted", "reason"]
    assert code == 0
    assert [{name: one[name] for name in same} for one in answer["months"]] == [
        {name: one[name] for name in same} for one in results
    ]
    assert "Synthetic trips" in Path(answer["report"]).read_text(encoding="utf-8")
    assert "green/backtest/07-backtest.html" in (copy.place / "reports/index.html").read_text(encoding="utf-8")


def test_arrivals_run_what_is_out_and_end_well(lean: World) -> None:
    write_sample(lean.place / "source", "green", ["2025-10"], rows=3000)

    (code, ran), again = (lean.answer("arrivals", "--service", "green", "--no-version") for _ in range(2))

    assert (code, [one["month"] for one in ran["months"]]) == (0, ["2025-10"])
    assert again == (0, {"service": "green", "months": []})


@pytest.mark.campaign
@only_in_campaign
def test_processes_at_once_on_a_fresh_machine_all_succeed(tmp_path: Path) -> None:
    fresh = World(tmp_path, fresh=True)  # no server: each starts its own, on one new Prefect home
    write_sample(tmp_path / "source", "green", ["2025-07", "2025-08"], rows=500)

    months = ["2025-07"] * 2 + ["2025-08"] * 4
    folders = [tmp_path / f"process-{number}" for number in range(len(months))]
    for folder in folders:
        folder.mkdir()
    words = ("ingest", "--service", "green", "--json", "--month")
    together = [fresh.begin(folder, *words, month) for folder, month in zip(folders, months, strict=True)]
    ended = [process.wait(540) for process in together]

    assert ended == [0] * len(months), [(folder / "err").read_text()[-800:] for folder in folders]
    answers = [json.loads((folder / "out").read_text().splitlines()[-1]) for folder in folders]
    assert {answer["status"] for answer in answers} == {"done"}
    assert len({json.dumps(answer["rows"]) for answer in answers}) == len(set(months))
