"""The commands of README on what production has: PostgreSQL for MLflow and for both stores, an MLflow server, S3 for all files."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import fsspec
import httpx
import pytest

from taxi.data.synthetic import write_sample
from tests.support.automation import SMALL, make_checkout
from tests.support.campaign import only_in_campaign
from tests.support.mlflow_server import KEYS, USER, running_mlflow, running_s3
from tests.support.postgres import Postgres, free_port, make_databases
from tests.support.serving_worlds import TRIP, wait_for
from tests.support.worlds import ROOT, World

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
TINY = SMALL | {"rounds": 30, "head_rounds": 10, "interval_rounds": 10, "planned": False}
MONTHS = ["2024-01", "2024-02"]


def make_versioned_checkout(folder: Path, remote: str, s3: str) -> Path:
    """Make a checkout that DVC keeps, with its remote on S3."""
    root = make_checkout(folder, {"model": TINY}, lean=True)
    (root / "taxi").symlink_to(ROOT / "taxi")
    (root / ".dvc").mkdir()
    for name in (".dvcignore", "dvc.yaml"):
        shutil.copyfile(ROOT / name, root / name)
    store = f"['remote \"s3\"']\n    url = {remote}\n    endpointurl = {s3}\n"
    (root / ".dvc" / "config").write_text(f"[core]\n    remote = s3\n    analytics = false\n{store}", encoding="utf-8")
    subprocess.run(["git", "init", "-q", str(root)], check=True)
    return root


@dataclass(frozen=True)
class Stack:
    """The world, first with PostgreSQL as MLflow's store, then with a server on it; ``system`` is S3."""

    direct: World
    served: World
    system: Any
    first: tuple[int, dict[str, Any]]
    folder: Path

    def stored(self, place: str) -> list[str]:
        self.system.invalidate_cache()
        return list(self.system.find(place))


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, postgres: Postgres, prefect: str) -> Iterator[Stack]:
    """Everything from an empty folder, and one month run."""
    place = tmp_path_factory.mktemp("stack")
    write_sample(place / "published", "green", MONTHS, rows=1200)
    registry, stores = make_databases(postgres, "stack_mlflow", "stack_taxi")
    with running_s3() as s3, pytest.MonkeyPatch.context() as patch:
        keys = KEYS | {"AWS_ENDPOINT_URL": s3, "MLFLOW_S3_ENDPOINT_URL": s3}
        for name, value in keys.items():
            patch.setenv(name, value)
        system = fsspec.filesystem("s3", skip_instance_cache=True)
        for bucket in ("tlc", "mlflow", "dvc"):
            system.mkdir(bucket)
        system.put(f"{place}/published/", "s3://tlc/", recursive=True)
        root = make_versioned_checkout(place / "checkout", "s3://dvc/taxi", s3)
        places = {
            "TAXI_SOURCE": "s3://tlc",
            "TAXI_DATA": str(root / "data"),
            "TAXI_REPORTS": str(root / "reports"),
            "TAXI_PREDICTIONS": stores,
            "TAXI_METRICS": stores,
            "TAXI_ARTIFACTS": "s3://mlflow/direct",
            "MLFLOW_TRACKING_URI": registry,
            "PREFECT_API_URL": prefect,
            "PREFECT_HOME": str(place / "prefect"),
        }
        direct = World(place, keys | places, root, fresh=True)
        first = direct.answer("run", "--service", "green", "--month", MONTHS[0])
        with running_mlflow(registry, place, keys) as server:
            served = replace(direct, more=direct.more | {"MLFLOW_TRACKING_URI": server} | USER)
            yield Stack(direct, served, system, first, place)


def test_a_month_runs_on_postgresql_and_its_models_and_files_are_on_s3(stack: Stack) -> None:
    code, month = stack.first

    assert (code, month["status"], month["promoted"], month["winner"]) == (0, "done", True, 2)
    assert any(name.endswith("MLmodel") for name in stack.stored("mlflow/direct/green"))
    assert len(stack.stored("dvc/taxi")) > 10
    assert not list(stack.folder.rglob("mlruns")) and not list(stack.folder.rglob("*.db"))
    assert not (stack.direct.root / "data" / "mlartifacts").exists()


@pytest.mark.parametrize("through", ["direct", "served"])
def test_commands_that_read_say_the_same_of_the_database_and_of_a_server_on_it(stack: Stack, through: str) -> None:
    world: World = getattr(stack, through)

    status, (traced, lineage) = world.taxi("status", "--service", "green"), world.answer("lineage", "green/champion")

    assert (status.returncode, traced, lineage["verified"], lineage["faults"]) == (0, 0, True, [])
    assert "1 months on hand" in status.stdout and "champion green/2, trained to 2024-01" in status.stdout


def test_the_stores_and_the_checks_answer_as_on_sqlite(stack: Stack) -> None:
    scored, scores = stack.served.answer(
        "score", "--service", "green", "--month", MONTHS[0], "--out", str(stack.folder / "scores.parquet")
    )
    shown, metrics = stack.served.answer("metrics", "show")
    outcomes = stack.served.answer("outcomes", "--service", "green", "--month", MONTHS[0])
    alarms = stack.served.answer("alarms", "check", "--service", "green", "--live")
    doctor, found = stack.served.answer("doctor")

    assert (scored, scores["scored"]) == (0, stack.first[1]["rows"]["raw"] - sum(scores["not_scorable"].values()))
    assert shown == 0 and {row["at"] for row in metrics["month"]} == {MONTHS[0]}
    assert (outcomes[0], outcomes[1]["predicted"], alarms[0]) == (0, 0, 0)
    broken = [one["name"] for one in found["findings"] if one["level"] == "broken"]
    assert (doctor, broken) in ((0, []), (1, ["disk"]), (1, ["packages"]))  # the machine's own affairs


@pytest.mark.parametrize("password", ["", "canary-wrong"])
def test_a_missing_or_wrong_password_of_mlflow_is_one_line_that_names_its_variable(stack: Stack, password: str) -> None:
    world = replace(stack.served, more=stack.served.more | {"MLFLOW_TRACKING_PASSWORD": password})

    done = world.taxi("status", "--service", "green")

    assert done.returncode == 1 and "refused the user or his password: set MLFLOW_TRACKING_USERNAME and" in done.stderr
    assert len(done.stderr.splitlines()) == 1 and "canary" not in done.stderr


def test_a_clone_on_another_machine_pulls_and_opens_the_same_pages(stack: Stack) -> None:
    place, root = stack.folder / "another", stack.direct.root
    (place / "home").mkdir(parents=True)
    subprocess.run(["git", "-C", str(root), "add", "-A"], check=True)
    author = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run(["git", "-C", str(root), *author, "commit", "-qm", "a month"], check=True)
    subprocess.run(["git", "clone", "-q", str(root), str(place / "clone")], check=True)
    clone = place / "clone"
    own = {"HOME": str(place / "home"), "PREFECT_HOME": str(place / "prefect"), "LOGNAME": "another"}
    own |= {"TAXI_DATA": str(clone / "data"), "TAXI_REPORTS": str(clone / "reports")}
    world = replace(stack.served, more=stack.served.more | own, root=clone)

    pulled = subprocess.run(
        [sys.executable, "-m", "dvc", "pull", "-q"], cwd=clone, env=world.environment, capture_output=True, check=False
    )
    status, (traced, lineage) = world.taxi("status", "--service", "green"), world.answer("lineage", "green/champion")

    assert pulled.returncode == 0, pulled.stderr.decode()
    pages = {path.relative_to(root) for path in (root / "reports" / "green").rglob("*.html")}
    assert pages and all((clone / page).read_bytes() == (root / page).read_bytes() for page in pages)
    assert status.stdout == stack.served.taxi("status", "--service", "green").stdout
    assert (traced, lineage["verified"], lineage["faults"]) == (0, True, [])


@pytest.mark.campaign
@only_in_campaign
def test_every_command_of_the_readme_ends_as_on_sqlite(stack: Stack) -> None:
    world, port = stack.served, str(free_port())
    months = ("--service", "green", "--from", MONTHS[0], "--to", MONTHS[1])
    second = ("--service", "green", "--month", MONTHS[1])
    assert world.answer("backfill", *months)[0] == 0
    assert any("MLmodel" in name for name in stack.stored("mlflow"))
    service = world.start("serve", "--service", "green", "--port", port, start_new_session=True)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for(lambda: _is_ready(url), "the service", 200)
        assert httpx.post(f"{url}/predict", json=TRIP).status_code == 200
        replayed = world.answer("replay", *second, "--url", url, "--speed", "0", "--trips", "300")
        assert (replayed[0], replayed[1]["answered"]) == (0, 300)
    finally:
        service.terminate()
        assert service.wait(60) == 0, service.stderr and service.stderr.read()
    assert world.answer("outcomes", *second)[1]["predicted"] == 300
    report = ("alarms", "check", "--service", "green")
    listed: list[tuple[tuple[str, ...], int]] = [
        (("experiment", "plan", "--service", "green"), 1),  # the second month was calm: it trained no challenger
        (("experiment", "report", "--service", "green"), 1),  # no experiment is set in params.yaml
        ((*report, "--month", MONTHS[1]), 0),
        ((*report, "--live"), 0),
        (("alarms", "list"), 0),
        (("alarms", "drill"), 0),
        (("metrics", "collect"), 0),
        (("metrics", "page"), 0),
        (("search", *second, "--trials", "1"), 1),  # two months before are needed
        (("backtest", *months, "--policy", "always"), 0),
        (("promote", "green/champion", "--to", "staging"), 0),
        (("rollback", "--service", "green", "--reason", "a test"), 4),  # nothing before the first champion
        (("lineage", "green/champion", "--html", str(stack.folder / "lineage.html")), 0),
        (("status",), 0),
        (("maturity",), 0),
    ]
    ended = [(words, world.taxi(*words)) for words, _ in listed]
    wrong = {
        words: (done.returncode, done.stderr[-800:])
        for (words, done), (_, code) in zip(ended, listed, strict=True)
        if done.returncode != code
    }
    assert not wrong, "\n".join(map(str, wrong.items()))


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz").status_code == 200
    except httpx.TransportError:
        return False
