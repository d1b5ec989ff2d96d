"""The registry's SQLite file: made once however many processes start, and found again after it was moved."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from taxi.files import STAGING_MARK, locked, read_json, remove, staged, write_json

ARTIFACTS = "mlartifacts"
PLACES = {
    "experiments": "artifact_location",
    "runs": "artifact_uri",
    "logged_models": "artifact_location",
    "model_versions": "storage_location",
}


def beside(database: Path, what: str) -> Path:
    """Return the path of a lock or mark that belongs to the database."""
    return database.with_name(f".{database.name}.{what}")


def prepare_database(database: Path, edition: str, migrate: Callable[[Path], None]) -> None:
    """Make the file with ``migrate`` (or bring it to ``edition``), once, under a lock; a killed making leaves no file.

    A file that was moved or copied with its ``mlartifacts`` is told where they are now.
    """
    stamp, now = beside(database, "ready"), {"edition": edition, "folder": str(database.parent)}
    with locked(beside(database, "lock")):
        before = read_json(stamp) if stamp.is_file() and database.is_file() else {}
        if before == now:
            return
        for leftover in database.parent.glob(f".{database.stem}{STAGING_MARK}*"):
            remove(leftover)
        if not database.is_file():
            with staged(database) as part:
                migrate(part)
        elif before.get("edition") != edition:
            migrate(database)
        move_places(database)
        write_json(stamp, now)


def move_places(database: Path) -> None:
    """Rewrite where artifacts lie, if the database's folder is another than when its experiments were made."""
    now = f"{database.parent.as_uri()}/{ARTIFACTS}/"
    with closing(sqlite3.connect(database)) as connection, connection:
        found = connection.execute("SELECT artifact_location FROM experiments WHERE name LIKE 'taxi-%'").fetchall()
        for old in {f"{place.rpartition(f'/{ARTIFACTS}/')[0]}/{ARTIFACTS}/" for (place,) in found} - {now}:
            for table, column in PLACES.items():
                moved = f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?"
                connection.execute(moved, (now, len(old) + 1, len(old), old))
