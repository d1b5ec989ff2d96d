"""Fixtures of registries, made once and copied."""

import shutil
from pathlib import Path

import pytest

from taxi.config import Settings
from taxi.models.model import DurationModel
from tests.support.aliased import fill
from tests.support.databases import give_registry
from tests.support.registered import settings_with_months, small_model


@pytest.fixture(scope="session")
def model() -> DurationModel:
    return small_model()


@pytest.fixture
def settings(tmp_path: Path, model: DurationModel) -> Settings:
    return settings_with_months(tmp_path, model)


@pytest.fixture(scope="session")
def filled(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("filled")
    fill(give_registry(folder))
    return folder


@pytest.fixture
def uri(filled: Path, tmp_path: Path) -> str:
    for name in ("mlflow.db", ".mlflow.db.ready"):
        shutil.copyfile(filled / name, tmp_path / name)
    return f"sqlite:///{tmp_path / 'mlflow.db'}"
