"""Images: their recipe, locks and bills; under ``make campaign`` both are built twice, run read-only and pushed."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from images.build import BUILD, TARGETS, accept_built, checked_base, forget_builder, sha256
from images.container import Container, container_of, stop
from images.sbom import locked_packages, make_sbom
from taxi.registry.provenance import committed_sha256, describe_code

ROOT = Path(__file__).resolve().parents[2]
RECIPE_FILE = ROOT / "images/Containerfile"
RECIPE = RECIPE_FILE.read_text(encoding="utf-8")
STAGES = dict(re.findall(r"^FROM (?:\S+) AS (\S+)\n((?:(?!^FROM ).*\n)*)", RECIPE, re.MULTILINE))
PYTHON = "3.11.2"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def read_lock(name: str) -> str:
    return (ROOT / f"{name}.lock").read_text(encoding="utf-8")


def test_every_stage_begins_with_the_given_base_or_an_earlier_stage() -> None:
    beginnings = re.findall(r"^FROM (\S+) AS", RECIPE, re.MULTILINE)

    assert set(beginnings) <= {"${BASE}", *STAGES}
    assert re.findall(r"^ARG BASE.*", RECIPE, re.MULTILINE) == ["ARG BASE"]
    assert set(TARGETS) <= set(STAGES)


@pytest.mark.parametrize("target", TARGETS)
def test_an_image_runs_as_a_number_and_says_what_it_was_made_from(target: str) -> None:
    stage = STAGES[target]

    assert "USER 1000:1000" in stage and "HEALTHCHECK" in stage and "ENTRYPOINT" not in RECIPE
    assert 'revision="${COMMIT}"' in stage and 'taxi.lock.sha256="${LOCK}"' in stage
    assert f"--require-hashes --no-deps -r /context/{target}.lock" in STAGES[f"{target}-packages"]
    assert 'VOLUME ["/data", "/tmp"]' in STAGES["runtime"]


def test_the_recipe_names_no_address_but_the_services_own_probe() -> None:
    assert re.findall(r"\w+://[^'\"]+", RECIPE) == ["http://127.0.0.1:8000/healthz"]
    assert "--no-index" in (ROOT / "images/install").read_text(encoding="utf-8")


def test_terraform_runs_the_images_as_they_are_meant_to_be_run() -> None:
    tasks = (ROOT / "terraform/tasks.tf").read_text(encoding="utf-8")
    repositories = re.search(
        r"for_each = toset\((\[.*\])\)", (ROOT / "terraform/images.tf").read_text(encoding="utf-8")
    )

    assert repositories and json.loads(repositories.group(1)) == list(TARGETS)
    assert re.findall(r'user +\= "(.*)"', tasks) == ["1000:1000"] and "readonlyRootFilesystem = true" in tasks
    assert {path for path in re.findall(r'"(/\w+)"', tasks) if path != "/data/reports"} == {"/data", "/tmp"}


def test_the_jobs_lock_is_the_whole_one_without_the_tools_of_development() -> None:
    whole, jobs, service = (locked_packages(read_lock(name), PYTHON) for name in ("requirements", "jobs", "service"))
    versions = {name: {package: version for package, (version, _) in lock.items()} for name, lock in
                (("whole", whole), ("jobs", jobs), ("service", service))}  # fmt: skip

    assert versions["service"].items() < versions["jobs"].items() < versions["whole"].items()
    assert {"mlflow", "prefect", "dvc", "evidently", "papermill", "distributed"} <= set(jobs)
    assert not {"pytest", "moto", "mypy", "ruff", "hypothesis", "pre-commit", "schemathesis", "zizmor"} & set(jobs)
    assert not {name for name in jobs if name.startswith("nvidia")}


@pytest.mark.parametrize("target", TARGETS)
def test_a_bill_lists_what_the_lock_installs_and_the_wheel_of_each(target: str) -> None:
    packages = locked_packages(read_lock(target), PYTHON)
    wheels = {min(accepted) for _, accepted in packages.values()}

    bill = make_sbom(f"taxi/{target}", COMMIT, read_lock(target), wheels, PYTHON)

    assert {part["name"]: part["version"] for part in bill["components"]} == {n: v for n, (v, _) in packages.items()}
    assert {part["hashes"][0]["content"] for part in bill["components"]} == wheels
    assert all(part["purl"] == f"pkg:pypi/{part['name']}@{part['version']}" for part in bill["components"])
    assert bill == make_sbom(f"taxi/{target}", COMMIT, read_lock(target), wheels, PYTHON)


def test_a_lock_is_read_for_the_python_of_the_base() -> None:
    assert "async-timeout" in locked_packages(read_lock("jobs"), "3.11.2")
    assert "async-timeout" not in locked_packages(read_lock("jobs"), "3.11.9")


def test_a_bill_without_a_wheel_is_refused() -> None:
    with pytest.raises(KeyError, match="expected a wheel of alembic"):
        make_sbom("taxi/service", COMMIT, read_lock("service"), set(), PYTHON)


def test_a_wheel_that_was_built_here_is_accepted_beside_the_locked_ones(tmp_path: Path) -> None:
    (tmp_path / "a_b-1.0-py3-none-any.whl").write_bytes(b"built")
    before = "a-b==1.0 ; os_name == 'posix' \\\n    --hash=sha256:00\na-b-c==1.0 \\\n    --hash=sha256:11\n"

    after = accept_built(before, tmp_path)

    built = sha256(tmp_path / "a_b-1.0-py3-none-any.whl")
    assert after == before.replace("'posix' \\", f"'posix' --hash=sha256:{built} \\")


@pytest.mark.parametrize("base", ["python:3.11-slim-bookworm", "python@sha256:12", "docker.io/localhost/base"])
def test_a_base_that_may_change_its_bytes_is_refused(base: str) -> None:
    with pytest.raises(SystemExit, match="expected a base by digest"):
        checked_base(base)

    assert checked_base(f"python:3.11-slim-bookworm@sha256:{'0' * 64}")


def test_a_configuration_without_its_builder_is_the_same_on_every_machine(tmp_path: Path) -> None:
    digests = []
    for host in ("one", "two"):
        (tmp_path / host).mkdir()
        steps = [{"created_by": f"COPY dir:{sha256(RECIPE_FILE)} in /srv", "comment": f"FROM {host}"}]
        settings = {"Hostname": host, "User": "1000"}
        config = {"container": host, "container_config": settings, "config": settings, "history": steps}
        (tmp_path / host / "11").write_text(json.dumps(config))
        (tmp_path / host / "manifest.json").write_text(json.dumps({"config": {"digest": "sha256:11", "size": 1}}))

        digests.append(forget_builder(tmp_path / host))

    assert digests[0] == digests[1]
    manifest = json.loads((tmp_path / "one/manifest.json").read_text())
    kept = tmp_path / "one" / manifest["config"]["digest"].removeprefix("sha256:")
    assert (
        json.loads(kept.read_text())["config"]["User"] == "1000" and kept.stat().st_size == manifest["config"]["size"]
    )


def test_an_image_names_its_commit_without_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAXI_COMMIT", COMMIT)
    outside = describe_code(tmp_path)
    inside = describe_code(ROOT)
    monkeypatch.setenv("PATH", str(tmp_path))

    assert (outside["git_commit"], outside["git_dirty"]) == (COMMIT, "false")
    assert inside["git_commit"] != COMMIT
    assert describe_code(tmp_path)["git_commit"] == COMMIT
    assert committed_sha256(tmp_path, COMMIT, "requirements.lock") is None
    monkeypatch.delenv("TAXI_COMMIT")
    assert describe_code(tmp_path)["git_commit"] == "none"


# --- what costs minutes: both images, built, run and pushed

KEY = "a-key-of-a-test-0123456789"
Built = dict[str, dict[str, Any]]
TRIP = {"PULocationID": 74, "DOLocationID": 138, "pickup_datetime": "2024-02-06T08:15:00", "trip_id": "a-1"}


def build(*words: str) -> Built:
    base = os.environ.get("TAXI_IMAGES_BASE", "debootstrap")
    subprocess.run([sys.executable, "-m", "images.build", "--base", base, *words], cwd=ROOT, check=True)
    return {target: json.loads((BUILD / f"{target}.json").read_text()) for target in TARGETS}


@pytest.fixture(scope="module")
def built() -> Built:
    if not os.environ.get("TAXI_CAMPAIGN"):
        pytest.skip("only at full scale")
    if os.geteuid() or not all(map(shutil.which, ("buildah", "skopeo", "debootstrap", "docker-registry"))):
        pytest.skip("images need root, buildah, skopeo, debootstrap and docker-registry")
    return build()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def month(built: Built, data: Path) -> dict[str, Any]:
    """A month of the sample city, run in the jobs image on a read-only root as uid 1000."""
    with container_of(built["jobs"]["image"]) as jobs:
        sample = "sample --service green --from 2024-01 --to 2024-01 --rows 2500 --out source"
        answer(jobs, data, "taxi", *sample.split())
        run = "run --service green --month 2024-01 --source source --no-version --json"
        return json.loads(answer(jobs, data, "taxi", *run.split()).splitlines()[-1])


def answer(container: Container, data: Path, *words: str, **environment: str) -> str:
    process = container.start(data, *words, environment=environment, stdout=subprocess.PIPE, text=True)
    said, _ = process.communicate(timeout=500)
    assert process.returncode == 0, said
    return said


@pytest.fixture
def service(built: Built, month: dict[str, Any], data: Path) -> Iterator[Container]:
    with container_of(built["service"]["image"]) as container:
        yield container


def ask(url: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    content = json.dumps(body).encode() if body else None
    headers = {"Content-Type": "application/json", "X-API-Key": KEY}
    with urllib.request.urlopen(urllib.request.Request(url, content, headers), timeout=10) as response:
        return json.loads(response.read())


def wait_for_answer(url: str, seconds: float) -> dict[str, Any]:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            return ask(f"{url}/predict", TRIP)
        except OSError:  # refused, reset, or late
            time.sleep(0.1)
    raise AssertionError(f"no answer within {seconds} s")


@pytest.mark.slow
@pytest.mark.campaign
@pytest.mark.timeout(3000)
def test_the_jobs_image_runs_a_month_on_a_read_only_root(month: dict[str, Any], built: Built, data: Path) -> None:
    assert (month["status"], month["promoted"]) == ("done", True)
    assert (data / "reports/green/2024-01/05-compare.html").is_file()
    with container_of(built["jobs"]["image"]) as jobs:
        assert built["jobs"]["commit"][:12] in answer(jobs, data, "taxi", "lineage", "--service", "green", "champion")
        assert "mlflow, version" in answer(jobs, data, "mlflow", "--version")
        load = "from prefect.flows import load_flow_from_entrypoint as load; print(load('pipelines/arrivals.py:arrivals').name)"
        in_checkout = ("sh", "-c", 'cd /srv/taxi/checkout && test -f prefect.yaml && python -c "$0"')
        assert "arrivals" in answer(jobs, data, *in_checkout, load)


@pytest.mark.slow
@pytest.mark.campaign
@pytest.mark.timeout(3000)
def test_the_service_answers_within_15_seconds_and_ends_clean(service: Container, data: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    began = time.monotonic()
    words = [*service.config["Cmd"], "--port", port]

    process = service.start(data, *words, environment={"TAXI_API_KEYS": KEY})
    answered = wait_for_answer(f"http://127.0.0.1:{port}", 60)
    seconds = time.monotonic() - began

    (first,) = psutil.Process(process.pid).children()
    assert seconds <= 15 and answered["version"] == 1
    assert (first.uids().real, first.gids().real) == (1000, 1000)
    probe = [word.replace("8000", port) for word in service.config["Healthcheck"]["Test"][1:]]
    assert service.start(data, *probe).wait(30) == 0
    refused = service.start(data, "touch", "/srv/taxi/here", stderr=subprocess.PIPE, text=True)
    assert "Read-only file system" in refused.communicate(timeout=30)[1]

    for number in range(500):
        ask(f"http://127.0.0.1:{port}/predict", TRIP | {"trip_id": f"b-{number}"})
    stop(process)

    assert process.wait(90) == 0
    assert service.start(data, *probe, stderr=subprocess.DEVNULL).wait(30) == 1
    count = "import sqlite3; print(*sqlite3.connect('/data/predictions.db').execute('SELECT count(*) FROM predictions').fetchone())"
    assert int(answer(service, data, "python", "-c", count)) == 501


@pytest.mark.slow
@pytest.mark.campaign
@pytest.mark.timeout(3000)
def test_no_address_of_the_builder_is_in_an_image(built: Built) -> None:
    listed = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True)
    given = listed.stdout + "\n".join(
        value for name, value in os.environ.items() if re.match("PIP_|UV_|.*_PROXY", name, re.I)
    )
    places = {place for place in re.findall(r"\w+://([^/\s'@]*@)?([^/\s']+)", given) for place in place if place}
    places |= set(re.findall(r"^nameserver (\S+)", Path("/etc/resolv.conf").read_text(), re.MULTILINE))

    for target in TARGETS:
        with container_of(built[target]["image"]) as container:
            said = json.dumps(container.config) + (BUILD / target / "manifest.json").read_text()
            patterns = [f"-e{place}" for place in {"/context/", *places}]
            searched = [container.root / "srv/taxi", container.root / "etc"]
            found = subprocess.run(["grep", "-rlF", *patterns, *searched], capture_output=True, text=True).stdout
        assert [place for place in places if place in said] == []
        assert found == ""


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    config = (
        f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {tmp_path}/registry}}}}\nhttp: {{addr: '{address}'}}\n"
    )
    (tmp_path / "registry.yml").write_text(config)
    process = subprocess.Popen(["docker-registry", "serve", tmp_path / "registry.yml"], stderr=subprocess.DEVNULL)
    yield address
    process.terminate()
    process.wait(10)


@pytest.mark.slow
@pytest.mark.campaign
@pytest.mark.timeout(3000)
def test_a_second_build_gives_the_same_bytes_and_a_registry_the_same_digest(built: Built, registry: str) -> None:
    again = build("--fresh", "--registry", f"{registry}/taxi-dev")

    assert built["service"]["bytes"] <= 800e6
    for target in TARGETS:
        name, digest = again[target]["pushed"], again[target]["digest"]
        assert digest == built[target]["digest"]
        assert name == f"{registry}/taxi-dev/{target}:build-{built[target]['commit'][:12]}"
        asked = ["skopeo", "inspect", "--tls-verify=false", "--format", "{{.Digest}}", f"docker://{name}"]
        assert subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip() == digest
