"""Flow runs read from the file of Prefect's own database: a look that costs milliseconds, where the embedded server takes many seconds.

Only a look: whatever changes a run goes through Prefect's server (``pipelines.flow_runs``).
"""

import json
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from taxi.errors import TaxiError
from taxi.processes import lives_here

TAG, LABEL = "process:", "taxi.process"
UNDER_WAY = ("RUNNING", "PENDING", "CANCELLING")
_QUERY = f"SELECT name, tags, labels FROM flow_run WHERE state_type IN ({', '.join('?' * len(UNDER_WAY))})"


@dataclass(frozen=True)
class UnderWay:
    """A run that Prefect takes for under way; ``alive`` says whether its process lives, None where nobody here can say."""

    name: str
    alive: bool | None


def process_mark(tags: list[str], labels: dict[str, object] | None) -> str | None:
    """Return the mark of a run's process: its label, or else the tag of the process that created it."""
    tagged = [tag.removeprefix(TAG) for tag in tags if tag.startswith(TAG)]
    signed = (labels or {}).get(LABEL)
    return str(signed) if signed else (tagged[0] if tagged else None)


def judge(name: str, tags: list[str], labels: dict[str, object] | None) -> UnderWay:
    """Say whether the run's process lives."""
    mark = process_mark(tags, labels)
    return UnderWay(name, lives_here(mark) if mark else None)


def read_under_way(database: Path) -> list[UnderWay]:
    """Return the runs that are under way by Prefect's SQLite file; raise TaxiError where it cannot be read so."""
    try:
        with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True, timeout=3)) as connection:
            rows = connection.execute(_QUERY, UNDER_WAY).fetchall()
    except sqlite3.Error as error:
        raise TaxiError(f"Prefect's database {database} cannot be read: {error}") from error
    return [judge(name, json.loads(tags or "[]"), json.loads(labels or "{}")) for name, tags, labels in rows]
