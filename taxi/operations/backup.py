"""Backup and restore of an installation, beside running services: databases, data, reports and models, each file with its digest.

The order makes a copy consistent. Files come first, the registry after them, models last: what is registered names files and
models that are there; files that are older than the registry are what a run that was killed leaves, and the next run mends.
"""

import os
import shutil
import sqlite3
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

import sqlalchemy as sql
from sqlalchemy.engine import make_url

from taxi.addresses import SQLITE, redact, shown, sqlite_file
from taxi.config import SERVICES, Settings, read_secret
from taxi.database import open_engine, reaching
from taxi.errors import TaxiError, UsageError
from taxi.files import (
    STAGING_MARK,
    Damaged,
    is_left,
    making_room_known,
    read_json,
    read_model,
    remove,
    sha256_file,
    staged,
    write_json,
    write_model,
)
from taxi.operations.databases import ADMIN, WHAT
from taxi.processes import run_with

Json = dict[str, Any]
MANIFEST, FACTS, MARK = "manifest.json", "facts.json", ".restoring"
VARIABLES = {"registry": "MLFLOW_TRACKING_URI", "predictions": "TAXI_PREDICTIONS", "metrics": "TAXI_METRICS"}
REBUILT = ("backtest", "serving", "split", "home", "mlartifacts")  # below TAXI_DATA; models have a place of their own
SQLITE_HEAD, SIDE_FILES = b"SQLite format 3\0", ("-wal", "-shm", "-journal")
DRILL, DAY = "taxi_drill_", 86_400  # a database of a drill that was killed is dropped by one that comes a day later
HOST = "take the copy where its database can be reached, with the database's address"


# --- What a copy holds: every file with its digest, the manifest last, so that a copy that was cut short has none.


def _files(folder: Path) -> Iterator[str]:
    names = (path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file())
    return (name for name in names if name != MANIFEST)


def write_manifest(folder: Path, environment: str) -> Path:
    """Write what a copy holds, each file with its digest, and when it was taken."""
    files = {name: sha256_file(folder / name) for name in _files(folder)}
    write_json(folder / MANIFEST, {"environment": environment, "at": datetime.now(UTC).isoformat(), "files": files})
    return folder / MANIFEST


def manifest_faults(folder: Path, files: Mapping[str, str]) -> Iterator[str]:
    """Say which files of a copy are missing, changed, or in no manifest."""
    for name, digest in files.items():
        if not (folder / name).is_file():
            yield f"{name} is missing from the copy"
        elif sha256_file(folder / name) != digest:
            yield f"{name} is not as the manifest says"
    for name in sorted(set(_files(folder)) - files.keys()):
        yield f"{name} is not in the manifest"


@dataclass(frozen=True)
class Facts:
    """What a copy is of: files by database's role, old places by experiment's folder, rows of each table before and after it was taken."""

    taxi: str
    databases: dict[str, str]
    artifacts: dict[str, str]
    rows: dict[str, dict[str, tuple[int, int]]]


def check_copy(folder: Path) -> Facts:
    """Return what a copy is of; raise Damaged, in one line, unless it is whole."""
    if not (folder / MANIFEST).is_file():
        raise Damaged(f"expected a whole copy at {folder}; it has no {MANIFEST}: it was cut short, or is none")
    try:
        faults = list(manifest_faults(folder, read_json(folder / MANIFEST, "Take another copy")["files"]))
    except (KeyError, TypeError, AttributeError) as error:
        raise Damaged(
            f"expected a manifest with files at {folder / MANIFEST}; it has {error!r}. Take another"
        ) from error
    if faults:
        more = f", and {len(faults) - 1} more" * (len(faults) > 1)
        raise Damaged(f"expected a whole copy at {folder}; {faults[0]}{more}. Take another: nothing was restored")
    return read_model(folder / FACTS, Facts, "what a copy is of", "Take another copy.")


# --- Databases: SQLite by its own copying beside writers, PostgreSQL by pg_dump and pg_restore.


def _program(name: str) -> str:
    places = [*os.get_exec_path(), *map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True))]
    if path := shutil.which(name, path=os.pathsep.join(places)):
        return path
    raise UsageError(
        f"{name} is not installed: apt-get install postgresql-client, of the server's edition or a newer one"
    )


def _call(name: str, address: str, *words: str) -> None:
    """Run one of PostgreSQL's programs; the password goes by the environment, where no list of processes shows it."""
    url = make_url(address)
    words = (*words, f"--dbname={url.set(drivername='postgresql', password=None).render_as_string()}")
    secret = {"PGPASSWORD": str(url.password)} if url.password else {}
    done = run_with([_program(name), "--no-password", *words], secret)
    if done.returncode:
        raise TaxiError(f"{name} of {shown(address)} failed: {redact(done.stderr.strip().partition(chr(10))[0])}")


def _copy_sqlite(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with closing(sqlite3.connect(source)) as live, closing(sqlite3.connect(target)) as copy:
            live.backup(copy)
            copy.execute("PRAGMA journal_mode=DELETE")
    except sqlite3.Error as error:
        raise TaxiError(f"{source} cannot be copied: {error}") from error


def _copy_database(address: str, role: str, folder: Path) -> str | None:
    """Copy a database into the folder; return the file's name, None where there is no database yet."""
    if file := sqlite_file(address):
        name = f"database/{'mlflow' if role == 'registry' else role}.db"
        if file.is_file():
            _copy_sqlite(file, folder / name)
        return name if file.is_file() else None
    name = f"database/{make_url(address).database}.dump"
    (folder / "database").mkdir(exist_ok=True)
    if not (folder / name).is_file():  # two stores may share one
        _call("pg_dump", address, "--format=custom", "--no-owner", "--no-privileges", f"--file={folder / name}")
    return name


def _open(address: str) -> sql.Engine:
    """Return an engine that leaves a SQLite file's journal as it is: MLflow's is no WAL, and may be copied as one file."""
    return sql.create_engine(address) if sqlite_file(address) else open_engine(address, "database", "its address")


def count_rows(address: str) -> dict[str, int]:
    """Return the number of rows in each table of a database; nothing of a SQLite file that is not there."""
    if (file := sqlite_file(address)) and not file.is_file():
        return {}
    engine = _open(address)
    try:
        with reaching("database", shown(address)), engine.connect() as connection:
            tables = [sql.table(name) for name in sql.inspect(connection).get_table_names()]
            counted = {one.name: connection.scalar(sql.select(sql.func.count()).select_from(one)) for one in tables}
            return {name: int(rows or 0) for name, rows in counted.items()}
    finally:
        engine.dispose()


def _check_empty(copy: str, address: str, role: str) -> None:
    """Raise UsageError unless a database of the copy's kind is at the address, with nothing in it."""
    if copy.endswith(".db") != bool(sqlite_file(address)):
        kind = "sqlite:///…" if copy.endswith(".db") else "postgresql+psycopg2://…"
        raise UsageError(f"expected {VARIABLES[role]} as {kind}, as the copy's database is; got {shown(address)}")
    if count_rows(address):
        raise UsageError(f"expected an empty database at {shown(address)} ({VARIABLES[role]}); it has tables")


def _make_database(copy: Path, address: str) -> None:
    if count_rows(address):
        return  # it was made whole before the restore was killed, or two stores share it
    if not (file := sqlite_file(address)):
        whole = ("--no-owner", "--no-privileges", "--exit-on-error", "--single-transaction")
        _call("pg_restore", address, *whole, str(copy))
        return
    with staged(file) as part:
        shutil.copyfile(copy, part)


# --- A copy is taken.


def _copy_tree(source: Path, target: Path, passed_over: Iterable[Path] = ()) -> None:
    """Copy files but hidden ones (locks, what is being written); what vanishes meanwhile was carried on, or was too old."""
    passed = set(passed_over)
    for place, folders, names in os.walk(source):
        folders[:] = [name for name in folders if not name.startswith(".") and Path(place, name) not in passed]
        for path in (Path(place, name) for name in sorted(names) if not name.startswith(".")):
            if path not in passed and not path.name.endswith(SIDE_FILES):
                with suppress(FileNotFoundError):
                    _copy_file(path, target / path.relative_to(source))


def _copy_file(path: Path, target: Path) -> None:
    with path.open("rb") as stream:
        is_database = stream.read(len(SQLITE_HEAD)) == SQLITE_HEAD
    if is_database:
        _copy_sqlite(path, target)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with making_room_known(target):
        shutil.copy2(path, target)


def _experiments(address: str) -> dict[str, str]:
    """Return where each of our MLflow experiments keeps its artifacts."""
    engine = _open(address)
    try:
        with reaching("model registry", shown(address)), engine.connect() as connection:
            asked = "SELECT name, artifact_location FROM experiments WHERE name LIKE 'taxi-%'"
            return dict(connection.execute(sql.text(asked)).tuples().all())
    finally:
        engine.dispose()


def _copy_models(address: str, folder: Path) -> dict[str, str]:
    """Fetch the artifacts of our experiments; return the folder of the copy that each is in, and where it was."""
    from taxi.registry.mlflow_client import fetch_artifacts

    places = {}
    for name, place in _experiments(address).items():
        on_s3 = urlsplit(place).scheme == "s3"
        into = f"buckets/artifacts{urlsplit(place).path}" if on_s3 else f"artifacts/{name}"
        places[into] = place
        fetch_artifacts(place, folder / into)
    return places


def _addresses(settings: Settings) -> dict[str, str]:
    """Return the databases by their role, in the order in which they are copied."""
    return {"predictions": settings.predictions, "metrics": settings.metrics, "registry": settings.tracking_uri}


def make_backup(settings: Settings, target: Path, environment: str = "local") -> Json:
    """Copy an installation into the new folder ``target``; return its bytes, rows and seconds. May be killed at any time."""
    begun, addresses = time.monotonic(), _addresses(settings)
    if target.exists():
        raise UsageError(f"expected a new folder for the copy; {target} is there: name another")
    if any(target.is_relative_to(place) for place in (settings.data, settings.reports)):
        raise UsageError(f"expected a folder outside of TAXI_DATA and TAXI_REPORTS; got {target}")
    for left in target.parent.glob(f".{target.stem}{STAGING_MARK}*"):
        if is_left(left):
            remove(left)
    for role, address in addresses.items():
        if not (sqlite_file(address) or address.startswith("postgresql")):
            raise UsageError(f"expected {VARIABLES[role]} as a database; got {shown(address)}: {HOST}")
    before = {role: count_rows(address) for role, address in addresses.items()}
    with staged(target) as part:
        part.mkdir(mode=0o700)
        _copy_all(settings, addresses, part)
        databases = {role: name for role, address in addresses.items() if (name := _copy_database(address, role, part))}
        models = _copy_models(addresses["registry"], part) if "registry" in databases else {}
        rows = {role: _between(before[role], count_rows(addresses[role])) for role in databases}
        write_model(part / FACTS, Facts(version("taxi"), databases, models, rows))
        write_manifest(part, environment)
    size = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
    made = {"copy": str(target), "bytes": size, "sha256": sha256_file(target / MANIFEST)}
    return made | {"seconds": round(time.monotonic() - begun, 1)}


def _copy_all(settings: Settings, addresses: Mapping[str, str], part: Path) -> None:
    """Copy data and reports; the spool is among them, so that a row that is carried meanwhile is in it or in the store."""
    databases = [file for address in addresses.values() if (file := sqlite_file(address))]
    away = [settings.data / name for name in REBUILT] + [settings.reports, *databases]
    away += [folder / "versions" for folder in (settings.data / "models").glob("*")]
    _copy_tree(settings.data, part / "data", away)
    _copy_tree(settings.reports, part / "reports")


def _between(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, tuple[int, int]]:
    pairs = {name: sorted((before.get(name, 0), rows)) for name, rows in after.items()}
    return {name: (fewest, most) for name, (fewest, most) in pairs.items()}


# --- A copy is restored: into empty places only, in another folder or on another machine.


@dataclass(frozen=True)
class Places:
    """Where a copy is restored: the settings' folders, databases by role, and the artifacts' root, the settings' where none is given."""

    settings: Settings
    addresses: Mapping[str, str]
    artifacts: str | None = None

    def root(self, experiment: str) -> str:
        """Return where an experiment's artifacts go."""
        from taxi.registry.mlflow_client import artifact_root

        service = experiment.removeprefix("taxi-")
        return f"{self.artifacts}/{service}" if self.artifacts else str(artifact_root(self.settings, service))


def restore(folder: Path, places: Places | Settings) -> Json:
    """Make an installation from a copy, where the settings or ``places`` say; raise Damaged or UsageError before anything is written where that cannot be.

    One that was killed may be repeated: what it has made is known by a mark in the data folder.
    """
    begun, facts = time.monotonic(), check_copy(folder)
    if isinstance(places, Settings):
        places = Places(places, _addresses(places))
    digest, mark = sha256_file(folder / MANIFEST), places.settings.data / MARK
    if not (mark.is_file() and mark.read_text() == digest):
        _check_places(facts, places)
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.write_text(digest)
    for role, name in facts.databases.items():
        _make_database(folder / name, places.addresses[role])
    _copy_tree(folder / "data", places.settings.data)
    _copy_tree(folder / "reports", places.settings.reports)
    if "registry" in facts.databases:
        _place_models(folder, facts, places)
    mark.unlink()
    return {"restored": str(folder), "seconds": round(time.monotonic() - begun, 1)}


def _check_places(facts: Facts, places: Places) -> None:
    for variable, folder in (("TAXI_DATA", places.settings.data), ("TAXI_REPORTS", places.settings.reports)):
        if folder.is_dir() and any(not path.name.startswith(".") for path in folder.iterdir()):
            raise UsageError(f"expected an empty folder as {variable}; {folder} holds files: name another")
    for role, name in facts.databases.items():
        _check_empty(name, places.addresses[role], role)


def _place_models(folder: Path, facts: Facts, places: Places) -> None:
    """Put the models where this installation keeps them, and tell the registry: it names every place from its root on."""
    from taxi.registry.mlflow_client import MOVES, prepare, store_artifacts

    address = places.addresses["registry"]
    experiments = {place: name for name, place in _experiments(address).items()}
    engine = _open(address)
    for into, old in facts.artifacts.items():
        if old not in experiments:
            continue  # moved before the restore was killed
        new = places.root(experiments[old])
        if (folder / into).is_dir():
            store_artifacts(folder / into, new)
        with engine.begin() as connection:
            for move in MOVES:
                connection.execute(sql.text(move), {"old": f"{old.rstrip('/')}/", "new": f"{new.rstrip('/')}/"})
            there = sql.text("UPDATE experiments SET artifact_location = :new WHERE artifact_location = :old")
            connection.execute(there, {"old": old, "new": new})
    engine.dispose()
    prepare(address)


# --- The drill: a copy is restored beside the installation, and has to answer as the installation does.


@contextmanager
def _databases_beside(facts: Facts, settings: Settings, folder: Path) -> Iterator[dict[str, str]]:
    """Give new databases for a copy, by role: SQLite files in the folder, or databases on the same PostgreSQL server, dropped at the end."""
    live, made = _addresses(settings), dict[str, str]()
    with ExitStack() as dropping:
        for name in sorted(set(facts.databases.values())):
            role = next(role for role, file in facts.databases.items() if file == name)
            if sqlite_file(live[role]):
                made[name] = f"{SQLITE}{folder / Path(name).name}"
            else:
                made[name] = dropping.enter_context(_database_beside(live[role]))
        nowhere = {role: f"{SQLITE}{folder / role}.db" for role in live}
        yield nowhere | {role: made[name] for role, name in facts.databases.items()}


@contextmanager
def _database_beside(address: str) -> Iterator[str]:
    """Make a database as TAXI_DB_ADMIN, or as the store's own user where he may, and drop it at the end."""
    admin = read_secret(ADMIN).strip() or address
    engine, name = open_engine(admin, WHAT, ADMIN), f"{DRILL}{int(time.time())}_{uuid.uuid4().hex[:8]}"
    try:
        with reaching(WHAT, shown(admin)), engine.connect() as connection:
            connection = connection.execution_options(isolation_level="AUTOCOMMIT")
            for left in connection.scalars(sql.text("SELECT datname FROM pg_database")).all():
                if left.startswith(DRILL) and int(left.split("_")[2]) < time.time() - DAY:
                    connection.exec_driver_sql(f'DROP DATABASE IF EXISTS "{left}" WITH (FORCE)')
            connection.exec_driver_sql(f'CREATE DATABASE "{name}" TEMPLATE template0')
        yield make_url(admin).set(database=name).render_as_string(hide_password=False)
    finally:
        with reaching(WHAT, shown(admin)), engine.connect() as connection:
            connection = connection.execution_options(isolation_level="AUTOCOMMIT")
            connection.exec_driver_sql(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        engine.dispose()


MOVING = {"approved", "rolled_back", "raw", "counts", "checks", "faults", "verified"}  # what may have come after a copy


def _differences(settings: Settings, restored: Settings) -> tuple[int, list[str]]:
    """Ask both installations for every version's way back, golden trips included; return how many, and what a copy answers otherwise."""
    from taxi.registry.lineage import verify_version
    from taxi.registry.versions import ENVIRONMENTS, versions

    count, faults = 0, []
    for service, environment in product(SERVICES, ENVIRONMENTS):
        live = {one.number: one for one in versions(settings.tracking_uri, service, environment)}
        for one in versions(restored.tracking_uri, service, environment):
            count += 1
            if one.number not in live:
                faults.append(f"{one.label} is in the copy, and the installation does not have it")
            else:
                odd = _lost_answers(verify_version(settings, live[one.number]), verify_version(restored, one))
                faults += [f"{one.label}: {said}" for said in odd]
    return count, faults


def _lost_answers(there: Json, here: Json) -> Iterator[str]:
    """Say what a version answers otherwise in a copy: whatever is as recorded in the installation is so in the copy."""
    for name in sorted(here.keys() - MOVING):
        if here[name] != there[name]:
            yield f"expected {name} {there[name]!r:.60}; the copy says {here[name]!r:.60}"
    copied = {(check["what"], check["name"]): check for check in here["checks"]}
    for check in there["checks"]:
        same = copied.get((check["what"], check["name"]), {"status": "gone", "reason": "is not in the copy"})
        if check["status"] == "same" != same["status"]:
            yield f"{check['what']} {check['name']} {same['reason']}"


def _lost_rows(facts: Facts, addresses: Mapping[str, str]) -> list[str]:
    faults = []
    for role, tables in facts.rows.items():
        counted = count_rows(addresses[role])
        for name, (fewest, most) in tables.items():
            if not fewest <= counted.get(name, -1) <= most:
                said = f"{fewest:,}" if fewest == most else f"{fewest:,} to {most:,}"
                faults.append(f"table {name} of {role}: expected {said} rows; the copy has {counted.get(name, 'none')}")
    return faults


def drill(settings: Settings, copy: Path | None = None, within: Path | None = None) -> Json:
    """Restore a copy, a new one where none is given, into a temporary place; return how it differs, and the seconds of each step."""
    seconds = {}
    with TemporaryDirectory(prefix="taxi-drill-", dir=within) as name:
        place = Path(name).resolve()
        if copy is None:
            copy = place / "copy"
            seconds["backup"] = make_backup(settings, copy)["seconds"]
        facts = check_copy(copy)
        beside = replace(settings, data=place / "data", reports=place / "reports")
        with _databases_beside(facts, settings, place) as addresses:
            beside = replace(beside, tracking_uri=addresses["registry"])
            places = Places(beside, addresses, (place / "mlartifacts").as_uri())
            seconds["restore"] = restore(copy, places)["seconds"]
            begun, faults = time.monotonic(), _lost_rows(facts, addresses)
            count, odd = _differences(settings, beside) if "registry" in facts.databases else (0, [])
            faults += [] if count else ["the copy has no version: nothing could answer from it"]
            seconds["answers"] = round(time.monotonic() - begun, 1)
    return {"versions": count, "faults": [*faults, *odd], "seconds": seconds}
