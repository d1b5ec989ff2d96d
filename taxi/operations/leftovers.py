"""Clean-up of what crashes leave behind: found and, apart from that, cleared away; nothing that a living process holds is touched."""

import logging
from pathlib import Path

from taxi.addresses import sqlite_file
from taxi.config import SERVICES, Settings
from taxi.errors import TaxiError
from taxi.files import STAGING_MARK, left_staging, lock_is_held, log_parts, remove, remove_staging
from taxi.operations.doctor import Diagnosis, Probe
from taxi.predictions.spool import REFUSED, Spool, waiting_folders
from taxi.processes import end_orphans, left_sockets, orphans

_LOG = logging.getLogger(__name__)
RERUN = "the next `taxi run` does it, or `taxi doctor --repair` now"


def _some(paths: list[Path]) -> str:
    shown = ", ".join(path.name for path in paths[:3])
    return shown if len(paths) <= 3 else f"{shown} and {len(paths) - 3} more"


def _registry_folder(settings: Settings) -> Path | None:
    """Return the folder of the registry's SQLite file; None where it is a server's, or not there yet."""
    database = sqlite_file(settings.tracking_uri)
    return database.parent if database and database.is_file() else None


def find_staging(settings: Settings) -> Diagnosis:
    """Look for half-written files and folders of processes that ended."""
    left = [path for folder in (settings.data, settings.reports) for path in left_staging(folder)]
    if not left:
        return Diagnosis("staging", "ok", "nothing half-written lies under data or reports")
    return Diagnosis("staging", "warn", f"{len(left)} half-written files or folders were left: {_some(left)}", RERUN)


def clear_staging(settings: Settings) -> None:
    """Remove what ``find_staging`` finds."""
    for folder in (settings.data, settings.reports):
        for path in remove_staging(folder):
            _LOG.info("removed %s, left by a run that was killed", path)


def find_orphans(settings: Settings) -> Diagnosis:
    """Look for kernels and embedded servers that outlived their run."""
    left = [process.pid for process in orphans(settings.data)]
    if not left:
        return Diagnosis("processes", "ok", "no kernel or embedded server has outlived its run")
    said = f"{len(left)} kernels or embedded servers outlived their run: {', '.join(map(str, left))}"
    return Diagnosis("processes", "warn", said, RERUN)


def find_sockets(settings: Settings) -> Diagnosis:
    """Look for folders of sockets whose kernels are gone."""
    left = left_sockets()
    if not left:
        return Diagnosis("sockets", "ok", "no kernel's sockets were left")
    return Diagnosis("sockets", "warn", f"sockets of {len(left)} kernels were left: {_some(left)}", RERUN)


def clear_sockets(settings: Settings) -> None:
    """Remove what ``find_sockets`` finds."""
    for path in left_sockets():
        remove(path)


def _locks(settings: Settings) -> list[Path]:
    registry = _registry_folder(settings)
    folders = [settings.data / ".locks", settings.spool, *([registry] if registry else [])]
    inside = [path for folder in folders if folder.is_dir() for path in folder.iterdir() if path.suffix == ".lock"]
    more = [settings.reports / ".index.lock", settings.root / ".dvc" / "tmp" / "taxi.lock"]
    return sorted({*inside, *(path for path in more if path.is_file())})


def find_locks(settings: Settings) -> Diagnosis:
    """Tell locks that are held from files that merely bear a lock's name; neither is ever deleted."""
    there = _locks(settings)
    held = [path for path in there if lock_is_held(path)]
    free = f"{len(there) - len(held)} lock files without a holder (harmless: the system let go of them)"
    said = f"{len(held)} held by living processes and left alone{': ' * bool(held)}{_some(held)}"
    return Diagnosis("locks", "ok", f"{free}; {said}")


def _half_done(settings: Settings) -> list[tuple[str, str, str]]:
    """Return service, environment and words of each alias move that was begun and that nobody is at."""
    if settings.tracking_uri.startswith("sqlite:") and _registry_folder(settings) is None:
        return []
    from taxi.locks import holder_of, lock_place
    from taxi.registry.aliases import open_event
    from taxi.registry.versions import ENVIRONMENTS

    found = []
    for service in SERVICES:
        if holder_of(lock_place(settings.tracking_uri), service):
            continue
        for environment in ENVIRONMENTS:
            if event := open_event(settings.tracking_uri, service, environment):
                said = f"{service} in {environment}: {event.why} ({event.at} by {event.by})"
                found.append((service, environment, said))
    return found


def find_moves(settings: Settings) -> Diagnosis:
    """Look for promotions and rollbacks that were killed halfway."""
    left = _half_done(settings)
    if not left:
        return Diagnosis("promotions", "ok", "no promotion or rollback stands half done")
    said = f"{len(left)} moves of aliases stand half done: {'; '.join(words for *_, words in left)}"
    return Diagnosis("promotions", "broken", said, RERUN)


def settle_moves(settings: Settings) -> None:
    """Finish or undo what ``find_moves`` finds."""
    from taxi.registry.aliases import settle

    for service, environment, _ in _half_done(settings):
        settle(settings.tracking_uri, service, environment)


def find_spool(settings: Settings) -> Diagnosis:
    """Look for predictions on disk that no living service carries into the store."""
    folders = waiting_folders(settings.spool)
    if not folders:
        return Diagnosis("spool", "ok", "no predictions wait for a service that is gone")
    size = sum(path.stat().st_size for folder in folders for path in folder.iterdir())
    said = f"{size:,} bytes of predictions of {len(folders)} ended processes are not in the store"
    return Diagnosis("spool", "warn", said, "start the service, or `taxi doctor --repair` writes them")


def carry_spool(settings: Settings) -> None:
    """Write the waiting predictions into the store; raises TaxiError where it does not take them all."""
    from taxi.predictions.log import Carrier
    from taxi.predictions.store import open_store

    store, spool = open_store(settings.predictions), Spool(settings.spool)
    carrier = Carrier(store, spool)
    carrier.carry(last=True)
    queued = carrier.queued
    spool.close()
    store.close()
    if queued:
        raise TaxiError(f"{queued:,} rows still wait: the prediction store at {store.address} did not take them")


def find_refused(settings: Settings) -> Diagnosis:
    """Look for predictions that the database will never take."""
    aside = settings.spool / REFUSED
    if not (parts := log_parts(aside)):
        return Diagnosis("refused-rows", "ok", "the prediction store refused no row")
    rows, named = sum(part.read_bytes().count(b"\n") for part in parts), f"{aside}{'*' * (len(parts) > 1)}"
    return Diagnosis(
        "refused-rows", "warn", f"the store refused {rows:,} rows, kept in {named}", "read them, then remove it"
    )


def find_unfinished(settings: Settings) -> Diagnosis:
    """Look for months that were begun and not ended: nothing is wrong with them, but they are not done."""
    begun = [path for path in settings.reports.glob("*/????-??") if path.parent.name in SERVICES]
    left = [path for path in begun if not (path / "month.json").is_file() and any(path.iterdir())]
    left += [path for path in (settings.data / "split").glob("*/????-??") if STAGING_MARK not in path.name]
    names = sorted({f"{path.parent.name} {path.name}" for path in left})
    if not names:
        return Diagnosis("months", "ok", "no month stands half run")
    return Diagnosis(
        "months", "warn", f"not run to the end: {', '.join(names)}", "run them again: each goes on where it stopped"
    )


CHECKS = (
    Probe("processes", find_orphans, lambda settings: end_orphans(settings.data)),
    Probe("staging", find_staging, clear_staging),
    Probe("sockets", find_sockets, clear_sockets),
    Probe("locks", find_locks),
    Probe("promotions", find_moves, settle_moves),
    Probe("spool", find_spool, carry_spool),
    Probe("refused-rows", find_refused),
    Probe("months", find_unfinished),
)
