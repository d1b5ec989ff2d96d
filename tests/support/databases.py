"""Fresh databases of MLflow and Prefect: migrated once a machine and edition, copied from then on."""

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir

from pipelines.runtime import PREFECT_READY
from taxi.files import locked, staged
from taxi.registry.mlflow_client import prepare_database


def _once(package: str, make: Callable[[Path], None]) -> Path:
    kept = Path(gettempdir()) / f"taxi-tests-{os.getuid()}" / f"{package}-{version(package)}.db"
    with locked(kept.with_suffix(".lock")):
        if not kept.exists():
            with staged(kept) as part:
                make(part)
    return kept


def _make_prefect(database: Path) -> None:
    with TemporaryDirectory() as home:
        command = [sys.executable, "-m", "prefect", "server", "database", "upgrade", "--yes"]
        subprocess.run(command, env={**os.environ, "PREFECT_HOME": home}, capture_output=True, check=True)
        with (
            closing(sqlite3.connect(Path(home) / "prefect.db")) as made,
            closing(sqlite3.connect(database)) as copy,
        ):
            made.backup(copy)


def _make_mlflow(database: Path) -> None:
    from taxi.registry.mlflow_client import prepare  # imports MLflow, which few tests need

    with TemporaryDirectory() as folder:
        prepare(f"sqlite:///{folder}/mlflow.db")
        shutil.copyfile(f"{folder}/mlflow.db", database)


def give_prefect_home(home: Path) -> None:
    """Put an empty database into a new Prefect home."""
    home.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(_once("prefect", _make_prefect), home / "prefect.db")
    (home / PREFECT_READY).touch()


def give_registry(folder: Path) -> str:
    """Put an empty ``mlflow.db`` into ``folder``, unless it has one; return its address."""
    folder.mkdir(parents=True, exist_ok=True)
    database = folder / "mlflow.db"
    if not database.exists():
        prepare_database(database, version("mlflow"), lambda path: shutil.copyfile(_once("mlflow", _make_mlflow), path))
    return f"sqlite:///{database}"
