"""The table in docs/operations.md of what lies in TAXI_DATA, held against real ones."""

import re
from pathlib import Path

from tests.support.worlds import ROOT

HEADING = "## What lies in TAXI_DATA"


def read_table() -> dict[str, str]:
    """Return each path that the table names (a folder ends with "/"), and what comes of it when its disk is not kept."""
    section = (ROOT / "docs/operations.md").read_text(encoding="utf-8").split(HEADING)[1].split("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| `")]
    return {name: fate for first, _, fate in rows for name in re.findall(r"`([^`]+)`", first)}


def unnamed(data: Path) -> list[str]:
    """Return what lies in a real TAXI_DATA and is in no row; locks and what is being written are hidden files."""
    names = read_table()
    folders = tuple(name for name in names if name.endswith("/") and "<" not in name)
    files = (path.relative_to(data).as_posix() for path in data.rglob("*") if path.is_file())
    seen = [name for name in files if not Path(name).name.startswith(".") or name.startswith(".locks/")]
    databases = re.compile(r"-(wal|shm|journal)$")
    return [name for name in seen if not name.startswith(folders) and databases.sub("", name) not in names]
