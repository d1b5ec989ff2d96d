"""From a version or a prediction back to raw bytes, code and reports: recomputed, and a changed byte anywhere is named."""

import json
import shutil
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import mlflow
import pyarrow.parquet as parquet
import pytest
from typer.testing import CliRunner

from pipelines.cli import app
from taxi.config import Settings
from taxi.data.schema import to_arrow
from taxi.errors import Refused, TaxiError, UsageError
from taxi.files import read_json, sha256_file, write_json
from taxi.models.fitting import fit_model
from taxi.models.model import load_model, save_model
from taxi.params import Params
from taxi.predictions.store import open_store
from taxi.registry.aliases import approve
from taxi.registry.integrity import UnsafeModel
from taxi.registry.lineage import gate_faults, trace, verify_version
from taxi.registry.mlflow_client import prepare
from taxi.registry.provenance import sealed_digest
from taxi.registry.release import promote
from taxi.registry.versions import champion_now, download_model, find_version
from taxi.reporting.pages import write_lineage_page, write_text
from taxi.runs.mlflow_run import seal_result
from taxi.training.plan import make_plan
from tests.support.month_results import make_edition, write_acceptance, write_origin
from tests.support.registered import CHECKOUT, MONTHS, PARAMS, judge, make_month, make_zones, record

pytestmark = pytest.mark.slow

JUDGE = "2023-03"
OPEN = PARAMS.model_copy(
    update={"monitor": PARAMS.monitor.model_copy(update={"coverage_low": 0.0, "coverage_high": 1.0})}
)
ID = "0123456789abcdef0123456789abcdef"


def git(root: Path, *words: str) -> None:
    who = ["-c", "user.name=ada", "-c", "user.email=ada@example.org"]
    subprocess.run(["git", "-C", str(root), *who, *words], check=True, capture_output=True)


def make_root(root: Path) -> None:
    root.mkdir()
    (root / "requirements.lock").write_text("numpy==2\n")
    (root / "notebooks").mkdir()
    (root / "notebooks" / "01-explore.ipynb").write_text("{}")
    shutil.copyfile(CHECKOUT / "params.yaml", root / "params.yaml")
    git(root, "init", "--quiet")
    git(root, "add", ".")
    git(root, "commit", "--quiet", "-m", "begin")


def settings_in(place: Path) -> Settings:
    return Settings(place / "root", "unused", place / "data", place / "reports", f"sqlite:///{place / 'mlflow.db'}")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory) -> Path:
    """One month that was run: two versions, their run, reports, months and a commit."""
    place = tmp_path_factory.mktemp("recorded")
    make_root(place / "root")
    settings = settings_in(place)
    quick = PARAMS.model.model_copy(update={"rounds": 3, "head_rounds": 2, "interval_rounds": 3, "max_depth": 3})
    model = fit_model(make_month("2023-01"), make_zones(), quick, PARAMS.features)
    for month in MONTHS:
        paths = settings.month("green", month)
        for path in (paths.raw, paths.trips):
            path.parent.mkdir(parents=True, exist_ok=True)
        paths.raw.write_bytes(f"published {month}".encode())
        origin = {
            "address": f"https://example.org/{month}",
            "etag": f'"{month}"',
            "fetched_at": "2023-05-01T00:00:00+00:00",
        }
        write_origin(paths, sha256_file(paths.raw), **origin)
        parquet.write_table(to_arrow(make_month(month)), paths.trips)
        write_acceptance(paths, status="accepted")
        paths.quarantine.parent.mkdir(parents=True, exist_ok=True)
        paths.quarantine.write_bytes(f"refused of {month}".encode())
    paths = settings.month("green", JUDGE)
    for role in ("challenger", "winner"):
        save_model(model, paths.models / role)
    paths.reports.mkdir(parents=True)
    for name in ("04-train.ipynb", "05-compare.html"):
        (paths.reports / name).write_text(f"executed {name}")
    record(settings, JUDGE, scores=judge(settings, JUDGE))
    result = {"fingerprint": f"print-{JUDGE}", "rows": {"kept": 300}, "promoted": True}
    seal_result(settings, make_plan("green", JUDGE, MONTHS[:2], 12, None), result["fingerprint"], result)
    write_json(paths.reports / "month.json", result)
    return place


@pytest.fixture
def settings(recorded: Path, tmp_path: Path) -> Settings:
    shutil.copytree(recorded, tmp_path / "place")
    made = settings_in(tmp_path / "place")
    prepare(made.tracking_uri)  # the registry is told where it is now
    return made


def only(place: Path, pattern: str) -> Path:
    (found,) = place.glob(pattern)
    return found


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_version_leads_back_to_bytes_code_and_reports_and_all_agree(settings):
    found = trace(settings, "green/champion")

    raw = settings.month("green", "2023-02").raw
    assert (found["version"], found["parent"], found["role"]) == ("green/2", "green/1", "winner")
    assert [one["month"] for one in found["raw"]] == MONTHS
    assert found["raw"][1] == {
        "month": "2023-02",
        "sha256": sha256_file(raw),
        "trips_sha256": sha256_file(settings.month("green", "2023-02").trips),
        "address": "https://example.org/2023-02",
        "etag": '"2023-02"',
        "fetched_at": "2023-05-01T00:00:00+00:00",
        "on_hand": True,
    }
    assert found["reports"] == ["reports/04-train.ipynb", "reports/05-compare.html", "reports/05-compare.json"]
    assert found["parameters"]["model.window_months"] == str(PARAMS.model.window_months)
    assert found["code"]["lock_sha256"] == sha256_file(settings.root / "requirements.lock")
    assert (found["faults"], found["verified"], found["counts"]["away"]) == ([], True, 0)
    kinds = {
        "run",
        "model file",
        "golden trips",
        "report",
        "published report",
        "local model file",
        "parameters",
        "lock",
    }
    kinds |= {"kept month", "raw month", "origin", "quarantine", "acceptance", "tags", "metrics", "month result"}
    assert {one["what"] for one in found["checks"]} == kinds
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("data/raw/green/2023-01.parquet", "raw month raw/green/2023-01.parquet has sha256"),
        ("data/quarantine/green/2023-03.parquet", "quarantine quarantine/green/2023-03.parquet has sha256"),
        ("data/trips/green/2023-02.parquet", "kept month trips/green/2023-02.parquet has sha256"),
        ("mlartifacts/green/models/*/artifacts/data/winner/mean.ubj", "model file data/winner/mean.ubj has sha256"),
        ("mlartifacts/green/models/*/artifacts/data/winner/tables.npz", "model file data/winner/tables.npz has sha256"),
        ("data/models/green/2023-03/winner/recipe.json", "local model file models/green/2023-03/winner/recipe.json"),
        ("mlartifacts/green/*/artifacts/reports/04-train.ipynb", "report run/04-train.ipynb has sha256"),
        ("mlartifacts/green/*/artifacts/reports/05-compare.html", "report run/05-compare.html has sha256"),
        ("reports/green/2023-03/05-compare.html", "published report reports/green/2023-03/05-compare.html has sha256"),
        ("root/requirements.lock", "lock requirements.lock has sha256"),
    ],
)
def test_one_changed_byte_is_named(settings, pattern, said):
    flip(only(settings.data.parent, pattern))

    found = trace(settings, "green/champion")

    assert not found["verified"]
    assert len(found["faults"]) == 1
    assert said in found["faults"][0]


def test_a_changed_mlmodel_of_the_version_is_named(settings):
    flip(only(settings.data.parent, "mlartifacts/green/models/*/artifacts/data/winner").parents[1] / "MLmodel")

    assert "model file MLmodel has sha256" in trace(settings, "green/champion")["faults"][0]


def test_another_address_in_a_sidecar_is_named(settings):
    sidecar = settings.month("green", "2023-01").sidecar
    write_json(sidecar, read_json(sidecar) | {"address": "https://evil.example/2023-01"})

    assert trace(settings, "green/champion")["faults"] == [
        "origin raw/green/2023-01.json names the address https://evil.example/2023-01; https://example.org/2023-01 was recorded"
    ]


def test_a_challenger_leads_back_to_the_month_that_judged_it_too(settings):
    found = trace(settings, "green/1")

    assert (found["verified"], [one["month"] for one in found["raw"]]) == (True, MONTHS[:2])
    flip(settings.month("green", JUDGE).trips)
    assert trace(settings, "green/1")["faults"][0].startswith("kept month trips/green/2023-03.parquet has sha256")


def test_a_changed_parameter_in_the_database_is_named(settings):
    with closing(sqlite3.connect(settings.data.parent / "mlflow.db")) as connection, connection:
        connection.execute("UPDATE params SET value = '99' WHERE key = 'model.max_depth'")

    (fault,) = trace(settings, "green/champion")["faults"]

    assert fault.startswith("parameters of run")


def test_a_version_that_says_otherwise_than_its_run_is_named(settings):
    client = mlflow.MlflowClient(settings.tracking_uri, settings.tracking_uri)
    client.set_model_version_tag("taxi-green", "2", "data.2023-01", sha256_file(settings.month("green", "2023-02").raw))

    origin, raw, run, tags = sorted(trace(settings, "green/champion")["faults"])

    assert run.startswith("run ") and run.endswith("says otherwise than green/2 of data.2023-01")
    assert raw.startswith("raw month raw/green/2023-01.parquet has sha256")
    assert origin.startswith("origin raw/green/2023-01.json names the sha256")
    assert tags == "tags green/2 are not those that it was registered with"


def test_a_report_that_is_gone_from_the_run_is_named(settings):
    only(settings.data.parent, "mlartifacts/green/*/artifacts/reports/05-compare.html").unlink()

    assert trace(settings, "green/champion")["faults"] == ["report run/05-compare.html is gone from the run"]


def test_a_model_file_that_is_gone_is_named(settings):
    only(settings.data.parent, "mlartifacts/green/models/*/artifacts/data/winner/mean.ubj").unlink()

    (fault,) = trace(settings, "green/champion")["faults"]

    assert "missing is ['data/winner/mean.ubj']" in fault


def test_what_is_not_on_this_machine_is_said_and_is_no_fault(settings):
    settings.month("green", "2023-01").raw.unlink()
    shutil.rmtree(settings.reports)

    found = trace(settings, "green/champion")

    assert found["verified"]
    assert found["counts"]["away"] == 5
    assert [one["on_hand"] for one in found["raw"]] == [False, True, True]


def test_a_month_that_was_published_anew_is_verified_by_the_edition_that_was_kept(settings):
    paths = settings.month("green", "2023-01")
    old = sha256_file(paths.raw)
    kept = settings.data / "editions" / "green" / f"2023-01-{old[:12]}.parquet"
    kept.parent.mkdir(parents=True)
    paths.raw.rename(kept)
    paths.raw.write_bytes(b"another edition")
    paths.trips.write_bytes(b"made from it")
    write_origin(paths, sha256_file(paths.raw), previous=[make_edition(old)])

    found = trace(settings, "green/champion")
    assert (found["verified"], found["counts"]["away"]) == (True, 3)  # trips, quarantine and acceptance made from it

    flip(kept)
    assert f"raw month editions/green/{kept.name} has sha256" in trace(settings, "green/champion")["faults"][0]


def test_reports_that_a_later_run_made_anew_are_not_held_against_the_version(settings):
    paths = settings.month("green", JUDGE)
    (paths.reports / "05-compare.html").write_text("made anew")
    write_json(paths.reports / "month.json", {"fingerprint": "another"})

    assert trace(settings, "green/champion")["faults"] == [
        "month result reports/green/2023-03/month.json names a run that is not in the registry: 'another'"
    ]
    client = mlflow.MlflowClient(settings.tracking_uri, settings.tracking_uri)
    experiment = client.get_experiment_by_name("taxi-green")
    client.create_run(experiment.experiment_id, tags={"fingerprint": "another"})
    assert trace(settings, "green/champion")["verified"]


def test_a_lock_that_a_later_commit_changed_is_not_held_against_the_version(settings):
    (settings.root / "requirements.lock").write_text("numpy==3\n")
    git(settings.root, "commit", "--quiet", "-am", "newer numpy")

    found = trace(settings, "green/champion")

    assert found["verified"]
    assert {
        "what": "lock",
        "name": "requirements.lock",
        "status": "away",
        "reason": "a later commit changed it",
    } in found["checks"]


def log_prediction(settings: Settings, version: int = 2, **changes) -> dict[str, object]:
    """Write one row as the prediction log keeps it, with what the version really predicts."""
    folder = settings.month("green", JUDGE).models / "winner"
    trip = make_month("2023-03")[5:6]
    answer = load_model(folder).predict(
        trip[["pickup", "PULocationID", "DOLocationID", "passenger_count", "trip_type", "VendorID"]]
    )
    one = trip.iloc[0]
    row = {
        "prediction_id": ID, "made_at": "2023-04-01T00:00:00Z", "service": "green", "version": version, "trip_id": "t1",
        "arm": "champion", "pickup": str(one["pickup"]), "PULocationID": int(one["PULocationID"]),
        "DOLocationID": int(one["DOLocationID"]), "passenger_count": 1.0, "trip_type": 1.0, "vendor": 2.0,
        "planned_distance_miles": None, **{name: float(answer[name].iloc[0]) for name in ("mean", "median", "p10", "p90")},
    }  # fmt: skip
    row |= {"shadow": False, "fallback": False, "latency_ms": 0.2} | changes
    open_store(settings.predictions).write_predictions([row])
    return row


def test_a_prediction_leads_to_its_version_and_is_predicted_again(settings):
    log_prediction(settings)

    found = trace(settings, ID)

    assert (found["version"], found["verified"]) == ("green/2", True)
    assert found["prediction"]["trip_id"] == "t1"
    assert found["checks"][-1]["what"] == "lock"
    assert [one["status"] for one in found["checks"] if one["what"] == "prediction"] == ["same"]


def test_a_prediction_that_its_version_would_not_make_is_named(settings):
    row = log_prediction(settings, p90=59.5)

    (fault,) = trace(settings, ID)["faults"]

    assert fault.startswith(f"prediction {row['prediction_id']} p90 was answered as 59.5 minutes; the model says")


def test_a_prediction_that_is_not_in_the_log_is_wrong_usage(settings):
    with pytest.raises(UsageError, match=r"expected the prediction log at .*predictions\.db; there is none"):
        trace(settings, ID)
    log_prediction(settings)
    with pytest.raises(UsageError, match="the prediction log has no prediction"):
        trace(settings, "f" * 32)


def test_a_log_that_does_not_answer_is_not_a_log_without_the_prediction(settings):
    (settings.data / "predictions.db").write_bytes(b"not a database" * 100)

    with pytest.raises(TaxiError, match="did not answer"):
        trace(settings, ID)


def test_the_page_and_the_lines_tell_the_verdict_and_name_the_fault(settings, tmp_path):
    log_prediction(settings)
    flip(settings.month("green", "2023-01").raw)
    found = trace(settings, ID)

    page = write_lineage_page(found, tmp_path / "lineage.html").read_text()
    lines = write_text(found)

    for text in (page, lines):
        assert "NOT VERIFIED: 1 of" in text
        assert "raw month raw/green/2023-01.parquet has sha256" in text
        assert found["raw"][2]["sha256"] in text
    assert page.count("<rect") == 8
    assert "http" not in page.replace("https://example.org", "").replace("http://www.w3.org", "")


def test_the_command_exits_with_1_where_a_byte_was_changed(settings, monkeypatch, tmp_path):
    monkeypatch.chdir(settings.root)
    monkeypatch.setenv("TAXI_DATA", str(settings.data))
    monkeypatch.setenv("TAXI_REPORTS", str(settings.reports))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", settings.tracking_uri)
    words = ["lineage", "green/champion", "--json", "--html", str(tmp_path / "page.html")]

    done = CliRunner().invoke(app, words)
    assert (done.exit_code, json.loads(done.stdout)["verified"]) == (0, True)
    assert (tmp_path / "page.html").is_file()

    flip(settings.month("green", "2023-01").raw)
    done = CliRunner().invoke(app, words)
    assert (done.exit_code, json.loads(done.stdout)["verified"]) == (1, False)


def plant(artifacts: Path, fault: str) -> None:
    """Do to the store's copy of a model what someone with access to the store could do."""
    model = artifacts / "data" / "winner"
    if fault == "code":
        (artifacts / "code").mkdir()
        (artifacts / "code" / "hook.py").write_text("print('run')")
    elif fault == "pickle":
        (model / "model.pkl").write_bytes(b"\x80\x04.")
    elif fault == "loader":
        text = (artifacts / "MLmodel").read_text()
        (artifacts / "MLmodel").write_text(text.replace("taxi.pyfunc", "evil.pyfun"))
    elif fault == "link out":
        (model / "mean.ubj").unlink()
        (model / "mean.ubj").symlink_to("/etc/hostname")
    elif fault == "link in":
        (model / "mean.ubj").unlink()
        (model / "mean.ubj").symlink_to(model / "interval.ubj")
    elif fault == "many":
        for number in range(120):
            (model / f"part_{number}.ubj").write_bytes(b"{}")


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("code", "'code/hook.py' is code"),
        ("pickle", r"'data/winner/model.pkl' is a pickle by its name"),
        ("loader", "'MLmodel' has"),
        ("link out", "the store names a place outside of the model"),
        ("link in", r"'data/winner/mean\.ubj' has"),
        ("many", "100 files or more"),
    ],
)
def test_a_model_that_was_changed_in_the_store_is_refused_and_what_was_there_stays(settings, tmp_path, fault, said):
    artifacts = only(settings.data.parent, "mlartifacts/green/models/*/artifacts/data/winner").parents[1]
    plant(artifacts, fault)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "old").touch()

    with pytest.raises(UnsafeModel, match=f"green/2 is refused: .*{said}"):
        download_model(settings.tracking_uri, champion_now(settings.tracking_uri, "green"), tmp_path / "model")
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["old"]


def test_a_version_whose_manifest_is_gone_is_refused(settings, tmp_path):
    client = mlflow.MlflowClient(settings.tracking_uri, settings.tracking_uri)
    client.delete_model_version_tag("taxi-green", "2", "manifest")

    with pytest.raises(UnsafeModel, match="no manifest was recorded"):
        download_model(settings.tracking_uri, champion_now(settings.tracking_uri, "green"), tmp_path / "model")


def test_a_copied_version_is_the_same_model_and_leads_back_as_far(settings, tmp_path):
    one = find_version(settings.tracking_uri, "green/champion")

    made, _ = promote(settings.tracking_uri, one, "staging", OPEN, gate_faults(settings, one, "staging"), "ada")
    download_model(settings.tracking_uri, made, tmp_path / "model")
    found = verify_version(settings, made)

    assert made.label == "green/1 in staging"
    assert found["released_from"] == "green/2"
    assert found["verified"]
    assert gate_faults(settings, made, "prod") == {"lineage": None, "metrics": None}


def set_tag(settings: Settings, name: str, text: str) -> None:
    """Edit a tag of green/2 in the registry's database, as one with a password to it can."""
    with closing(sqlite3.connect(settings.data.parent / "mlflow.db")) as connection, connection:
        given = (text, "taxi-green", 2, name)
        done = connection.execute(
            "UPDATE model_version_tags SET value = ? WHERE name = ? AND version = ? AND key = ?", given
        )
        assert done.rowcount == 1


def enter_staging(settings: Settings, params: Params = OPEN) -> None:
    one = find_version(settings.tracking_uri, "green/champion")
    promote(settings.tracking_uri, one, "staging", params, gate_faults(settings, one, "staging"), "ada")


def test_a_metric_edited_in_the_database_is_named_and_opens_no_gate(settings):
    set_tag(settings, "metric.coverage80", "0.8")

    metrics, tags = trace(settings, "green/champion")["faults"][::-1]

    assert metrics.startswith("metrics green/2 say coverage80 0.8 where the report 05-compare.json has 0.6")
    assert tags == "tags green/2 are not those that it was registered with"
    with pytest.raises(Refused, match=r"metrics: metrics green/2 say coverage80 0.8 where predicting again has 0.6"):
        enter_staging(settings)


def test_figures_forged_in_tag_report_digest_and_seal_are_found_by_predicting_again(settings):
    reports = json.loads(find_version(settings.tracking_uri, "green/champion").tags["reports"])
    places = [only(settings.data.parent, "mlartifacts/green/*/artifacts/reports/05-compare.json")]
    for path in [*places, settings.month("green", JUDGE).reports / "05-compare.json"]:
        kept = read_json(path)
        write_json(path, kept | {"challenger": kept["challenger"] | {"coverage80": 0.8}})
    set_tag(settings, "metric.coverage80", "0.8")
    set_tag(settings, "reports", json.dumps(reports | {"05-compare.json": sha256_file(places[0])}))
    tags = find_version(settings.tracking_uri, "green/champion").tags
    set_tag(settings, "seal", sealed_digest(tags))
    client = mlflow.MlflowClient(settings.tracking_uri, settings.tracking_uri)
    client.set_tag(find_version(settings.tracking_uri, "green/champion").run_id, "seal.winner", sealed_digest(tags))

    assert trace(settings, "green/champion")["verified"]
    with pytest.raises(Refused, match=r"staging: metrics: .*where predicting again has 0.6"):
        enter_staging(settings)


def test_any_tag_edited_in_the_database_is_named(settings):
    set_tag(settings, "trained_to", "2023-04")

    assert "tags green/2 are not those that it was registered with" in trace(settings, "green/2")["faults"]


EDITS = [
    ("data/acceptance/green/2023-02.json", "status", "refused", "acceptance acceptance/green/2023-02.json has sha256"),
    ("reports/green/2023-03/month.json", "promoted", False, "month result reports/green/2023-03/month.json has sha256"),
    ("data/raw/green/2023-01.json", "sha256", "0" * 64, "origin raw/green/2023-01.json names the sha256 000"),
    (
        "data/raw/green/2023-02.json",
        "etag",
        "x",
        'origin raw/green/2023-02.json names the etag x; "2023-02" was recorded',
    ),
    ("data/raw/green/2023-03.json", "size", 12, "origin raw/green/2023-03.json has sha256"),
]


def test_edits_of_what_is_said_of_a_month_are_named(settings):
    for name, key, value, _ in EDITS:
        path = settings.data.parent / name
        write_json(path, read_json(path) | {key: value})

    faults = trace(settings, "green/champion")["faults"]

    assert len(faults) == len(EDITS)
    for *_, said in EDITS:
        assert any(fault.startswith(said) for fault in faults), said


def test_the_same_bytes_brought_anew_from_elsewhere_are_no_fault(settings):
    sidecar = settings.month("green", "2023-02").sidecar
    kept = read_json(sidecar)
    before = {name: kept[name] for name in ("address", "sha256", "size", "etag", "fetched_at")}
    write_json(sidecar, kept | {"address": "s3://mirror", "etag": "other", "previous": [before]})

    assert trace(settings, "green/champion")["verified"]


ASKING = OPEN.model_copy(update={"release": PARAMS.release.model_copy(update={"approval": ["staging"]})})


def approve_on(settings: Settings, name: str) -> None:
    report, one = settings.month("green", JUDGE).reports / name, find_version(settings.tracking_uri, "green/champion")
    approve(settings.tracking_uri, one, "staging", report.name, sha256_file(report), "ada", ASKING)


def test_an_approval_is_given_on_the_report_that_judged_the_version_and_on_no_other(settings):
    with pytest.raises(Refused, match=r"04-train.ipynb does not judge green/2; expected 05-compare.html"):
        approve_on(settings, "04-train.ipynb")
    with pytest.raises(Refused, match=r"approval: none yet"):
        enter_staging(settings, ASKING)

    approve_on(settings, "05-compare.html")
    enter_staging(settings, ASKING)


@pytest.mark.parametrize(
    "page", ["reports/green/2023-03/05-compare.html", "mlartifacts/green/*/artifacts/reports/05-compare.html"]
)
def test_a_page_that_was_changed_after_its_approval_keeps_the_version_out(settings, page):
    approve_on(settings, "05-compare.html")
    flip(only(settings.data.parent, page))

    with pytest.raises(Refused, match=r"record: .*05-compare.html has sha256"):
        enter_staging(settings, ASKING)


def test_an_approval_typed_into_the_database_is_none(settings):
    digest = find_version(settings.tracking_uri, "green/champion").deciding_reports["05-compare.html"]
    client = mlflow.MlflowClient(settings.tracking_uri, settings.tracking_uri)
    note = json.dumps({"at": "2023-05-01", "by": "eve", "report": "05-compare.html", "sha256": digest})
    client.set_model_version_tag("taxi-green", "2", "approved.staging", note)

    with pytest.raises(Refused, match=r"approval: none yet"):
        enter_staging(settings, ASKING)
