"""What is installed is what is locked, everywhere, and nothing phones home."""

import importlib
import re
import subprocess
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from taxi.config import TELEMETRY_OFF

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")
EXTRAS = [line for extra in PROJECT["optional-dependencies"].values() for line in extra if not line.startswith("taxi[")]
DIRECT = [Requirement(line) for line in sorted({*PROJECT["dependencies"], *EXTRAS})]
IMPORT_NAMES = {
    "scikit-learn": "sklearn",
    "xgboost-cpu": "xgboost",
    "pyyaml": "yaml",
    "prometheus-client": "prometheus_client",
}


def locked(text: str = LOCK) -> dict[str, str]:
    lines = re.findall(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^ ;\\]+)", text, re.MULTILINE)
    return {canonicalize_name(name): found for name, found in lines}


@pytest.mark.parametrize("wanted", DIRECT, ids=lambda wanted: wanted.name)
def test_every_dependency_is_locked_within_its_limits_and_installed_so(wanted: Requirement) -> None:
    pinned = locked()[canonicalize_name(wanted.name)]

    assert wanted.specifier.contains(pinned)
    assert version(wanted.name) == pinned


def test_the_services_lock_is_a_part_of_the_whole_one_without_training_notebooks_or_servers() -> None:
    service = locked((ROOT / "service.lock").read_text(encoding="utf-8"))

    assert service.items() < locked().items()
    assert not {"mlflow", "prefect", "dvc", "evidently", "papermill", "jupyterlab", "optuna", "pytest"} & set(service)


@pytest.mark.parametrize(("name", "least"), [("requirements.lock", 200), ("service.lock", 60), ("jobs.lock", 200)])
def test_every_locked_package_has_a_hash_and_no_address(name: str, least: int) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    blocks = re.split(r"\n(?=[A-Za-z0-9])", text.strip())

    assert len(blocks) > least and "://" not in text
    assert [block.splitlines()[0] for block in blocks if "--hash=sha256:" not in block] == []


def test_conda_users_get_the_lock() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    python = next(line for line in environment["dependencies"] if str(line).startswith("python="))
    pip = next(part["pip"] for part in environment["dependencies"] if isinstance(part, dict))

    assert Requirement(f"python{PROJECT['requires-python']}").specifier.contains(f"{python.removeprefix('python=')}.0")
    assert pip == ["-r requirements.lock"]


@pytest.mark.parametrize(
    "package",
    [
        "pandas",
        "sklearn",
        "xgboost",
        "mlflow",
        "dvc.repo",
        "evidently",
        "prefect",
        "papermill",
        "nbconvert",
        "nbval",
        "jupyterlab",
    ],
)
@pytest.mark.slow
def test_the_packages_that_everything_rests_on_can_be_imported(package: str) -> None:
    assert importlib.import_module(package)


def test_the_makefile_describes_every_target_and_shows_them_by_default() -> None:
    shown = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    targets = [
        "setup", "demo", "run", "test", "test-fast", "campaign", "lint", "notebooks", "bench", "lab", "images", "clean"
    ]  # fmt: skip

    assert [target for target in targets if not re.search(rf"^  make {target} +\w", shown, re.MULTILINE)] == []


def test_telemetry_is_off_in_the_makefile_too() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")

    assert [name for name, value in TELEMETRY_OFF.items() if f"export {name} := {value}" not in makefile] == []
