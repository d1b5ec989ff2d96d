"""A rehearsal deals a month's recorded trips as the service would, and the command and the page say what came of it."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as parquet
import pytest

from taxi.config import Settings
from taxi.data.schema import to_arrow
from taxi.data.synthetic_city import build_city, write_lookup, write_shapes
from taxi.data.zones import read_zones
from taxi.errors import TaxiError, UsageError
from taxi.experiments.ab_test import judge_experiment
from taxi.experiments.rehearsal import NOTE, as_log, experiment_trips, read_log, rehearse
from taxi.files import read_json
from taxi.models.fitting import fit_model
from taxi.models.model import save_model
from taxi.params import load_params
from taxi.predictions.arms import assign
from taxi.predictions.store import open_store
from taxi.runs.notebooks import run_notebook
from taxi.training.plan import make_plan, write_plan
from tests.support.builders import build_sample_trips
from tests.support.live import share_log, simulate_errors
from tests.support.month_results import write_acceptance
from tests.support.worlds import ROOT, World

pytestmark = pytest.mark.slow

PARAMS = load_params()
MONTHS = ("2024-01", "2024-02")
INCUMBENT = {"version": 3, "trained_from": MONTHS[0], "trained_to": MONTHS[0], "metrics": {"rmse": 5.0}}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A month that was run: the floor was its champion, a linear model its challenger."""
    place = tmp_path_factory.mktemp("rehearsal")
    settings = Settings(ROOT, "", place / "data", place / "reports", "")
    write_lookup(build_city(), settings.zones / "taxi_zone_lookup.csv")
    write_shapes(build_city(), settings.zones / "taxi_zones.zip")
    for month in MONTHS:
        paths = settings.month("green", month)
        paths.trips.parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(to_arrow(build_sample_trips(month, 6000)), paths.trips)
    write_plan(paths, make_plan("green", MONTHS[1], list(MONTHS), 12, INCUMBENT))
    before, zones = build_sample_trips(MONTHS[0], 6000), read_zones(settings.zones)
    for role, kind in (("incumbent", "pair-median"), ("challenger", "linear")):
        recipe = PARAMS.model.model_copy(update={"kind": kind})
        save_model(fit_model(before, zones, recipe, PARAMS.features), paths.models / role)
    write_acceptance(paths, synthetic={"seed": 7})
    return World(place)


@pytest.fixture(scope="module")
def settings(world: World) -> Settings:
    return Settings(ROOT, "", world.place / "data", world.place / "reports", "")


def test_a_rehearsal_deals_each_trip_as_the_service_would(settings: Settings) -> None:
    log = rehearse(settings, "green", MONTHS[1], "share", PARAMS.experiment)

    dealt = [assign(trip, PARAMS.experiment.salt, PARAMS.experiment.share) for trip in log["trip_id"]]
    assert (log["arm"] == "challenger").tolist() == dealt
    assert not log["shadow"].any()
    assert log["trip_id"].is_unique
    assert log["duration"].between(1, 60).all()


def test_a_rehearsal_in_the_shadow_agrees_with_the_models_scores(settings: Settings) -> None:
    log = rehearse(settings, "green", MONTHS[1], "shadow", PARAMS.experiment)
    judged = judge_experiment(log, PARAMS)

    for arm, rmse in judged.scores["rmse"].items():
        own = log[log["arm"] == arm]
        assert rmse == pytest.approx(np.sqrt(((own["mean"] - own["duration"]) ** 2).mean()))
    change = judged.scores.loc["challenger", "rmse"] / judged.scores.loc["champion", "rmse"] - 1
    assert judged.changes["rmse"]["change"].iloc[-1] == pytest.approx(change)
    assert judged.verdict.name == "challenger better"


def test_the_hour_that_comes_twice_and_the_one_that_never_comes_have_a_place_in_time() -> None:
    pickup = pd.to_datetime(["2023-03-12 02:30", "2023-03-12 03:30", "2023-11-05 01:30"])
    trips = pd.DataFrame({"pickup": pickup.astype("datetime64[us]"), "duration": 10.0})
    predicted = pd.DataFrame({name: [9.0, 9.0, 9.0] for name in ("mean", "median", "p10", "p90")})

    made = as_log(trips, predicted, predicted, "shadow", PARAMS.experiment, 1, 2)["made_at"]

    assert made.notna().all()
    assert made[0] < made[1] < made[2]


@pytest.mark.parametrize(
    ("words", "error", "said"),
    [
        (("2024-02", "rehearsal", "canary"), UsageError, "expected mode as share or shadow; got 'canary'"),
        (("2024-02", "store", "share"), UsageError, "expected source as log or rehearsal; got 'store'"),
        (("2024-01", "rehearsal", "share"), TaxiError, "green 2024-01 has no plan yet"),
    ],
)
def test_what_cannot_be_rehearsed_says_why(
    words: tuple[str, str, str], error: type[TaxiError], said: str, settings: Settings
) -> None:
    with pytest.raises(error, match=said):
        experiment_trips(settings, "green", *words, PARAMS.experiment)


def test_trips_without_an_outcome_count_in_the_split(tmp_path: Path) -> None:
    """Four trips in ten were the challenger's; a third of the champion's never ended, so that outcomes look even."""
    log = share_log(*simulate_errors(np.random.default_rng(1), 9, 400), share=0.4)
    ended = log[(log["arm"] == "challenger") | (log.index % 3 > 0)]
    settings = Settings(ROOT, "", tmp_path, tmp_path, "")
    store = open_store(settings.predictions)
    places = {"PULocationID": 74, "DOLocationID": 75}
    store.write_predictions(log.assign(**places).drop(columns="duration").to_dict("records"))
    store.write_outcomes(ended[["trip_id", "duration"]].to_dict("records"))
    store.close()

    found = read_log(settings, "green")
    whole, even = (judge_experiment(one, PARAMS) for one in (found, found.dropna(subset="duration")))

    assert whole.sizes["trips"].to_dict() == {"all": len(log), "with an outcome": len(ended)}
    assert whole.verdict.name == "invalid: sample ratio"
    assert even.verdict.name == "undecided"


def test_the_plan_says_how_many_trips_each_way_of_trying_takes(world: World) -> None:
    code, planned = world.answer("experiment", "plan")
    _, finer = world.answer("experiment", "plan", "--month", MONTHS[1], "--effect", "0.01", "--share", "0.1")

    assert code == 0
    assert (planned["service"], planned["month"], planned["effect"]) == ("green", MONTHS[1], 0.02)
    for metric in ("rmse", "mae"):
        assert planned["trips"]["shadow"][metric]["trips"] < planned["trips"]["share"][metric]["trips"]
        assert finer["trips"]["share"][metric]["trips"] > 6 * planned["trips"]["share"][metric]["trips"]


def test_the_plan_in_words(world: World) -> None:
    done = world.taxi("experiment", "plan", "--service", "green")

    assert "green, as in 2024-02: to find a change of 2.0% with a chance of 90%" in done.stdout
    assert "share (50% to the challenger), by rmse:" in done.stdout
    assert world.taxi("experiment", "plan", "--service", "yellow").returncode == 1


def test_the_notebook_is_a_page_with_the_verdict(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in world.environment.items():
        monkeypatch.setenv(name, value)

    run = run_notebook(
        ROOT / "notebooks" / "06-experiment.ipynb",
        tmp_path / "06-experiment.html",
        {"service": "green", "month": MONTHS[1], "mode": "shadow"},
        cwd=ROOT,
    )

    result, page = read_json(run.result_path), run.page.read_text(encoding="utf-8")
    assert result["verdict"] == "challenger better"
    assert result["mode"] == "shadow"
    assert "Challenger better." in page
    assert NOTE.split(":")[0] in page
    assert page.count("data:image/png;base64,") == 1


def test_the_report_reads_the_prediction_store_and_writes_its_page(world: World, settings: Settings) -> None:
    log = rehearse(settings, "green", MONTHS[1], "shadow", PARAMS.experiment)
    places = {"PULocationID": 74, "DOLocationID": 75, "service": "green"}
    rows = log.assign(**places, made_at=log["made_at"].dt.tz_localize(None)).drop(columns="duration")
    ended = log[~log["shadow"]].assign(source="test")[["trip_id", "duration", "source"]]
    store = open_store(f"sqlite:///{world.place / 'data' / 'predictions.db'}")
    store.write_predictions(rows.to_dict("records"))
    store.write_outcomes(ended.to_dict("records"))
    store.close()

    code, result = world.answer("experiment", "report", "--html")
    said = world.taxi("experiment", "report").stdout

    assert code == 0
    assert (result["verdict"], result["mode"], result["trips"]) == ("challenger better", "shadow", len(ended))
    assert json.loads(Path(result["report"]).with_suffix(".json").read_text())["reason"] == result["reason"]
    assert f"challenger better: {result['reason']}" in said
