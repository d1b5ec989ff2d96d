"""Bytecode of what is imported: a process starts without compiling, and what nobody imports costs no room.

``python compile_imports.py [--drop-tests] MODULE…`` imports each module, our two packages with all that is in them, and compiles the
installed modules that this loaded. Bytecode is taken without a look at its source (unchecked-hash): an image's files have one time.
"""

import pkgutil
import py_compile
import shutil
import sys
import sysconfig
from importlib import import_module
from pathlib import Path

INSTALLED = Path(sysconfig.get_path("purelib"))


def import_whole(name: str) -> None:
    """Import a module, or all modules of one of our packages but its migrations, which Alembic alone can run."""
    module = import_module(name)
    if name in ("taxi", "pipelines"):
        for found in pkgutil.walk_packages(module.__path__, f"{name}."):
            if not found.name.startswith("taxi.migrations."):
                import_module(found.name)


def imported_sources() -> list[Path]:
    """Return the sources of the imported modules that are installed here."""
    files = {Path(file) for module in list(sys.modules.values()) if (file := getattr(module, "__file__", None))}
    return sorted(file for file in files if file.is_relative_to(INSTALLED) and file.suffix == ".py")


def drop_tests(kept: list[Path]) -> None:
    """Remove the packages' folders of tests, but those of which something was imported."""
    for folder in sorted(INSTALLED.rglob("tests")):
        if folder.is_dir() and not any(source.is_relative_to(folder) for source in kept):
            shutil.rmtree(folder)


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        if argument != "--drop-tests":
            import_whole(argument)
    loaded = imported_sources()
    if "--drop-tests" in sys.argv:
        drop_tests(loaded)
    for source in loaded:
        py_compile.compile(str(source), doraise=True, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
    print(f"compiled {len(loaded)} modules")
