"""The rules of the house, held by reading the code."""

import ast
import json
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MODULES = sorted([*(ROOT / "taxi").glob("*.py"), *(ROOT / "pipelines").glob("*.py")])
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
HOMES = {
    "mlflow": {"taxi/tracking.py", "taxi/registry.py", "taxi/recording.py", "taxi/aliases.py"},
    "evidently": {"taxi/drift.py"},
    "papermill": {"taxi/notebooks.py"},
    "nbconvert": {"taxi/notebooks.py"},
    "pandera": {"taxi/schema.py"},
    "matplotlib": {"taxi/plots.py", "taxi/timeline.py", "taxi/kernels.py"},
    "dvc": {"taxi/versioning.py"},
    "jupyter_client": {"taxi/kernels.py"},
    "httpx": {"taxi/transfer.py", "taxi/replay_client.py"},
    "sqlalchemy": {
        "taxi/tracking.py",
        "taxi/answered.py",
        "taxi/engines.py",
        "taxi/metric_store.py",
        "taxi/predictions.py",
        "taxi/prediction_tables.py",
        "taxi/search.py",
    },
    "optuna": {"taxi/search.py"},
    "xgboost": {"taxi/boosted.py", "taxi/boosting.py", "taxi/cluster.py"},
    "dask": {"taxi/cluster.py"},
    "distributed": {"taxi/cluster.py"},
    "fastapi": {"taxi/serving.py", "taxi/describe.py"},
    "uvicorn": {"taxi/server.py", "taxi/connections.py"},
    "apprise": {"taxi/channels.py"},
    "prometheus_client": {"taxi/metrics.py", "taxi/exposition.py"},
}


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("vendor", HOMES)
def test_one_vendor_has_one_home(vendor: str) -> None:
    assert {name(path) for path in MODULES if vendor in imports(path)} <= HOMES[vendor]


def test_prefect_is_only_in_pipelines_and_the_package_does_not_know_them() -> None:
    for path in (ROOT / "taxi").glob("*.py"):
        assert not imports(path) & {"prefect", "pipelines"}, name(path)


def test_the_environment_is_read_in_one_place() -> None:
    allowed = {
        "taxi/config.py",
        "taxi/forking.py",
        "taxi/kernels.py",
        "pipelines/runtime.py",
    }  # all but the first hand it to children
    reading = {name(path) for path in MODULES if re.search(r"os\.environ|os\.getenv", path.read_text(encoding="utf-8"))}

    assert reading <= allowed


def test_modules_stay_small() -> None:
    long = {name(path): len(path.read_text(encoding="utf-8").splitlines()) for path in MODULES}

    assert {path: lines for path, lines in long.items() if lines > 255} == {}


def test_there_is_no_drawer_for_everything() -> None:
    assert not {path.stem for path in MODULES} & {"utils", "helpers", "common", "base", "misc"}


def test_every_public_function_says_what_it_does_and_is_typed() -> None:
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                assert node.returns is not None, f"{name(path)}: {node.name}"


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_tell_a_story_and_define_nothing(notebook: Path) -> None:
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]

    assert len(cells) <= 30
    assert cells[0]["cell_type"] == "markdown" and "?" in "".join(cells[0]["source"])
    assert cells[-1]["cell_type"] == "markdown" and "What this shows" in "".join(cells[-1]["source"])
    assert sum("parameters" in cell["metadata"].get("tags", []) for cell in cells) == 1
    for source in code:
        assert len(source.splitlines()) <= 12
        assert not re.search(r"^\s*(def|class|try|!|%)", source, re.MULTILINE)
        assert not re.search(r"""open\(|["'][/~.]+/""", source)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_committed_with_clean_outputs(notebook: Path) -> None:
    content = json.loads(notebook.read_text(encoding="utf-8"))
    outputs = [out for cell in content["cells"] for out in cell.get("outputs", [])]

    assert outputs
    assert not [out for out in outputs if out.get("name") == "stderr" or out["output_type"] == "error"]
    assert set(content["metadata"]) == {"kernelspec", "language_info"}
    assert not re.search(
        r"/(home|tmp|root|work|Users)/", json.dumps([out for out in outputs if "image" not in str(out)])
    )


def test_no_committed_file_names_a_machine_a_proxy_or_an_index() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    forbidden = re.compile(
        r"(/home/[a-z]+/|/root/|/Users/[A-Za-z]+/|--index-url|--extra-index-url|https?://[^ ]*proxy)"
    )
    for path in (ROOT / one for one in listed if one != name(Path(__file__)) and (ROOT / one).is_file()):
        assert not forbidden.search(path.read_text(encoding="utf-8", errors="ignore")), path
