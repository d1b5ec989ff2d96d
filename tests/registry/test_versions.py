"""The registry: versions that lead back to bytes, "no champion" apart from "no answer", nothing twice."""

import os
import shutil
import signal
import subprocess
import sys
import time

import mlflow
import pandas as pd
import pytest

from taxi.config import Settings
from taxi.data.schema import AT_PICKUP
from taxi.errors import UsageError
from taxi.files import sha256_file, sha256_tree
from taxi.models.model import load_model
from taxi.processes import FORKING, import_before_forking
from taxi.registry.aliases import roll_back, settle
from taxi.registry.integrity import UnsafeModel
from taxi.registry.mlflow_client import RegistryUnreachable, prepare
from taxi.registry.versions import champion_before, champion_now, download_model, find_version, versions
from taxi.runs.mlflow_run import record_month
from taxi.training.plan import Plan
from tests.support.campaign import at_scale
from tests.support.registered import CHECKOUT, MONTHS, PARAMS, make_month, record

pytestmark = pytest.mark.slow


def aliases(settings: Settings) -> dict[str, str]:
    client = mlflow.MlflowClient(settings.tracking_uri, settings.tracking_uri)
    return {name: str(number) for name, number in client.get_registered_model("taxi-green").aliases.items()}


def test_a_fresh_registry_has_no_champion(settings):
    assert champion_before(settings.tracking_uri, "green", "2023-03") is None


def test_a_corrupt_registry_is_not_a_registry_without_champion(settings, tmp_path):
    prepare(settings.tracking_uri)
    (tmp_path / "mlflow.db").write_bytes(b"not a database" * 1000)

    with pytest.raises(RegistryUnreachable, match=r"mlflow\.db did not answer"):
        champion_before(settings.tracking_uri, "green", "2023-03")


def test_a_server_that_is_down_is_not_a_registry_without_champion(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")

    with pytest.raises(RegistryUnreachable, match="did not answer"):
        champion_before("http://127.0.0.1:9", "green", "2023-03")


def test_the_champion_of_a_month_was_trained_before_it(settings):
    made = {month: record(settings, month)["winner"] for month in MONTHS}

    assert champion_before(settings.tracking_uri, "green", "2023-01") is None
    assert champion_before(settings.tracking_uri, "green", "2023-02").number == made["2023-01"]
    assert champion_before(settings.tracking_uri, "green", "2023-03").number == made["2023-02"]
    assert champion_before(settings.tracking_uri, "green", "2023-04").number == made["2023-03"]


def test_a_challenger_that_was_not_promoted_is_no_champion(settings):
    assert set(record(settings, "2023-02", promote=False)) == {"challenger"}
    assert champion_now(settings.tracking_uri, "green") is None
    assert aliases(settings) == {"challenger": "1"}


def test_months_out_of_order_never_move_an_alias_back(settings):
    later = record(settings, "2023-03")
    record(settings, "2023-02")

    assert aliases(settings) == {"champion": str(later["winner"]), "challenger": str(later["challenger"])}


def test_a_month_that_is_run_again_does_not_bring_back_what_was_rolled_back(registered):
    record(registered, "2023-03")
    roll_back(registered.tracking_uri, "green", "ada", "bad at night")

    record(registered, "2023-03")

    assert aliases(registered) == {"champion": "2", "challenger": "3"}
    assert champion_before(registered.tracking_uri, "green", "2023-04").number == 2


def test_a_winner_waits_where_params_ask_for_a_persons_approval(settings, caplog):
    asking = PARAMS.model_copy(update={"release": PARAMS.release.model_copy(update={"approval": ["dev"]})})

    made = record(settings, "2023-02", params=asking)

    assert made == {"challenger": 1, "winner": 2}
    assert aliases(settings) == {"challenger": "1"}
    assert champion_now(settings.tracking_uri, "green") is None
    assert "green/2 waits: taxi approve green/2 --report" in caplog.text


def test_recording_twice_makes_nothing_twice(settings):
    first = record(settings, "2023-02")
    again = record(settings, "2023-02")

    assert again == first
    assert len(versions(settings.tracking_uri, "green")) == 2


@pytest.mark.parametrize("name", [
    "log_params", "log_metrics", "log_input", "log_artifact", "create_model_version", "set_registered_model_alias",
])  # fmt: skip
def test_what_was_interrupted_is_completed_without_duplicates(settings, monkeypatch, name):
    owner = mlflow if hasattr(mlflow, name) else mlflow.MlflowClient
    real = getattr(owner, name)

    def fail_after(*args, **kwargs):
        real(*args, **kwargs)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, fail_after)
        with pytest.raises(KeyboardInterrupt):
            record(settings, "2023-02")
    made = record(settings, "2023-02")

    client = mlflow.MlflowClient(settings.tracking_uri, settings.tracking_uri)
    (run,) = client.search_runs([client.get_experiment_by_name("taxi-green").experiment_id])
    assert run.info.status == "FINISHED"
    assert made == {"challenger": 1, "winner": 2}
    assert [one.number for one in versions(settings.tracking_uri, "green")] == [1, 2]
    assert aliases(settings) == {"challenger": "1", "champion": "2"}
    assert len(client.get_metric_history(run.info.run_id, "challenger_rmse")) == 1
    assert len(run.inputs.dataset_inputs) == 2


def test_a_model_that_was_logged_before_a_kill_is_not_logged_again(settings, monkeypatch):
    def end(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(mlflow.MlflowClient, "create_model_version", end)
        with pytest.raises(KeyboardInterrupt):
            record(settings, "2023-02", promote=False)
    record(settings, "2023-02", promote=False)

    client = mlflow.MlflowClient(settings.tracking_uri, settings.tracking_uri)
    experiment = client.get_experiment_by_name("taxi-green").experiment_id
    assert [model.name for model in client.search_logged_models([experiment])] == ["challenger"]


def test_a_version_comes_back_byte_for_byte(registered, tmp_path):
    version = champion_now(registered.tracking_uri, "green")

    download_model(registered.tracking_uri, version, tmp_path / "incumbent")

    assert sha256_tree(tmp_path / "incumbent") == sha256_tree(registered.month("green", "2023-02").models / "winner")
    assert not list(tmp_path.glob(".incumbent*"))


def test_changed_model_files_are_refused_and_what_was_there_stays(registered, tmp_path):
    for path in (tmp_path / "mlartifacts").rglob("recipe.json"):
        path.write_text(path.read_text() + " ")
    (tmp_path / "incumbent").mkdir()
    (tmp_path / "incumbent" / "old").touch()

    with pytest.raises(UnsafeModel, match=r"green/2 is refused: 'data/winner/recipe\.json' has"):
        download_model(registered.tracking_uri, champion_now(registered.tracking_uri, "green"), tmp_path / "incumbent")
    assert [path.name for path in (tmp_path / "incumbent").iterdir()] == ["old"]


def test_a_registry_that_was_moved_still_has_its_models(settings, tmp_path, model):
    record(settings, "2023-02")
    new = tmp_path / "new place"
    new.mkdir()
    for name in ("mlflow.db", "mlartifacts"):
        shutil.move(tmp_path / name, new / name)
    uri = f"sqlite:///{new / 'mlflow.db'}"

    download_model(uri, champion_now(uri, "green"), tmp_path / "incumbent")
    trips = make_month("2023-03")[AT_PICKUP]

    assert load_model(tmp_path / "incumbent").predict(trips).equals(model.predict(trips))
    assert len(mlflow.pyfunc.load_model("models:/taxi-green@champion").predict(trips)) == len(trips)
    assert (new / "mlartifacts").is_dir()
    assert champion_now(uri, "green").recorded_reports


def test_mlflow_loads_the_champion_without_pickle_and_predicts_the_same(settings, monkeypatch, model):
    record(settings, "2023-02")
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    mlflow.set_tracking_uri(settings.tracking_uri)
    trips = make_month("2023-03")[AT_PICKUP]

    served = mlflow.pyfunc.load_model("models:/taxi-green@champion")

    pd.testing.assert_frame_equal(served.predict(trips), model.predict(trips))
    floats = trips.astype(dict.fromkeys(AT_PICKUP[1:], "float64"))
    pd.testing.assert_frame_equal(served.predict(floats), model.predict(trips))
    assert set(served.metadata.signature.outputs.input_names()) == {"mean", "median", "p10", "p90"}
    assert served.metadata.saved_input_example_info is not None


def test_a_version_that_mlflow_itself_has_loaded_can_still_be_fetched(settings, tmp_path):
    record(settings, "2023-02")
    mlflow.set_tracking_uri(settings.tracking_uri)
    mlflow.pyfunc.load_model("models:/taxi-green@champion")
    assert list((tmp_path / "mlartifacts").rglob("registered_model_meta"))  # MLflow notes it in the store itself

    download_model(settings.tracking_uri, champion_now(settings.tracking_uri, "green"), tmp_path / "incumbent")

    assert sha256_tree(tmp_path / "incumbent") == sha256_tree(settings.month("green", "2023-02").models / "winner")


def test_an_unknown_version_is_refused_with_those_there_are(settings):
    record(settings, "2023-02", promote=False)

    with pytest.raises(UsageError, match="there are: green/1"):
        find_version(settings.tracking_uri, "green/9")


def test_a_run_names_its_data_by_sha256(settings):
    record(settings, "2023-03")
    client = mlflow.MlflowClient(settings.tracking_uri, settings.tracking_uri)
    (run,) = client.search_runs([client.get_experiment_by_name("taxi-green").experiment_id])

    tags = [{tag.key: tag.value for tag in one.tags} for one in run.inputs.dataset_inputs]

    expected = {sha256_file(settings.month("green", month).trips) for month in MONTHS}
    assert {one["sha256"] for one in tags} == expected
    assert run.data.params["model.window_months"] == str(PARAMS.model.window_months)
    assert run.data.metrics["champion_rmse"] == 5.25


def test_a_month_without_a_challenger_is_a_run_and_no_version(settings):
    plan = Plan("green", "2023-02", ["2023-01"], ["2023-01", "2023-02"], None, None)

    assert record_month(settings, plan, PARAMS, None, None, "skipped") == {}
    assert versions(settings.tracking_uri, "green") == []


@pytest.mark.slow
@pytest.mark.campaign
def test_several_processes_start_at_once_on_a_fresh_registry(tmp_path):
    import_before_forking("taxi.registry.aliases")  # so that they begin at the same moment
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    running = [FORKING.Process(target=settle, args=(uri, "green")) for _ in range(at_scale(3, 8))]
    for process in running:
        process.start()
    for process in running:
        process.join()

    assert [process.exitcode for process in running] == [0] * len(running)
    assert champion_now(uri, "green") is None


@pytest.mark.slow
@pytest.mark.campaign
def test_a_killed_process_leaves_nothing_that_the_next_one_cannot_complete(settings, tmp_path):
    code = (
        "import sys; sys.path.insert(0, sys.argv[2]); import tests.support.registered as t; from pathlib import Path\n"
        "p = Path(sys.argv[1]); s = t.Settings(t.CHECKOUT, 'unused', p / 'data', p / 'reports', f'sqlite:///{p}/mlflow.db')\n"
        "print('go', flush=True); t.record(s, '2023-03')"
    )
    for path in (*tmp_path.glob(".mlflow.db*"), *tmp_path.glob("mlflow.db")):
        path.unlink()
    for delay in at_scale((1.4,), (0.2, 1.4, 3.0, 4.0)):
        command = [sys.executable, "-c", code, str(tmp_path), str(CHECKOUT)]
        process = subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, start_new_session=True)
        process.stdout.readline()
        time.sleep(delay)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    assert record(settings, "2023-03") == {"challenger": 1, "winner": 2}
    assert len(versions(settings.tracking_uri, "green")) == 2
