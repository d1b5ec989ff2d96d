"""Fixtures that several test files share."""

import gc
import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest

from taxi.config import TELEMETRY_OFF
from taxi.data.synthetic_city import build_city, write_lookup, write_shapes
from taxi.data.zones import read_zones
from taxi.files import locked, staged
from tests.support.builders import build_published, build_sample_trips, build_trips
from tests.support.changes import HISTORY, MONTH
from tests.support.postgres import Postgres, running_postgres, why_not
from tests.support.prefect_server import shared_prefect
from tests.support.skips import describe, forbidden_in_ci

REAL_SOURCE = Path(__file__).resolve().parents[2] / "shared/data/tlc"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files of slow tests first, of these the most patient: workers take whole files, and all wait for one that begins last."""
    marks: dict[Path, list[tuple[float, bool]]] = {}
    for item in items:
        patience = item.get_closest_marker("timeout")
        slow = item.get_closest_marker("slow") is not None
        marks.setdefault(item.path, []).append((patience.args[0] if patience else 0, slow))
    seconds = {file: max(patience for patience, _ in marked) for file, marked in marks.items()}
    shares = {file: sum(slow for _, slow in marked) / len(marked) for file, marked in marks.items()}
    items.sort(key=lambda item: (-seconds[item.path], -shares[item.path]))


def pytest_configure(config: pytest.Config) -> None:
    """Listen to every test's report, those of xdist's workers too."""
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Skips(), "skips")


class Skips:
    """Skipped tests, by reason: a line at the end says them and how to have them; where ``CI`` is set, only listed ones pass."""

    def __init__(self) -> None:
        self.reasons: Counter[str] = Counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.skipped and not hasattr(report, "wasxfail"):
            self.reasons[report.longrepr[2].removeprefix("Skipped: ")] += 1

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.skipped:
            self.reasons[report.longrepr[2].removeprefix("Skipped: ")] += 1

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if os.environ.get("CI") and forbidden_in_ci(self.reasons) and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.reasons:
            terminalreporter.write_line(describe(self.reasons), yellow=True)
        if os.environ.get("CI") and (wrong := forbidden_in_ci(self.reasons)):
            terminalreporter.write_line(f"CI is set, and nothing may be skipped because {'; '.join(wrong)}", red=True)


def pytest_collection_finish() -> None:
    """Look for garbage among what tests make, not again and again among all that was imported."""
    gc.freeze()


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


@pytest.fixture(scope="session")
def zones(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """The sample city's zone table."""
    folder = tmp_path_factory.mktemp("zones")
    write_lookup(build_city(), folder / "taxi_zone_lookup.csv")
    write_shapes(build_city(), folder / "taxi_zones.zip")
    return read_zones(folder)


@pytest.fixture(scope="session")
def sample_trips() -> Callable[..., pd.DataFrame]:
    """Kept trips of the sample city: ``sample_trips(month, rows)``."""
    return build_sample_trips


@pytest.fixture(scope="module")
def made_months(make_published: Callable[..., pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """The months that mutations change and are compared with, as published."""
    return {month: make_published("green", month) for month in (*HISTORY, MONTH)}


@pytest.fixture(scope="module")
def data_with_history(tmp_path_factory: pytest.TempPathFactory, made_months: dict[str, pd.DataFrame]) -> Path:
    """A data folder in which the months before the mutated one were accepted."""
    from tests.support.mutations import keep_history  # imports what few tests need

    folder = tmp_path_factory.mktemp("data")
    keep_history(folder, {month: made_months[month] for month in HISTORY})
    return folder


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all workers of this session share."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session")
def small_models(shared: Path) -> dict[int, Path]:
    """Folders of two small models of the sample city, by number, fitted by the first worker that needs them."""
    from tests.support.serving_worlds import train, write_zones  # imports MLflow, which few tests need

    place, seeds = shared / "small-models", (1, 2)
    with locked(shared / "small-models.lock"):
        if not place.exists():
            zones = write_zones(shared / "small-zones")
            with staged(place) as part:
                for seed in seeds:
                    train(part / str(seed), zones, seed)
    return {seed: place / str(seed) for seed in seeds}


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A real PostgreSQL server; who stops it starts it again."""
    if reason := why_not():
        pytest.skip(reason)
    with running_postgres() as server:
        yield server


@pytest.fixture(scope="session")
def prefect(shared: Path) -> str:
    """The API address of a real Prefect server that all workers share; runs that should start their own do not use it."""
    return shared_prefect(shared / "prefect", os.getppid() if "PYTEST_XDIST_WORKER" in os.environ else os.getpid())
