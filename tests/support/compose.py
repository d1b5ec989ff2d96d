"""compose.yaml as data: services with their variables filled in, as `docker compose config` shows them."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "compose.yaml"
VARIABLE = re.compile(r"\$\{(\w+)(?::([?-])([^}]*))?\}")


def variables() -> dict[str, set[str]]:
    """Return each variable that the file uses, with the ways it is used: ``?`` must be set, ``-`` has a default."""
    used: dict[str, set[str]] = {}
    for name, kind, _ in VARIABLE.findall(FILE.read_text(encoding="utf-8")):
        used.setdefault(name, set()).add(kind)
    return used


def fill_in(value: Any, given: Mapping[str, str]) -> Any:
    """Return a part of the file with its variables filled in; KeyError names one that must be set and is not."""
    if isinstance(value, dict):
        return {key: fill_in(part, given) for key, part in value.items()}
    if isinstance(value, list):
        return [fill_in(part, given) for part in value]
    if not isinstance(value, str):
        return value
    return VARIABLE.sub(lambda used: given.get(used[1]) or (used[3] if used[2] == "-" else given[used[1]]), value)


def read_compose(given: Mapping[str, str]) -> dict[str, Any]:
    """Return the whole file, filled in."""
    content: dict[str, Any] = fill_in(yaml.safe_load(FILE.read_text(encoding="utf-8")), given)
    return content


def read_env(text: str) -> dict[str, str]:
    """Return a ``.env`` file's variables."""
    return dict(line.split("=", 1) for line in text.splitlines() if line and not line.startswith("#"))
