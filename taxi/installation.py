"""What may be wrong with an installation: versions, tools, addresses, room, permissions, parameters, zones."""

import re
import shutil
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from zipfile import BadZipFile

from packaging.requirements import Requirement

from taxi.config import TLC_SITE, Settings
from taxi.doctor import Check, Finding
from taxi.errors import BadFile, NotPublished, TaxiError, UsageError
from taxi.params import load_params
from taxi.reachable import SQLITE, shown, why_unreachable
from taxi.zones import read_zones

OLDEST_PYTHON = (3, 11)
GIBIBYTE = 2**30
LEAST_FREE, LITTLE_FREE = 1, 5  # GiB: a month of yellow with its editions and reports takes about one
_PINNED = re.compile(r"^([A-Za-z0-9._-]+(?:\[[^\]]*\])?==[^\\\n]+?)\s*\\?$", re.MULTILINE)


def find_python(settings: Settings) -> Finding:
    """Look at the interpreter."""
    found, oldest = ".".join(map(str, sys.version_info[:3])), ".".join(map(str, OLDEST_PYTHON))
    if sys.version_info[:2] < OLDEST_PYTHON:
        return Finding("python", "broken", f"expected Python {oldest} or newer; this is {found}", "make setup PYTHON=…")
    return Finding("python", "ok", f"Python {found}")


def differing_packages(lock: str) -> list[str]:
    """Return what of a requirements lock's text is missing here or is of another version, one sentence each."""
    said = []
    for line in _PINNED.findall(lock):
        wanted = Requirement(line)
        if wanted.marker and not wanted.marker.evaluate():
            continue
        try:
            found = version(wanted.name)
        except PackageNotFoundError:
            said.append(f"{wanted.name} is missing")
            continue
        if not wanted.specifier.contains(found, prereleases=True):
            said.append(f"{wanted.name} is {found}, locked is {str(wanted.specifier).lstrip('=')}")
    return said


def find_packages(settings: Settings) -> Finding:
    """Hold the installed packages against requirements.lock."""
    lock = settings.root / "requirements.lock"
    if not lock.is_file():
        return Finding("packages", "warn", f"there is no {lock} to hold them against", "restore it from git")
    text = lock.read_text(encoding="utf-8")
    if differ := differing_packages(text):
        said = f"{len(differ)} packages are not as locked: {', '.join(differ[:5])}{' …' * (len(differ) > 5)}"
        return Finding("packages", "broken", said, "make setup (it installs what is locked)")
    return Finding(
        "packages", "ok", f"the {len(_PINNED.findall(text))} locked packages that belong here are installed so"
    )


def find_tools(settings: Settings) -> Finding:
    """Look for git, and for what DVC needs."""
    if not shutil.which("git"):
        return Finding(
            "git-and-dvc", "warn", "git is not on the PATH", "install git: versions name the commit they come from"
        )
    missing = [name for name in (".git", ".dvc/config", "dvc.yaml") if not (settings.root / name).exists()]
    if missing:
        return Finding(
            "git-and-dvc",
            "warn",
            f"{settings.root} has no {', no '.join(missing)}",
            "run from a git clone, or --no-version",
        )
    if (settings.data, settings.reports) != (settings.root / "data", settings.root / "reports"):
        return Finding(
            "git-and-dvc",
            "ok",
            "git and DVC are there; DVC keeps no folders outside the checkout, so runs here are not versioned",
        )
    return Finding("git-and-dvc", "ok", "git and DVC are there")


def find_source(settings: Settings) -> Finding:
    """Ask the publisher for the zone table's size."""
    from taxi.source import open_source
    from taxi.transfer import Patience

    patience = Patience(connect=3.0, read=3.0, attempts=1)
    try:
        open_source(settings.source, patience).ask("misc/taxi_zone_lookup.csv")
    except (UsageError, NotPublished) as error:
        return Finding("source", "broken", str(error), "set TAXI_SOURCE or --source")
    except TaxiError as error:
        return Finding(
            "source", "warn", f"{error}", "months on hand can be run; new ones need the network, or another TAXI_SOURCE"
        )
    default = " (the TLC's site)" if settings.source == TLC_SITE else ""
    return Finding("source", "ok", f"{shown(settings.source)}{default} answers")


def _reach(name: str, address: str, health: str, variable: str) -> Finding:
    if reason := why_unreachable(address, health):
        return Finding(name, "broken", reason, f"start it, or set {variable}")
    there = Path(address.removeprefix(SQLITE)).is_file()
    said = (
        f"{shown(address)} answers"
        if not address.startswith(SQLITE) or there
        else f"{address} is made by the first run"
    )
    return Finding(name, "ok", said)


def find_registry(settings: Settings) -> Finding:
    """Ask MLflow."""
    return _reach("registry", settings.tracking_uri, "/health", "MLFLOW_TRACKING_URI")


def find_prefect(settings: Settings) -> Finding:
    """Ask Prefect's server, where one is set."""
    if settings.prefect is None:
        return Finding("prefect", "ok", "no server is set: every run starts its own")
    return _reach("prefect", settings.prefect, "/health", "PREFECT_API_URL")


def find_stores(settings: Settings) -> Finding:
    """Ask the databases of predictions and of metrics."""
    for address, variable in ((settings.predictions, "TAXI_PREDICTIONS"), (settings.metrics, "TAXI_METRICS")):
        found = _reach("databases", address, "", variable)
        if found.level != "ok":
            return found
    return Finding(
        "databases", "ok", f"{shown(settings.predictions)} and {shown(settings.metrics)}: nothing against them"
    )


def _nearest(folder: Path) -> Path:
    return next(path for path in (folder, *folder.parents) if path.exists())


def find_disk(settings: Settings) -> Finding:
    """Look at the room left where data and reports lie."""
    free = {folder: shutil.disk_usage(_nearest(folder)).free / GIBIBYTE for folder in (settings.data, settings.reports)}
    folder, least = min(free.items(), key=lambda one: one[1])
    said, todo = f"{least:.1f} GiB are free at {folder}", "free some, or set TAXI_DATA and TAXI_REPORTS elsewhere"
    level = "broken" if least < LEAST_FREE else "warn" if least < LITTLE_FREE else "ok"
    return Finding("disk", level, said, "" if level == "ok" else todo)  # type: ignore[arg-type]


def _why_not_writable(folder: Path) -> str | None:
    try:
        with tempfile.NamedTemporaryFile(dir=_nearest(folder)):
            return None
    except OSError as error:
        return f"{folder}: {error.strerror}"


def find_permissions(settings: Settings) -> Finding:
    """Try to write where data, reports and, if it is a file, the registry lie."""
    places = [settings.data, settings.reports]
    if settings.tracking_uri.startswith(SQLITE):
        places.append(Path(settings.tracking_uri.removeprefix(SQLITE)).parent)
    if refused := [reason for place in places if (reason := _why_not_writable(place))]:
        return Finding(
            "permissions",
            "broken",
            f"cannot write to {'; '.join(refused)}",
            "make it writable, or set TAXI_DATA, TAXI_REPORTS, MLFLOW_TRACKING_URI",
        )
    return Finding("permissions", "ok", "data, reports and registry can be written")


def find_params(settings: Settings) -> Finding:
    """Read params.yaml."""
    try:
        load_params(settings.root / "params.yaml")
    except UsageError as error:
        return Finding("params", "broken", str(error), "correct the entry that is named, or `git checkout params.yaml`")
    return Finding("params", "ok", "params.yaml is whole and in range")


def find_zones(settings: Settings) -> Finding:
    """Read the publisher's zones."""
    if not settings.zones.is_dir():
        return Finding("zones", "ok", f"{settings.zones} is not there yet: the first run brings it")
    try:
        return Finding("zones", "ok", f"{len(read_zones(settings.zones))} zones can be read")
    except (BadFile, BadZipFile, OSError, KeyError, ValueError) as error:
        todo = f"remove {settings.zones}: the next run brings it anew"
        return Finding("zones", "broken", f"the zones cannot be read: {error}", todo)


CHECKS = (
    Check("python", find_python),
    Check("packages", find_packages),
    Check("git-and-dvc", find_tools),
    Check("params", find_params),
    Check("permissions", find_permissions),
    Check("disk", find_disk),
    Check("zones", find_zones),
    Check("source", find_source),
    Check("registry", find_registry),
    Check("prefect", find_prefect),
    Check("databases", find_stores),
)
