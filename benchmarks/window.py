"""The months that a benchmark needs, fetched and cleaned with the package's own functions."""

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from taxi.config import Settings
from taxi.data.acceptance import clean_month
from taxi.data.fetch import fetch_month, fetch_zones
from taxi.data.source import open_source
from taxi.errors import BadFile, MonthRefused, NotPublished, UsageError
from taxi.months import iterate_months, parse_month, shift_month
from taxi.params import load_params

ROOT = Path(__file__).resolve().parents[1]


def places(source: str, work: Path) -> Settings:
    """Return settings that keep everything under ``work``."""
    return Settings(ROOT, source, work / "data", work / "reports", f"sqlite:///{work / 'mlflow.db'}")


@contextmanager
def work_folder(given: Path | None) -> Iterator[Path]:
    """Give the folder to work in: ``given``, which stays, or a temporary one."""
    if given is not None:
        given.mkdir(parents=True, exist_ok=True)
        yield given.resolve()
        return
    with tempfile.TemporaryDirectory(prefix="taxi-bench-") as folder:
        yield Path(folder)


def months_before(month: str, window: int) -> list[str]:
    """Return the ``window`` months before ``month``, oldest first."""
    return [shift_month(month, -by) for by in range(window, 0, -1)]


def parse_months(text: str) -> list[str]:
    """Return the months of ``2023-01:2023-06`` or of a single one; raise UsageError otherwise."""
    first, _, last = text.partition(":")
    return list(iterate_months(parse_month(first), parse_month(last or first)))


def months_argument(text: str) -> list[str]:
    """Return ``parse_months`` for argparse, which then ends with exit code 2."""
    try:
        return parse_months(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def prepare_months(settings: Settings, service: str, months: Sequence[str]) -> dict[str, str]:
    """Fetch and clean months, oldest first; return for each that cannot be had why not, said on stderr too."""
    source, params, missing = open_source(settings.source), load_params(ROOT / "params.yaml"), {}
    for month in sorted(set(months)):
        paths = settings.month(service, month)
        try:
            fetch_month(source, service, month, paths)
            clean_month(paths, params)
        except (NotPublished, MonthRefused, BadFile) as error:
            missing[month] = str(error)
            print(f"without {month}: {error}", file=sys.stderr)
    return missing


def prepare_zones(settings: Settings) -> None:
    """Fetch the zone files."""
    fetch_zones(open_source(settings.source), settings.zones)
