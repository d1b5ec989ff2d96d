"""Candidates for serving, from the registry: fetched with their digests checked, then examined before they may serve."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from taxi.config import Settings
from taxi.errors import TaxiError
from taxi.follower import Source, Unreachable
from taxi.golden import check_golden, read_golden
from taxi.lineage import Version
from taxi.place import find_trees, trees_of
from taxi.registry import aliased_version, download_model
from taxi.slots import load_slot
from taxi.tracking import RegistryUnreachable

Answer = TypeVar("Answer")


def _asking(ask: Callable[[], Answer]) -> Answer:
    try:
        return ask()
    except RegistryUnreachable as error:
        raise Unreachable(str(error)) from error


def examine(service: str, version: Version, folder: Path) -> None:
    """Load a fetched version, have it answer as it did when registered, leave its trees grown; raise what is wrong with it.

    One that served before and is still kept comes back without its trees being grown again.
    """
    if version.service != service:
        raise TaxiError(f"expected a version of {service}; version {version.number} is of {version.service}")
    grown = find_trees(folder)
    loaded = load_slot(folder, version.number, {}, grown)
    check_golden(loaded.model, read_golden(version.tags.get("golden")))
    if grown is None:
        loaded.fast.save_trees(trees_of(folder))


def registry_source(settings: Settings, service: str) -> Source:
    """Return the registry at ``settings.tracking_uri`` as a source of versions."""
    uri = settings.tracking_uri
    return Source(
        wanted=lambda arm: _asking(lambda: aliased_version(uri, service, arm)),
        fetch=lambda version, folder: _asking(lambda: download_model(uri, version, folder)),
        examine=lambda version, folder: examine(service, version, folder),
    )
