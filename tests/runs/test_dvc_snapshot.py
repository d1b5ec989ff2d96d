"""DVC keeps every month, and rebuilds only what changed."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from dvc.repo import Repo

from taxi.config import NOTEBOOKS, MonthPaths
from taxi.files import read_json, write_json, write_model
from taxi.fingerprint import imports_of, modules_of
from taxi.runs.dvc_snapshot import keep_edition, read_newest, snapshot
from taxi.runs.month_result import JudgedModel, result_file
from taxi.training.plan import Plan, write_plan
from tests.support.campaign import at_scale
from tests.support.month_results import make_compare, make_result, make_step, write_acceptance, write_origin
from tests.support.postgres import free_port

CHECKOUT = Path(__file__).resolve().parents[2]
COPIED = (".dvc/config", ".dvc/.gitignore", ".dvcignore", "dvc.yaml", "params.yaml", "notebooks", "taxi", ".gitignore")
pytestmark = pytest.mark.slow  # real DVC repositories: some twenty seconds in all
ROWS = {"raw": 10, "kept": 8, "quarantined": 2, "reasons": {"too-short": 2}}


def _copy(source: Path, target: Path) -> None:
    for name in COPIED:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        if (source / name).is_dir():
            shutil.copytree(source / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(source / name, target / name)


def _git(root: Path, *arguments: str) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    return subprocess.run(["git", "-C", str(root), *who, *arguments], check=True, capture_output=True, text=True).stdout


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    root = tmp_path / "checkout"
    root.mkdir()
    _copy(CHECKOUT, root)
    (root / ".dvc" / "config.local").write_text(f"['remote \"local\"']\n    url = {tmp_path / 'store'}\n")
    (root / "data" / "zones").mkdir(parents=True)
    (root / "data" / "zones" / "taxi_zones.zip").write_text("zones")
    _git(root, "init", "-q")
    return root


def write_month(root: Path, month: str, trained: bool = True, status: str = "done", edition: str = "1") -> MonthPaths:
    paths = MonthPaths(root / "data", root / "reports", "green", month)
    for path in (paths.raw, paths.trips, paths.quarantine):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{month} {path.parent.parent.name} {edition}")
    write_origin(paths)
    write_acceptance(paths, rows=ROWS)
    scores = {"rmse": 5.0 + int(edition) / 10}
    champion = JudgedModel(version=3, metrics=scores)
    write_model(result_file(paths), make_result(month, status=status, champion=champion))
    if status != "done":
        paths.trips.unlink()
        return paths
    earlier = [path.stem for path in sorted(paths.trips.parent.glob("*.parquet")) if path.stem <= month]
    write_plan(paths, Plan("green", month, earlier, earlier, None, None))
    names = ["01-explore", "02-features", "03-monitor", *(["04-train", "05-compare"] if trained else [])]
    for name in names:
        (paths.reports / f"{name}.html").write_text(f"<p>{month} {edition}</p>")
        (paths.reports / f"{name}.ipynb").write_text("{}")
        recorded = make_step(name, verdict="calm", checks=[], metrics=scores)
        write_json(paths.reports / f"{name}.json", make_compare(scores) if name == "05-compare" else recorded)
    (paths.reports / "03-monitor-evidently.html").write_text(f"<p>{month} {edition}</p>")
    if trained:
        write_json(paths.models / "challenger" / "recipe.json", {"month": month, "edition": edition})
    (root / "reports" / "index.html").write_text(f"<p>to {month}</p>")
    return paths


def take(root: Path, month: str | None = None, push: bool = False) -> str | None:
    return snapshot(root, root / "data", root / "reports", month and "green", month, push=push)


def changed(root: Path) -> dict:
    with Repo(str(root)) as repo:
        return repo.status()


def rebuilt(root: Path) -> list[str]:
    with Repo(str(root)) as repo:
        return [stage.addressing for stage in repo.reproduce(str(root / "dvc.yaml"), all_pipelines=True)]


@pytest.mark.parametrize("trained", [True, False])
def test_after_a_run_nothing_has_changed_and_nothing_is_rebuilt(checkout, trained):
    write_month(checkout, "2023-01")
    write_month(checkout, "2023-02", trained=trained)

    assert take(checkout, "2023-02") is None

    assert changed(checkout) == {}
    assert rebuilt(checkout) == []
    assert set(read_newest(checkout)["trained"]) == ({"green"} if trained else set())


def test_the_month_before_moves_from_the_stages_to_its_own_file(checkout):
    for month in ("2023-01", "2023-02", "2023-03"):
        write_month(checkout, month)
        take(checkout, month)
        assert changed(checkout) == {}

    assert read_newest(checkout)["published"] == {"green": "2023-03"}
    assert "reports/green/2023-02\n" in (checkout / "published/green/2023-02.dvc").read_text()
    assert "reports/green/2023-03\n" not in (checkout / "published/green/2023-03.dvc").read_text()


def test_a_month_that_was_skipped_by_policy_after_one_that_was_trained_is_clean(checkout):
    write_month(checkout, "2023-01", trained=True)
    take(checkout, "2023-01")
    write_month(checkout, "2023-02", trained=False)
    take(checkout, "2023-02")

    assert changed(checkout) == {}
    assert rebuilt(checkout) == []


def test_an_older_month_run_later_leaves_the_newest_as_it_is(checkout):
    write_month(checkout, "2023-03")
    take(checkout, "2023-03")
    write_month(checkout, "2023-01")
    take(checkout, "2023-01")

    assert read_newest(checkout)["published"] == {"green": "2023-03"}
    assert changed(checkout) == {}


def test_a_changed_month_of_the_window_is_a_reason_to_rebuild(checkout):
    write_month(checkout, "2023-01")
    write_month(checkout, "2023-02")
    take(checkout, "2023-02")
    write_month(checkout, "2023-01", edition="2")
    take(checkout, "2023-01")

    assert {name.split(":")[-1] for name in changed(checkout)} == {
        "explore@green", "features@green", "monitor@green", "train@green"
    }  # fmt: skip


def test_a_changed_promotion_rule_concerns_the_comparison_alone(checkout):
    write_month(checkout, "2023-01")
    take(checkout, "2023-01")
    params = (checkout / "params.yaml").read_text()
    (checkout / "params.yaml").write_text(params.replace("slice_loss: 0.03", "slice_loss: 0.05"))

    assert [name.split(":")[-1] for name in changed(checkout)] == ["compare@green"]


@pytest.mark.parametrize(("code", "stages"), [
    ("features/history.py", ["compare", "features", "monitor", "train"]),
    ("monitoring/drift.py", ["monitor"]),
    ("reporting/plots.py", []),
    ("serving/app.py", []),
    ("templates/report/index.html.j2", []),
])  # fmt: skip
def test_changed_code_concerns_the_stages_that_it_computes(checkout, code, stages):
    write_month(checkout, "2023-01")
    take(checkout, "2023-01")
    with (checkout / "taxi" / code).open("a") as file:
        file.write("\n# another comment\n")

    assert sorted(name.split(":")[-1] for name in changed(checkout)) == [f"{stage}@green" for stage in stages]


STEPS = {name.partition("-")[2]: CHECKOUT / f"notebooks/{name}.ipynb" for name in NOTEBOOKS}


@pytest.mark.parametrize("stage", ["clean", *STEPS])
def test_a_stage_names_all_the_code_that_computes_it(stage):
    roots = ["taxi.data.acceptance"] if stage == "clean" else [*imports_of(STEPS[stage]), "taxi.runs.notebooks"]
    deps = yaml.safe_load((CHECKOUT / "dvc.yaml").read_text())["stages"][stage]["do"]["deps"]
    named = {name.removesuffix(".py").replace("/", ".") for name in deps if name.startswith("taxi/")}

    rooms = {".".join(module.split(".")[:2]) for module in modules_of(*roots)} - {"taxi"}

    assert named == rooms


def test_bytecode_and_staged_files_are_no_change(checkout):
    write_month(checkout, "2023-01")
    take(checkout, "2023-01")
    (checkout / "taxi/data/__pycache__").mkdir()
    (checkout / "taxi/data/__pycache__/trips.cpython-311.pyc").write_text("")
    (checkout / "reports/green/2023-01/.01-explore.part-1-abc.html").write_text("")

    assert changed(checkout) == {}


def test_a_refused_month_is_kept_and_is_not_published(checkout):
    write_month(checkout, "2023-01")
    take(checkout, "2023-01")
    write_month(checkout, "2023-02", status="refused")
    take(checkout, "2023-02")

    assert read_newest(checkout)["published"] == {"green": "2023-01"}
    assert changed(checkout) == {}
    assert "data/raw/green/2023-02.parquet" in (checkout / "published/green/2023-02.dvc").read_text()


def test_a_newest_month_whose_new_edition_is_refused_steps_down(checkout):
    for month in ("2023-01", "2023-02"):
        write_month(checkout, month)
        take(checkout, month)
    write_month(checkout, "2023-02", status="refused", edition="2")
    take(checkout, "2023-02")

    assert read_newest(checkout)["published"] == {"green": "2023-01"}


def test_a_clone_pulls_the_same_pages(checkout, tmp_path):
    for month in ("2023-01", "2023-02"):
        write_month(checkout, month)
    assert take(checkout, "2023-02", push=True) is None
    _git(checkout, "add", "-A")
    _git(checkout, "commit", "-q", "-m", "Publish")
    clone = tmp_path / "elsewhere" / "clone"
    _git(tmp_path, "clone", "-q", str(checkout), str(clone))
    shutil.copyfile(checkout / ".dvc/config.local", clone / ".dvc/config.local")

    subprocess.run([sys.executable, "-m", "dvc", "pull", "-q"], cwd=clone, check=True)

    for page in ("index.html", "green/2023-01/05-compare.html", "green/2023-02/05-compare.html"):
        assert (clone / "reports" / page).read_bytes() == (checkout / "reports" / page).read_bytes()
    assert changed(clone) == {}
    assert not [name for name in _git(clone, "ls-files").split() if name.startswith(("data/", "reports/"))]


def test_metrics_of_two_commits_can_be_compared(checkout):
    for month, edition in (("2023-01", "1"), ("2023-02", "4")):
        write_month(checkout, month, edition=edition)
        take(checkout, month)
        _git(checkout, "add", "-A")
        _git(checkout, "commit", "-q", "-m", month)

    with Repo(str(checkout)) as repo:
        found = repo.metrics.diff("HEAD~1", "HEAD")["diff"]["published/green/metrics.json"]

    assert found["champion.rmse"] == {"old": 5.1, "new": 5.4, "diff": pytest.approx(0.3)}


def test_a_clone_without_the_data_does_not_step_back(checkout):
    write_month(checkout, "2023-03")
    take(checkout, "2023-03")
    shutil.rmtree(checkout / "reports")
    write_month(checkout, "2023-01")
    take(checkout, "2023-01")

    assert read_newest(checkout)["published"] == {"green": "2023-03"}


def test_a_republished_month_leaves_its_old_edition(checkout):
    paths = write_month(checkout, "2023-01")
    take(checkout, "2023-01")
    old = paths.raw.read_bytes()

    kept = keep_edition(checkout, paths.raw)
    write_month(checkout, "2023-01", edition="2")
    take(checkout, "2023-01")

    assert kept.read_bytes() == old
    assert keep_edition(checkout, paths.raw) != kept
    assert changed(checkout) == {}


def test_folders_elsewhere_are_not_versioned_and_the_reason_says_so(checkout, tmp_path):
    reason = snapshot(checkout, tmp_path / "data", checkout / "reports")

    assert "this run used" in reason
    assert not (checkout / "published").exists()


def test_a_store_that_cannot_be_written_is_said_and_costs_nothing_else(checkout, tmp_path):
    (tmp_path / "store").write_text("a file where the folder should be")
    write_month(checkout, "2023-01")

    assert "not pushed" in take(checkout, "2023-01", push=True)
    assert changed(checkout) == {}


@pytest.mark.campaign
def test_processes_at_once_wait_for_each_other(checkout):
    write_month(checkout, "2023-01")
    code = (
        "from pathlib import Path; from taxi.runs.dvc_snapshot import snapshot; import sys; r = Path(sys.argv[1]);"
        "sys.exit(snapshot(r, r / 'data', r / 'reports', 'green', '2023-01'))"
    )
    running = [
        subprocess.Popen([sys.executable, "-c", code, str(checkout)], cwd=CHECKOUT) for _ in range(at_scale(2, 6))
    ]

    assert [process.wait() for process in running] == [0] * len(running)
    assert changed(checkout) == {}
    assert read_json(checkout / "published/green/metrics.json")["month"] == "2023-01"


def test_a_remote_on_s3_that_is_down_is_said_in_seconds_and_fails_no_month(checkout: Path, tmp_path: Path) -> None:
    store = f"['remote \"local\"']\n    url = s3://bucket/taxi\n    endpointurl = http://127.0.0.1:{free_port()}\n"
    (checkout / ".dvc" / "config.local").write_text(store)
    write_month(checkout, "2023-01")

    said = take(checkout, "2023-01", push=True)

    assert said and said.startswith("kept in DVC's cache, but not pushed: http://127.0.0.1")
