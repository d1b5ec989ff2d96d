"""Fixtures of registries, made once and copied."""

import shutil
from pathlib import Path

import pytest

from taxi.config import Settings
from taxi.models.model import DurationModel
from tests.support.aliased import fill
from tests.support.databases import give_registry
from tests.support.registered import record, settings_of, settings_with_months, small_model


@pytest.fixture(scope="session")
def model() -> DurationModel:
    return small_model()


@pytest.fixture
def settings(tmp_path: Path, model: DurationModel) -> Settings:
    return settings_with_months(tmp_path, model)


@pytest.fixture(scope="session")
def month_recorded(tmp_path_factory: pytest.TempPathFactory, model: DurationModel) -> Path:
    """A place whose second month was registered, with a challenger and a champion."""
    place = tmp_path_factory.mktemp("month-recorded")
    record(settings_with_months(place, model), "2023-02")
    return place


@pytest.fixture
def registered(month_recorded: Path, tmp_path: Path) -> Settings:
    """Settings of a copy of it, to be changed by one test."""
    shutil.copytree(month_recorded, tmp_path, dirs_exist_ok=True)
    return settings_of(tmp_path)


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
