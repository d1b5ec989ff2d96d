"""Fixtures that several test files share."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from taxi.config import TELEMETRY_OFF
from tests.builders import build_published, build_trips

REAL_SOURCE = Path(__file__).resolve().parents[2] / "shared/data/tlc"


@pytest.fixture(scope="session", autouse=True)
def no_telemetry() -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in TELEMETRY_OFF.items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="session")
def real_source() -> Path:
    if not REAL_SOURCE.is_dir():
        pytest.skip("the publisher's real months are not in ../shared/data/tlc")
    return REAL_SOURCE


@pytest.fixture(scope="session")
def make_published() -> Callable[..., pd.DataFrame]:
    """Months in the publisher's layout: ``make_published(service, month, n, **columns)``."""
    return build_published


@pytest.fixture(scope="session")
def make_trips() -> Callable[..., pd.DataFrame]:
    """Kept trips in the canonical schema: ``make_trips(n, month, **columns)``."""
    return build_trips
