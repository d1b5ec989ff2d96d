"""What a result was computed by: one hash over a module of the package and all that it imports of it."""

import ast
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from taxi.config import PACKAGE, Settings
from taxi.files import locked, read_json, sha256_file, sha256_json, sha256_tree, write_json
from taxi.params import load_params


def _imported(file: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name for name in found if name.startswith(f"{PACKAGE.name}.")}


def _file(module: str) -> Path:
    return PACKAGE.parent / f"{module.replace('.', '/')}.py"


def modules_of(module: str) -> list[str]:
    """Return ``module`` (as ``taxi.models.fitting``) and all modules of the package that it imports, at whatever remove, sorted."""
    found, waiting = set(), {module}
    while waiting:
        found |= waiting
        waiting = {one for name in waiting for one in _imported(_file(name))} - found
        waiting = {name for name in waiting if _file(name).is_file()}
    return sorted(found)


@cache
def code_of(module: str) -> str:
    """Return one SHA-256 over the source of ``modules_of(module)``: what the module's results are made by."""
    return sha256_json({name: sha256_file(_file(name)) for name in modules_of(module)})


# --- Results kept by what they were made from: asked for again they are taken up, after a kill too, and by other processes.

Json = dict[str, Any]


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
            if not kept.is_file():
                write_json(kept, {"made_from": made_from, "result": make(place)})
        return dict(read_json(kept)["result"])


def code_sha256(settings: Settings) -> str:
    """Return one hash over the package, the parameters (but for the live experiment's) and the locked packages."""
    package = sha256_tree(PACKAGE, "**/*.py")
    return sha256_json(
        [package, load_params(settings.root / "params.yaml").lasting(), hash_path(settings.root / "requirements.lock")]
    )


def hash_path(path: Path) -> str | None:
    """Return the SHA-256 of a file or of a folder's files; None where there is neither."""
    if path.is_dir():
        return sha256_tree(path)
    return sha256_file(path) if path.is_file() else None
