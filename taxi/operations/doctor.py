"""Health checks of an installation: what is wrong in silence, grows, or does not answer.

What a command says by itself as it fails (a folder that cannot be written, no git), or mends (zone files), has no check.
"""

import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from packaging.requirements import Requirement

from taxi.addresses import redact, shown, sqlite_file, why_unreachable
from taxi.config import SERVICES, TLC_SITE, Settings, load_locks
from taxi.errors import NotPublished, TaxiError, UsageError
from taxi.files import LockHeld
from taxi.serving.local_store import Place

# --- Checks of an installation and of what crashes leave: each finds, and only what is asked to repair repairs.

Level = Literal["ok", "warn", "broken"]
LEVELS: tuple[Level, ...] = ("ok", "warn", "broken")


@dataclass(frozen=True)
class Diagnosis:
    """What one check found: ``ok``, ``warn`` (works, but look) or ``broken`` (does not work), a sentence, and what to do."""

    name: str
    level: Level
    says: str
    todo: str = ""
    repaired: bool = False


@dataclass(frozen=True)
class Probe:
    """One check by name; ``find`` changes nothing, ``repair`` (where there is one) may be done at any time, and again."""

    name: str
    find: Callable[[Settings], Diagnosis]
    repair: Callable[[Settings], object] | None = None


def _find(check: Probe, settings: Settings) -> Diagnosis:
    """Return what the check finds; that it could not look is a finding too."""
    try:
        return check.find(settings)
    except (TaxiError, OSError) as error:
        return Diagnosis(
            check.name, "broken", f"could not be checked: {redact(str(error))}", "mend what the message names"
        )


def _mend(check: Probe, settings: Settings, before: Diagnosis) -> Diagnosis:
    """Repair and look again; what was found before is said, so that it is known what was repaired."""
    assert check.repair is not None
    try:
        check.repair(settings)
    except (TaxiError, OSError) as error:
        return replace(before, says=f"{before.says}; the repair failed: {redact(str(error))}")
    after = _find(check, settings)
    if after.level == "ok":
        return Diagnosis(check.name, "ok", f"repaired: {before.says}", repaired=True)
    return after


def examine(checks: Sequence[Probe], settings: Settings, repair: bool = False) -> list[Diagnosis]:
    """Return one finding a check, in their order; with ``repair`` what can be repaired safely is, and looked at again."""
    found = []
    for check in checks:
        finding = _find(check, settings)
        if repair and check.repair and finding.level != "ok":
            finding = _mend(check, settings, finding)
        found.append(finding)
    return found


def worst(findings: Sequence[Diagnosis]) -> Level:
    """Return the worst level among the findings; ok if there is none."""
    return max((one.level for one in findings), key=LEVELS.index, default="ok")


def as_answer(findings: Sequence[Diagnosis]) -> dict[str, Any]:
    """Return the findings as ``taxi doctor --json`` prints them."""
    return {"level": worst(findings), "findings": [asdict(one) for one in findings]}


GIBIBYTE = 2**30
LEAST_FREE, LITTLE_FREE = 1, 5  # GiB: a month of yellow with its editions and reports takes about one
_PINNED = re.compile(r"^([A-Za-z0-9._-]+(?:\[[^\]]*\])?==[^\\\n]+?)\s*\\?$", re.MULTILINE)


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


def find_packages(settings: Settings) -> Diagnosis:
    """Hold the installed packages against requirements.lock."""
    lock = settings.root / "requirements.lock"
    if not lock.is_file():
        return Diagnosis("packages", "warn", f"there is no {lock} to hold them against", "restore it from git")
    text = lock.read_text(encoding="utf-8", errors="replace")
    if differ := differing_packages(text):
        said = f"{len(differ)} packages are not as locked: {', '.join(differ[:5])}{' …' * (len(differ) > 5)}"
        return Diagnosis("packages", "broken", said, "make setup (it installs what is locked)")
    return Diagnosis(
        "packages", "ok", f"the {len(_PINNED.findall(text))} locked packages that belong here are installed so"
    )


def find_params(settings: Settings) -> Diagnosis:
    """Read params.yaml as every command does."""
    from taxi.params import load_params

    try:
        load_params(settings.root / "params.yaml")
    except UsageError as error:
        return Diagnosis("params", "broken", str(error), f"correct {settings.root / 'params.yaml'}")
    return Diagnosis("params", "ok", "every entry of params.yaml is known, of its type, and in range")


def find_source(settings: Settings) -> Diagnosis:
    """Ask the publisher for the zone table's size."""
    from taxi.data.download import Patience
    from taxi.data.source import open_source

    patience = Patience(connect=3.0, read=3.0, attempts=1)
    try:
        open_source(settings.source, patience).ask("misc/taxi_zone_lookup.csv")
    except (UsageError, NotPublished) as error:
        return Diagnosis("source", "broken", str(error), "set TAXI_SOURCE or --source")
    except TaxiError as error:
        return Diagnosis(
            "source", "warn", f"{error}", "months on hand can be run; new ones need the network, or another TAXI_SOURCE"
        )
    default = " (the TLC's site)" if settings.source == TLC_SITE else ""
    return Diagnosis("source", "ok", f"{shown(settings.source)}{default} answers")


def _reach(name: str, address: str, health: str, variable: str) -> Diagnosis:
    if reason := why_unreachable(address, health):
        return Diagnosis(name, "broken", reason, f"start it, or set {variable}")
    file = sqlite_file(address)
    said = f"{address} is made by the first run" if file and not file.is_file() else f"{shown(address)} answers"
    return Diagnosis(name, "ok", said)


def find_registry(settings: Settings) -> Diagnosis:
    """Ask MLflow."""
    return _reach("registry", settings.tracking_uri, "/health", "MLFLOW_TRACKING_URI")


def find_shared_locks(settings: Settings) -> Diagnosis:
    """Take a lock of the registry's, and see that a second taker is refused; say where it holds for one machine only."""
    from taxi.locks import hold, is_shared, lock_place

    place, name = lock_place(settings.tracking_uri), "shared-locks"
    if sqlite_file(settings.tracking_uri) and not is_shared(place):
        return Diagnosis(name, "ok", "files beside the registry, which is one machine's")
    if load_locks() is None and not is_shared(place):
        said = "files in ~/.taxi, which keep no other machine from moving an alias of this registry at the same time"
        return Diagnosis(name, "warn", said, "set TAXI_LOCKS to postgresql+psycopg2://… or s3://bucket/prefix, on all")
    with hold(place, "doctor", timeout=10):
        try:
            with hold(place, "doctor", timeout=0):
                said = f"{shown(place)} gives a lock to two at once: it does not do what it is asked"
                return Diagnosis(name, "broken", said, "set TAXI_LOCKS to another place")
        except LockHeld:
            return Diagnosis(name, "ok", f"{shown(place)} gives a lock to one at a time")


def find_artifacts(settings: Settings) -> Diagnosis:
    """Look where a registry that machines share keeps its models: in a folder of one machine they are no use to the others."""
    from taxi.runs.mlflow_run import ALONE, check_artifacts

    if alone := [why for service in SERVICES if (why := check_artifacts(settings, service))]:
        return Diagnosis("artifacts", "warn", "; ".join(alone), ALONE)
    return Diagnosis("artifacts", "ok", "models lie beside the registry, or where TAXI_ARTIFACTS says")


def find_prefect(settings: Settings) -> Diagnosis:
    """Ask Prefect's server, where one is set."""
    if settings.prefect is None:
        return Diagnosis("prefect", "ok", "no server is set: every run starts its own")
    return _reach("prefect", settings.prefect, "/health", "PREFECT_API_URL")


def find_stores(settings: Settings) -> Diagnosis:
    """Ask the databases of predictions and of metrics."""
    for address, variable in ((settings.predictions, "TAXI_PREDICTIONS"), (settings.metrics, "TAXI_METRICS")):
        found = _reach("databases", address, "", variable)
        if found.level != "ok":
            return found
    return Diagnosis(
        "databases", "ok", f"{shown(settings.predictions)} and {shown(settings.metrics)}: nothing against them"
    )


def _nearest(folder: Path) -> Path:
    return next(path for path in (folder, *folder.parents) if path.exists())


def find_disk(settings: Settings) -> Diagnosis:
    """Look at the room left where data and reports lie."""
    free = {folder: shutil.disk_usage(_nearest(folder)).free / GIBIBYTE for folder in (settings.data, settings.reports)}
    folder, least = min(free.items(), key=lambda one: one[1])
    said, todo = f"{least:.1f} GiB are free at {folder}", "free some, or set TAXI_DATA and TAXI_REPORTS elsewhere"
    level = "broken" if least < LEAST_FREE else "warn" if least < LITTLE_FREE else "ok"
    return Diagnosis("disk", level, said, "" if level == "ok" else todo)  # type: ignore[arg-type]


def damaged_files(settings: Settings) -> list[str]:
    """Return why each of the files that one run leaves for another cannot be read: results, plans, sidecars, trips."""
    from taxi.data.acceptance import load_acceptance
    from taxi.data.origin import read_origin
    from taxi.data.schema import check_kept
    from taxi.experiments.backtest_tables import load_backtest
    from taxi.models.search_result import load_search
    from taxi.monitoring.alarm_book import read_book
    from taxi.runs.month_result import read_result
    from taxi.serving.local_store import Place
    from taxi.training.plan import load_plan
    from taxi.training.step_result import CompareResult, MonitorResult, StepResult, load_attempt, load_step

    recorded = {kind.stem: kind for kind in (MonitorResult, CompareResult)}
    readers: list[tuple[Path, str, Callable[[Path], object]]] = [
        (settings.reports, "*/????-??/month.json", read_result),
        (settings.reports, "*/????-??/0?-*.json", lambda path: load_step(path, recorded.get(path.stem, StepResult))),
        (settings.reports, "*/retrain/*/retrain.json", load_attempt),
        (settings.reports, "*/backtest/backtest.json", load_backtest),
        (settings.data, "acceptance/*/*.json", load_acceptance),
        (settings.data, "raw/*/*.json", read_origin),
        (settings.data, "zones/*.json", read_origin),
        (settings.data, "models/**/plan.json", load_plan),
        (settings.data, "models/**/search.json", load_search),
        (settings.data, "alarms.json", read_book),
        (settings.data, "serving/*/state.json", lambda path: Place(path.parent).read_state()),
        (settings.data, "trips/*/*.parquet", check_kept),
        (settings.data, "quarantine/*/*.parquet", check_kept),
    ]
    faults = []
    for folder, pattern, read in readers:
        for path in sorted(folder.glob(pattern)):
            try:
                read(path)
            except TaxiError as error:
                faults.append(str(error))
    return faults


def find_results(settings: Settings) -> Diagnosis:
    """Read every month's result, plan and sidecars, and the ends of its Parquet files."""
    if not (faults := damaged_files(settings)):
        return Diagnosis("results", "ok", "every month's result, plan, sidecars and trips can be read")
    said = f"{len(faults)} files cannot be read: {faults[0]}{' …' * (len(faults) > 1)}"
    return Diagnosis("results", "broken", said, "do what the message says; `dvc checkout` has the versioned ones")


def find_served(settings: Settings) -> Diagnosis:
    """Look at the versions that the services keep on this disk: who starts next serves them."""
    faults, refused = [], []
    for service in SERVICES:
        place = Place(settings.server(service))
        try:
            state = place.read_state()
        except TaxiError as error:
            faults.append(str(error))
            continue
        refused += [f"{service}/{one.version}: {one.reason}" for one in state.refused]
        for entry in filter(None, (state.champion, state.challenger)):
            try:
                place.find(entry)
            except TaxiError as error:
                faults.append(str(error))
    if faults:
        said = f"{len(faults)} local copies are damaged: {faults[0]}{' …' * (len(faults) > 1)}"
        return Diagnosis("served", "broken", said, "`taxi serve` fetches them again while the registry answers")
    if refused:
        said = f"{len(refused)} versions were refused: {refused[0]}{' …' * (len(refused) > 1)}"
        return Diagnosis("served", "warn", said, "promote another, or POST /model/refresh tries them again")
    return Diagnosis("served", "ok", "the local copies of what the services serve are as they were checked")


CHECKS = (
    Probe("params", find_params),
    Probe("packages", find_packages),
    Probe("disk", find_disk),
    Probe("results", find_results),
    Probe("source", find_source),
    Probe("registry", find_registry),
    Probe("shared-locks", find_shared_locks),
    Probe("artifacts", find_artifacts),
    Probe("prefect", find_prefect),
    Probe("databases", find_stores),
    Probe("served", find_served),
)
