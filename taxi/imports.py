"""What a result was computed by: one hash over a module of the package and all that it imports of it."""

import ast
from functools import cache
from pathlib import Path

from taxi.files import sha256_file, sha256_json

PACKAGE = Path(__file__).parent


def _imported(file: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name for name in found if name.startswith(f"{PACKAGE.name}.")}


def _file(module: str) -> Path:
    return PACKAGE / f"{module.split('.')[1]}.py"


def modules_of(module: str) -> list[str]:
    """Return ``module`` (as ``taxi.fitting``) and all modules of the package that it imports, at whatever remove, sorted."""
    found, waiting = set(), {module}
    while waiting:
        found |= waiting
        waiting = {one for name in waiting for one in _imported(_file(name))} - found
        waiting = {name for name in waiting if name.count(".") == 1 and _file(name).is_file()}
    return sorted(found)


@cache
def code_of(module: str) -> str:
    """Return one SHA-256 over the source of ``modules_of(module)``: what the module's results are made by."""
    return sha256_json({name: sha256_file(_file(name)) for name in modules_of(module)})
