"""The wheel alone is enough: every room, the templates, the parameters and the notebooks are in it."""

import json
import os
import shutil
import site
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from taxi.config import NOTEBOOKS

ROOT = Path(__file__).resolve().parents[2]
BUILT_FROM = (
    "pyproject.toml", "README.md", "LICENSE", "params.yaml", "requirements.lock", "notebooks", "taxi", "pipelines",
)  # fmt: skip
pytestmark = pytest.mark.slow


def run(*words: str, cwd: Path, **more: str) -> str:
    """Run a command to its good end, in an environment that names no place of this project; return what it answers."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("TAXI_", "PYTHONPATH", "MLFLOW_TRACKING"))
    }
    done = subprocess.run(words, cwd=cwd, env=environment | more, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel, built from a copy: building leaves folders behind."""
    place = tmp_path_factory.mktemp("wheel")
    for name in BUILT_FROM:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, place / name, symlinks=True)
        else:
            shutil.copyfile(ROOT / name, place / name)
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet")
    run(*pip, "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", "built", ".", cwd=place)
    return next(place.glob("built/*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path) -> Path:
    """The command of an environment that has the wheel, and beside it the packages of this one but for the checkout."""
    place = wheel.parent / "venv"
    venv.create(place, with_pip=False, symlinks=True)
    python = place / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(python), "install", "--quiet")
    run(*pip, "--no-deps", "--no-index", str(wheel), cwd=place)
    # folders that a .pth file names come last, and their own .pth files, the checkout's among them, are not read
    next(place.glob("lib/python*/site-packages")).joinpath("locked.pth").write_text("\n".join(site.getsitepackages()))
    return place / "bin" / "taxi"


def test_every_file_of_the_package_is_in_the_wheel(installed: Path) -> None:
    ours = {path.relative_to(ROOT) for room in ("taxi", "pipelines") for path in (ROOT / room).rglob("*.*")}
    shipped = {Path("taxi/checkout", name) for name in ("params.yaml", "requirements.lock")}
    shipped |= {Path("taxi/checkout", path.relative_to(ROOT)) for path in (ROOT / "notebooks").glob("*.ipynb")}
    folder = next(installed.parents[1].glob("lib/python*/site-packages"))

    missing = [path for path in ours | shipped if path.suffix != ".pyc" and not (folder / path).is_file()]

    assert missing == []


def test_a_month_is_run_from_the_wheel_alone(installed: Path, tmp_path: Path, prefect: str) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    # nbconvert's templates lie where its own packages are installed
    more = {"PREFECT_API_URL": prefect, "JUPYTER_PATH": str(Path(sys.prefix, "share/jupyter"))}

    def taxi(*words: str) -> str:
        return run(str(installed), *words, cwd=empty, **more)

    assert "Usage: taxi" in taxi("--help")
    taxi("sample", "--service", "green", "--from", "2024-01", "--to", "2024-01", "--rows", "2500", "--out", "source")
    said = taxi("run", "--service", "green", "--month", "2024-01", "--source", "source", "--no-version", "--json")

    result = json.loads(said.splitlines()[-1])
    assert (result["status"], result["promoted"]) == ("done", True)
    assert result["reports"] == [str(empty / f"reports/green/2024-01/{name}.html") for name in NOTEBOOKS]
    assert {path.name for path in empty.iterdir()} >= {"source", "data", "reports", "mlflow.db"}
    assert "2024-01" in taxi("status", "--service", "green")
