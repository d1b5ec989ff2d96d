"""Fixtures that several test files share."""

from pathlib import Path

import pytest

from taxi.config import TELEMETRY_OFF

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
