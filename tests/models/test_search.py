"""A search tries recipes on the months before a month, goes on where it stopped, and changes nothing by itself."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow.parquet as parquet
import pytest
import yaml
from optuna.trial import TrialState

from taxi.config import Settings
from taxi.data.schema import to_arrow
from taxi.data.synthetic_city import build_city, write_lookup, write_shapes
from taxi.errors import TaxiError, UsageError
from taxi.models.evaluate import interval_score
from taxi.models.folds import MEASURES, Fold, FoldTrips, read_fold, relative_loss, rolling_folds
from taxi.models.search import (
    RANGES,
    Task,
    finished,
    forget_broken,
    open_study,
    run_trials,
    search_recipe,
    search_space,
    study_name,
)
from taxi.models.search_result import explain_found, fragment, keep_found, read_found, search_file
from taxi.params import ModelParams, Params, load_params
from tests.support.state_table import unnamed
from tests.support.worlds import World

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
MONTHS = ["2024-01", "2024-02", "2024-03"]
MONTH = "2024-04"


def small(**budget: float) -> Params:
    params = load_params()
    recipe = {"rounds": 20, "max_depth": 4, "trips_per_round": 100, "head_rounds": 5, "head_max_depth": 3}
    limits = {"trials": 4, "folds": 2, "rows": 1500, "judged_rows": 600, "startup_trials": 2, "seed": 3, **budget}
    return params.model_copy(
        update={
            "model": params.model.model_copy(update=recipe | {"threads": 1}),
            "search": params.search.model_copy(update=limits),
        }
    )


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory, sample_trips: Callable[..., pd.DataFrame]) -> Settings:
    place = tmp_path_factory.mktemp("search")
    made = Settings(ROOT, "", place / "data", place / "reports", "")
    made.zones.mkdir(parents=True)
    write_lookup(build_city(), made.zones / "taxi_zone_lookup.csv")
    write_shapes(build_city(), made.zones / "taxi_zones.zip")
    for month in MONTHS:
        path = made.month("green", month).trips
        path.parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(to_arrow(sample_trips(month, 1500)), path)
    return made


def run(settings: Settings, storage: Path, **budget: float) -> dict:
    return search_recipe(settings, "green", MONTH, small(**budget), f"sqlite:///{storage}")


def trials(settings: Settings, storage: Path, seed: int = 3) -> list[tuple[TrialState, dict, float]]:
    folds = rolling_folds(MONTH, MONTHS, 12, 2)
    study = open_study(f"sqlite:///{storage}", study_name(settings, "green", MONTH, folds, small(seed=seed)), 2)
    return [(one.state, one.user_attrs["settings"], one.value) for one in finished(study)]


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("study") / "search.db"


@pytest.fixture(scope="module")
def found(settings: Settings, storage: Path) -> dict:
    return run(settings, storage)


def test_every_fold_is_judged_by_a_later_month_and_none_sees_the_month_itself() -> None:
    on_hand = ["2022-12", *(f"2023-{number:02d}" for number in range(1, 13))]

    folds = rolling_folds("2023-11", on_hand, 6, 3)

    assert [one.judged for one in folds] == ["2023-08", "2023-09", "2023-10"]
    assert folds[0].learnt == ["2023-05", "2023-06", "2023-07"]
    assert all(max(one.learnt) < one.judged < "2023-11" for one in folds)


def test_fewer_months_make_fewer_folds_and_one_month_makes_none() -> None:
    assert rolling_folds("2023-03", ["2023-01", "2023-02"], 12, 3) == [Fold(["2023-01"], "2023-02")]

    with pytest.raises(TaxiError, match="two months or more on hand among the 12 before 2023-03; there are 1"):
        rolling_folds("2023-03", ["2023-02", "2023-03"], 12, 3)


def test_a_folds_trips_are_thinned_to_the_budget_and_stay_in_their_months(settings: Settings) -> None:
    fold = Fold(MONTHS[:2], MONTHS[2])

    one, two = (read_fold(settings, "green", fold, small(rows=800).search) for _ in range(2))

    assert one.past["pickup"].dt.strftime("%Y-%m").value_counts().to_dict() == {"2024-01": 400, "2024-02": 400}
    assert set(one.judging["pickup"].dt.strftime("%Y-%m")) == {"2024-03"}
    assert len(one.judging) == 600
    pd.testing.assert_frame_equal(one.past, two.past)


def test_the_loss_is_one_for_the_current_recipe_and_falls_with_each_measure() -> None:
    now = [{"rmse": 4.0, "mae": 3.0, "interval": 20.0}] * 2

    assert relative_loss(now, now) == 1
    assert relative_loss([{"rmse": 2.0, "mae": 3.0, "interval": 20.0}], now) == pytest.approx((0.5 + 1 + 1) / 3)


def test_the_interval_score_is_its_width_and_ten_minutes_for_each_minute_outside() -> None:
    interval = pd.DataFrame({"p10": [5.0, 5.0], "p90": [15.0, 15.0]})

    assert interval_score(pd.Series([5.0, 15.0]), interval) == 10
    assert interval_score(pd.Series([10.0, 17.0]), interval) == pytest.approx((10 + 10 + 2 * 10) / 2)


def test_the_space_holds_the_current_recipe_wherever_it_lies() -> None:
    far = load_params().model.model_copy(update={"half_life_days": 2000.0, "max_depth": 3})

    space = search_space(far)

    assert set(space) == set(RANGES)
    assert (space["half_life_days"].high, space["max_depth"].low) == (2000.0, 3)


def test_a_search_finds_nothing_worse_than_the_current_recipe(found: dict) -> None:
    assert found["tried"] == 4
    assert found["loss"] <= 1
    assert [one["judged"] for one in found["folds"]] == ["2024-02", "2024-03"]
    assert found["loss"] == pytest.approx(1 - sum(found["gain"].values()) / 3)
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_a_finished_search_costs_nothing(settings: Settings, storage: Path, found: dict) -> None:
    again = run(settings, storage)

    assert {**again, "seconds": 0} == {**found, "seconds": 0}
    assert len(trials(settings, storage)) == 5


def test_a_search_that_was_stopped_finds_what_an_unbroken_one_finds(
    settings: Settings, storage: Path, found: dict, tmp_path: Path
) -> None:
    """Given a search that stopped after two trials, and a process that was killed in the third; when it goes on."""
    other = tmp_path / "other.db"
    run(settings, other, trials=2)
    folds = rolling_folds(MONTH, MONTHS, 12, 2)
    study = open_study(f"sqlite:///{other}", study_name(settings, "green", MONTH, folds, small()), 2)
    study.ask()

    resumed = run(settings, other)

    assert trials(settings, other) == trials(settings, storage)
    assert resumed["settings"] == found["settings"]


def test_another_seed_tries_others(settings: Settings, storage: Path, found: dict, tmp_path: Path) -> None:
    run(settings, tmp_path / "seed.db", trials=1, seed=4)

    one, other = (trials(settings, path, seed)[1][1] for path, seed in ((storage, 3), (tmp_path / "seed.db", 4)))
    assert one != other


@dataclass(frozen=True)
class Scripted(Task):
    """A task without a fit: deeper trees are worse, as much on every fold."""

    def measure(self, recipe: ModelParams, number: int) -> dict[str, float]:
        return dict.fromkeys(MEASURES, 1.0 + recipe.max_depth)


def scripted(**budget: float) -> Scripted:
    fold = FoldTrips(Fold(["2024-01"], "2024-02"), pd.DataFrame(), pd.DataFrame())
    return Scripted(small(**budget), [fold] * 3, pd.DataFrame())


def test_trials_that_are_worse_than_most_are_given_up_and_count_as_tried(tmp_path: Path) -> None:
    study = open_study(f"sqlite:///{tmp_path / 'pruned.db'}", "pruned", 2)

    run_trials(study, scripted(trials=15))

    given_up = [one for one in finished(study) if one.state == TrialState.PRUNED]
    assert len(finished(study)) == 16
    assert given_up
    assert all(one.last_step == 0 for one in given_up)
    best = study.best_trial.user_attrs["settings"]["max_depth"]
    assert all(one.user_attrs["settings"]["max_depth"] > best for one in given_up)


def test_the_current_recipe_is_the_first_trial_and_the_mark_of_the_others(tmp_path: Path) -> None:
    study, task = open_study(f"sqlite:///{tmp_path / 'first.db'}", "first", 2), scripted(trials=3)

    run_trials(study, task)

    first, *others = finished(study)
    now = task.params.model.max_depth
    assert first.value == 1 and first.user_attrs["settings"]["max_depth"] == now
    assert [one.value for one in others] == pytest.approx(
        [(1 + one.user_attrs["settings"]["max_depth"]) / (1 + now) for one in others]
    )


def test_the_seconds_are_a_budget_too(settings: Settings, tmp_path: Path) -> None:
    assert run(settings, tmp_path / "seconds.db", seconds=1e-9)["tried"] == 0


def test_a_running_trial_of_a_killed_process_is_given_up(tmp_path: Path) -> None:
    study = open_study(f"sqlite:///{tmp_path / 'killed.db'}", "killed", 1)
    study.ask()

    forget_broken(study)

    assert [one.state for one in study.trials] == [TrialState.FAIL]


def test_a_storage_that_cannot_be_had_is_named_without_its_password(tmp_path: Path) -> None:
    with pytest.raises(TaxiError, match="cannot keep the search in postgresql") as failed:
        open_study("postgresql+psycopg2://me:hidden@127.0.0.1:1/none", "one", 1)

    assert "hidden" not in str(failed.value)
    with pytest.raises(UsageError, match="SQLAlchemy address"):
        open_study("nowhere", "one", 1)


def test_only_trees_are_searched(settings: Settings) -> None:
    params = small()
    linear = params.model_copy(update={"model": params.model.model_copy(update={"kind": "linear"})})

    with pytest.raises(UsageError, match=r"expected model\.kind xgboost"):
        search_recipe(settings, "green", MONTH, linear)


def test_the_lines_to_paste_are_the_section_with_other_values() -> None:
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")

    lines = fragment(text, {"max_depth": 4, "half_life_days": 99.5})

    before = yaml.safe_load(text)["model"]
    assert yaml.safe_load(lines) == {"model": before | {"max_depth": 4, "half_life_days": 99.5}}
    assert "# a trip this much older counts half" in lines
    with pytest.raises(TaxiError, match="expected depth once in the section model"):
        fragment(text, {"depth": 3})


def made_up(changed: dict[str, list[float]], loss: float = 0.99) -> dict:
    score = {"rmse": 4.0, "mae": 3.0, "interval": 20.0}
    rows = [{"judged": "2024-03", "learnt": ["2024-02"], "now": score, "best": score, "loss": loss}]
    gain = {"rmse": 0.012, "mae": 0.004, "interval": -0.001}
    return {"tried": 9, "pruned": 4, "folds": rows, "gain": gain, "changed": changed, "loss": loss}


def test_what_was_found_is_kept_and_told_to_the_notebook(settings: Settings, tmp_path: Path) -> None:
    params, paths = load_params(), Settings(ROOT, "", tmp_path, tmp_path, "").month("green", MONTH)
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    found = made_up({"max_depth": [params.model.max_depth, 4]})

    lines = keep_found(paths, found, text)
    told = explain_found(read_found(paths), params, paths)

    assert (paths.models / "search.yaml").read_text(encoding="utf-8") == lines
    assert yaml.safe_load(lines)["model"]["max_depth"] == 4
    assert "Of 9 recipes (4 given up early), judged on 2024-03" in told
    assert "RMSE of the mean -1.2%" in told and "score of the 80 % interval +0.1%" in told
    assert f"| `max_depth` | {params.model.max_depth} | 4 |" in told
    assert "does not hold it; `search.yaml`" in told


def test_no_search_and_one_that_found_nothing_take_one_sentence(tmp_path: Path) -> None:
    params, paths = load_params(), Settings(ROOT, "", tmp_path, tmp_path, "").month("green", MONTH)

    assert explain_found(read_found(paths), params, paths) == (
        "No search for a better recipe was run for this month (`taxi search --service green --month 2024-04` runs one)."
    )
    assert keep_found(paths, made_up({}, 1.0), "") is None
    assert explain_found(read_found(paths), params, paths).endswith("none was better than the current one.")
    assert [path.name for path in paths.models.iterdir()] == ["search.json"]


@pytest.mark.slow
def test_the_command_searches_and_leaves_params_yaml_alone(settings: Settings) -> None:
    world = World(settings.data.parent)
    before = (ROOT / "params.yaml").read_bytes()

    done = world.start("search", "--service", "green", "--month", "2024-03", "--trials", "1", "--json")
    out, _ = done.communicate(timeout=300)

    assert done.returncode == 0
    assert json.loads(out.splitlines()[-1]) == read_found(settings.month("green", "2024-03"))
    assert search_file(settings.month("green", "2024-03")).is_file()
    assert (settings.data / "search.db").is_file()
    assert unnamed(settings.data) == []
    assert (ROOT / "params.yaml").read_bytes() == before
