"""Fingerprints: one hash over all that a result is made from, its code among it. Equal means done.

Code counts by import closure: what a result's code imports, at whatever remove, inside functions too, and the packages that
this lies in. ``taxi.reporting`` is left out, since it shows results and decides none: what it draws, and what it computes
for a page only, is made anew with the page's step, or by ``taxi notebook``.
"""

import ast
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from taxi.config import PACKAGE
from taxi.files import Damaged, locked, read_json, read_kept, sha256_file, sha256_json, sha256_tree, write_json

PRESENTATION = "taxi.reporting"
Json = dict[str, Any]


def _imported(source: str) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return names


def _file(module: str) -> Path:
    path = PACKAGE.parent / module.replace(".", "/")
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _modules_in(names: Iterable[str]) -> set[str]:
    """Return the package's modules that importing dotted names loads: ``taxi.months.shift_month`` loads two."""
    parts = [name.split(".") for name in names if name.startswith(f"{PACKAGE.name}.")]
    prefixes = {".".join(several[:count]) for several in parts for count in range(1, len(several) + 1)}
    return {name for name in prefixes if not f"{name}.".startswith(f"{PRESENTATION}.") and _file(name).is_file()}


@cache
def _imports(module: str) -> set[str]:
    return _modules_in(_imported(_file(module).read_text(encoding="utf-8")))


def modules_of(*roots: str) -> list[str]:
    """Return the import closure of ``roots`` (as ``taxi.models.fitting``) within the package, ``taxi.reporting`` left out, sorted."""
    closure, waiting = set[str](), _modules_in(roots)
    while waiting:
        closure |= waiting
        waiting = set[str]().union(*map(_imports, waiting)) - closure
    return sorted(closure)


@cache
def code_of(*roots: str) -> str:
    """Return one SHA-256 over the source of ``modules_of(*roots)``: the code that their results are made by."""
    return sha256_json({name: sha256_file(_file(name)) for name in modules_of(*roots)})


def imports_of(notebook: Path) -> list[str]:
    """Return the dotted names that a notebook's code cells import; where a cell is no plain Python, all modules of the package."""
    content = read_json(notebook, "Restore it from git")
    try:
        sources = ["".join(cell["source"]) for cell in content["cells"] if cell["cell_type"] == "code"]
    except (KeyError, TypeError) as error:
        raise Damaged(
            f"expected a notebook at {notebook}; it has no {error} as one has. Restore it from git"
        ) from error
    try:
        return sorted(set[str]().union(*map(_imported, sources)))
    except SyntaxError:  # IPython's magic, say: it may import anything
        files = [path.relative_to(PACKAGE.parent).with_suffix("") for path in PACKAGE.rglob("*.py")]
        return sorted(".".join(file.parts) for file in files)


@cache
def _sha256_at(path: Path, *_state: int) -> str:
    return sha256_file(path)


def hash_path(path: Path) -> str | None:
    """Return the SHA-256 of a file, read once while it does not change, or of a folder's files; None where there is neither."""
    if path.is_dir():
        return sha256_tree(path)
    if not path.is_file():
        return None
    state = path.stat()
    return _sha256_at(path, state.st_ino, state.st_size, state.st_mtime_ns)


def kept_result(path: Path, fingerprint: str) -> Json | None:
    """Return the JSON result at ``path`` if ``fingerprint`` is its own; None if it is to be made."""
    result = read_kept(path)
    return result if result.get("fingerprint") == fingerprint else None


# --- Results kept by what they were made from: asked for again they are taken up, after a kill too, and by other processes.


@dataclass(frozen=True)
class Shelf:
    """A folder of results. A result is there whole or not at all, and is made once however many processes want it."""

    folder: Path

    def place(self, kind: str, made_from: Json) -> Path:
        """Return where what is made from ``made_from`` lies, without an ending: one place for one content."""
        return self.folder / kind / sha256_json(made_from)[:24]

    def take(self, kind: str, made_from: Json, make: Callable[[Path], Json]) -> Json:
        """Return the result; where there is none, ``make`` is given its place, for files beside it, and makes it first."""
        place = self.place(kind, made_from)
        kept = place.with_suffix(".json")
        with locked(self.folder / ".locks" / f"{place.name}.lock"):
            if "result" not in read_kept(kept):
                write_json(kept, {"made_from": made_from, "result": make(place)})
        return dict(read_json(kept)["result"])
