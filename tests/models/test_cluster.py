"""The Dask engine on a real cluster of two worker processes: the local engine's results, and workers that are killed."""

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from threading import Thread

import numpy as np
import pandas as pd
import pyarrow.parquet as parquet
import pytest

from taxi.config import MonthPaths, load_settings
from taxi.data.acceptance import clean_month
from taxi.data.schema import read_trips, to_arrow
from taxi.data.synthetic import write_sample
from taxi.errors import TaxiError, UsageError
from taxi.files import sha256_file, sha256_tree
from taxi.models.boosted import plan_parts
from taxi.models.evaluate import score
from taxi.models.fitting import COLUMNS, Part, fit_months
from taxi.models.model import DurationModel, load_model, save_model
from taxi.params import Params, load_params
from tests.support.automation import SMALL, make_checkout
from tests.support.builders import build_sample_trips
from tests.support.postgres import free_port
from tests.support.worlds import ROOT, World

dask = pytest.importorskip("dask")
distributed = pytest.importorskip("distributed")
pytestmark = pytest.mark.slow
MONTHS = ("2024-01", "2024-02", "2024-03", "2024-04")
BOOSTING = "fn-"  # how xgboost.dask names its tasks
AS_OF = pd.Timestamp("2024-05-01")


def quick(**changes: object) -> Params:
    params = load_params()
    small = {"rounds": 60, "max_depth": 5, "head_rounds": 20, "head_max_depth": 4, "interval_rounds": 30}
    steady = {"interval_max_depth": 4, "trips_per_round": 100, "subsample": 1.0, "planned": False}
    slow = {"learning_rate": 0.06, "head_learning_rate": 0.1, "interval_learning_rate": 0.2}
    return params.model_copy(update={"model": params.model.model_copy(update={**small, **steady, **slow, **changes})})


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A scheduler and two workers that nannies start again when they are killed; a task may kill one of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFECT_HOME", str(tmp_path_factory.mktemp("prefect")))
        patch.setenv("OMP_NUM_THREADS", "1")
        with dask.config.set({"distributed.scheduler.allowed-failures": 1}):
            with distributed.LocalCluster(
                n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=logging.CRITICAL
            ) as cluster:
                yield cluster.scheduler_address


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Kept trips of four months, a file each."""
    made = tmp_path_factory.mktemp("trips")
    for month in MONTHS:
        parquet.write_table(to_arrow(build_sample_trips(month, 2500)), made / f"{month}.parquet")
    return made


def parts_of(folder: Path) -> list[Part]:
    return [partial(read_trips, folder / f"{month}.parquet", COLUMNS) for month in MONTHS]


def fit_on(address: str, folder: Path, parts: list[Part], zones: pd.DataFrame, params: Params) -> DurationModel:
    from taxi.models.cluster import fit_months_on

    return fit_months_on(address, folder, parts, zones, params.model, params.features, AS_OF)


@pytest.fixture(scope="module")
def model(address: str, folder: Path, zones: pd.DataFrame) -> DurationModel:
    return fit_on(address, folder, parts_of(folder), zones, quick())


def read_after_killing_the_worker_once(path: Path, flag: Path) -> pd.DataFrame:
    """Read a month; the first worker that tries to is killed."""
    if not flag.exists():
        flag.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return read_trips(path, COLUMNS)


def kill_the_worker() -> pd.DataFrame:
    os.kill(os.getpid(), signal.SIGKILL)
    return pd.DataFrame()


def test_a_model_fitted_on_workers_predicts_as_well_as_a_local_one(
    model: DurationModel, folder: Path, zones: pd.DataFrame
) -> None:
    params, later = quick(), build_sample_trips("2024-05", 2500)
    local = fit_months(parts_of(folder), zones, params.model, params.features, AS_OF)

    ours, theirs = (score(later["duration"], one.predict(later)) for one in (model, local))

    assert model.recipe == local.recipe | {"engine": "dask"}
    for name in ("rmse", "mae"):
        assert ours[name] == pytest.approx(theirs[name], rel=0.005)
    assert ours["coverage80"] == pytest.approx(theirs["coverage80"], abs=0.02)
    np.testing.assert_allclose(
        model.features.history_.tables["pair_minutes"], local.features.history_.tables["pair_minutes"], rtol=1e-12
    )


def test_it_is_an_ordinary_model_on_disk(model: DurationModel, tmp_path: Path) -> None:
    later = build_sample_trips("2024-05", 500)
    save_model(model, tmp_path / "model")

    loaded = load_model(tmp_path / "model")

    pd.testing.assert_frame_equal(loaded.predict(later), model.predict(later), check_exact=True)


def test_a_worker_killed_while_tallying_does_not_lose_the_fit(
    address: str, folder: Path, zones: pd.DataFrame, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dying = partial(read_after_killing_the_worker_once, folder / f"{MONTHS[0]}.parquet", tmp_path / "killed")
    params = quick(kind="pair-median")

    with caplog.at_level(logging.WARNING, "taxi"):
        fitted = fit_on(address, folder, [dying, *parts_of(folder)[1:]], zones, params)

    assert (tmp_path / "killed").exists()
    assert fitted.recipe["trips"] == sum(len(part()) for part in parts_of(folder))
    assert "tallying months: lost the worker tcp://" in caplog.text


def make_lesson(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    data = rng.random((4000, 20)).astype(np.float32)
    return {"data": data, "label": data[:, 0] + data[:, 1], "weight": np.ones(4000, np.float32)}


def kill_one_that_boosts(address: str, killed: list[str]) -> None:
    with distributed.Client(address, set_as_default=False) as client:
        pids = client.run(os.getpid)
        end = time.monotonic() + 60
        while not killed and time.monotonic() < end:
            time.sleep(0.1)
            for worker, tasks in client.processing().items():
                if not killed and worker in pids and any(str(task).startswith(BOOSTING) for task in tasks):
                    time.sleep(1)
                    os.kill(pids[worker], signal.SIGKILL)
                    killed.append(worker)


def test_a_worker_killed_while_boosting_does_not_lose_the_fit(
    address: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from taxi.models.cluster import boost, connected, spread

    settings = {name: value for name, value in plan_parts(quick().model, 8000)["trunk"][0].items() if name != "nthread"}
    killed: list[str] = []
    killer = Thread(target=kill_one_that_boosts, args=(address, killed), daemon=True)

    with connected(address, tmp_path) as client, caplog.at_level(logging.WARNING, "taxi"):
        client.wait_for_workers(2, timeout=60)
        killer.start()
        booster = boost(client, "boosting", lambda: spread(client, make_lesson, range(4)), (settings, 2000, None))
    killer.join(60)

    assert len(killed) == 1
    assert booster.num_boosted_rounds() == 2000
    assert f"boosting: lost {killed[0]}; beginning it again, attempt 2 of 3" in caplog.text


def test_a_month_split_by_a_worker_is_the_month_split_here(address: str, tmp_path: Path) -> None:
    from taxi.data.acceptance import ready_split, split_ahead
    from taxi.models.cluster import run_on_a_worker

    params = load_params()
    here, there = (MonthPaths(tmp_path / name, tmp_path, "green", "2024-01") for name in ("here", "there"))
    for paths in (here, there):
        (written,) = write_sample(tmp_path / paths.data.name / "source", "green", ["2024-01"], rows=2000)[:1]
        paths.raw.parent.mkdir(parents=True)
        paths.raw.write_bytes(written.read_bytes())

    run_on_a_worker(address, there.data, split_ahead, there, params)
    assert ready_split(there, params)
    assert not there.trips.exists()

    assert clean_month(here, params).rows == clean_month(there, params).rows
    assert sha256_file(here.trips) == sha256_file(there.trips)
    assert sha256_file(here.quarantine) == sha256_file(there.quarantine)
    assert not there.split.exists()


def test_a_backfill_on_a_cluster_keeps_the_same_trips(address: str, tmp_path: Path, prefect: str) -> None:
    checkout = make_checkout(tmp_path / "checkout", {"model": SMALL | {"planned": False}}, lean=True)
    world = World(tmp_path, {"PREFECT_API_URL": prefect}, checkout)
    write_sample(tmp_path / "source", "green", MONTHS[:2], rows=1500)
    words = ("--from", MONTHS[0], "--to", MONTHS[1], "--no-version", "--engine", "dask", "--scheduler", address)

    code, answer = world.answer("backfill", "--service", "green", *words)

    assert code == 0
    for result in answer["months"]:
        alone = MonthPaths(tmp_path / "alone", tmp_path, "green", result["month"])
        alone.raw.parent.mkdir(parents=True, exist_ok=True)
        alone.raw.write_bytes((tmp_path / f"data/raw/green/{result['month']}.parquet").read_bytes())
        assert clean_month(alone, load_params()).rows == result["rows"]
    models = (
        tmp_path / "data/models/green" / MONTHS[0]
    )  # the second month trains nothing: its challenger would be the champion
    assert load_model(models / "challenger").recipe["engine"] == "dask"
    assert sha256_tree(tmp_path / "data/trips") == sha256_tree(tmp_path / "alone/trips")


def test_a_month_that_kills_every_worker_is_given_up_with_an_explanation(
    address: str, folder: Path, zones: pd.DataFrame
) -> None:  # last on this cluster: a worker that dies young is not started again
    with pytest.raises(TaxiError, match="tallying months: given up by the Dask scheduler: Attempted to run task"):
        fit_on(address, folder, [kill_the_worker], zones, quick(kind="pair-median"))


def test_a_scheduler_that_does_not_answer_is_said_before_anything_is_done(tmp_path: Path) -> None:
    words = ("ingest", "--service", "green", "--month", "2024-01", "--engine", "dask")
    nobody = f"tcp://127.0.0.1:{free_port()}"
    (tmp_path / "source").mkdir()

    done = World(tmp_path).taxi(*words, "--scheduler", nobody)

    assert done.returncode == 1
    assert f"taxi: expected a Dask scheduler at {nobody}; it does not answer within 5 s" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "data/raw").exists()


def test_without_its_packages_the_engine_says_what_to_install() -> None:
    script = (
        "import sys; sys.modules['distributed'] = None\n"
        "from taxi.errors import TaxiError\n"
        "try: import taxi.models.cluster\n"
        "except TaxiError as error: print(error)"
    )

    said = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True).stdout

    assert "pip install taxi[dask]" in said


def test_the_local_engine_does_not_load_dask() -> None:
    script = (
        "import sys, pipelines.cli, pipelines.backfill, taxi.training.train\n"
        "print({'dask', 'distributed'} & set(sys.modules))"
    )

    said = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True).stdout

    assert said.strip() == "set()"


@pytest.mark.parametrize(
    ("engine", "scheduler", "words"),
    [
        ("spark", None, "one of local, dask; got 'spark'"),
        ("dask", None, "expected the address of a Dask scheduler"),
        ("local", "tcp://there:8786", "expected no scheduler with --engine local"),
    ],
)
def test_engine_and_scheduler_go_together(
    engine: str, scheduler: str | None, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TAXI_ENGINE", "TAXI_SCHEDULER"):
        monkeypatch.delenv(name, raising=False)

    with pytest.raises(UsageError, match=words):
        load_settings(None, engine, scheduler)


def test_kernels_find_the_engine_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines.runtime import hand_on

    for name in ("TAXI_ENGINE", "TAXI_SCHEDULER", "TAXI_DATA", "TAXI_REPORTS", "TAXI_SOURCE", "MLFLOW_TRACKING_URI"):
        monkeypatch.setenv(name, "")
    hand_on(load_settings(None, "dask", "tcp://there:8786"))

    assert (load_settings().engine, load_settings().scheduler) == ("dask", "tcp://there:8786")
