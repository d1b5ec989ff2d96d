"""Integrity of model files: which a model may have, what these must hold (nothing executable), and the digests recorded of them."""

import json
import os
import re
import reprlib
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from taxi.errors import TaxiError
from taxi.files import sha256_file
from taxi.unpacking import content_fault

# --- What ``MLmodel`` may ask for: no code but this package's. Each check returns the fault.

LOADER = "taxi.pyfunc"
MLMODEL_KEYS = {
    "artifact_path", "flavors", "is_signature_from_type_hint", "mlflow_version", "model_id", "model_size_bytes", "model_uuid",
    "prompts", "run_id", "saved_input_example_info", "signature", "type_hint_from_example", "utc_time_created",
}  # fmt: skip
FLAVOUR_KEYS = {"code", "data", "env", "loader_module", "python_version", "streamable"}


def flavour_fault(mlmodel: Path, data: str) -> str | None:
    """Return what is wrong with ``MLmodel``: another flavour than pyfunc, another loader, code, or another data folder."""
    try:
        content = yaml.safe_load(mlmodel.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        return f"cannot be read: {error}"
    if not isinstance(content, dict) or not isinstance(content.get("flavors"), dict):
        return "names no flavours"
    if unknown := sorted(map(str, set(content) - MLMODEL_KEYS)):
        return f"has entries that no model of ours has: {unknown}"
    if extra := sorted(map(str, set(content["flavors"]) - {"python_function"})):
        return f"names the flavours {extra}; expected python_function alone"
    return _pyfunc_fault(content["flavors"].get("python_function"), data)


def _pyfunc_fault(pyfunc: Any, data: str) -> str | None:
    if not isinstance(pyfunc, dict) or set(pyfunc) - FLAVOUR_KEYS:
        return f"has an odd python_function; expected the entries {sorted(FLAVOUR_KEYS)}"
    for name, expected in {"code": None, "loader_module": LOADER, "data": data}.items():
        if pyfunc.get(name) != expected:
            return f"has {name} {reprlib.repr(pyfunc.get(name))}; expected {expected!r}"
    return None


NEEDED = ("recipe.json", "tables.npz", "zones.parquet")
MODEL_NAME = re.compile(
    r"(planned/)?(recipe\.json|(tables|calibration|trees|linear|pair-median)\.npz|zones\.parquet|[a-z0-9_]+\.ubj)"
)
WRAPPED_NAME = re.compile(
    r"MLmodel|conda\.yaml|python_env\.yaml|requirements\.txt|(serving_)?input_example\.json"
    rf"|data/(challenger|winner)/{MODEL_NAME.pattern}"
)
PICKLED = (".pkl", ".pickle", ".joblib", ".skops", ".pt", ".pth", ".dill", ".cloudpickle")


class UnsafeModel(TaxiError):
    """A model that is not, byte for byte, the inert files recorded at its registration; the message names the fault."""


class FileMark(BaseModel):
    """What was recorded of one file: its size (bytes) and its SHA-256."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    size: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


Manifest = dict[str, FileMark]
_MANIFEST = TypeAdapter(Manifest)


def list_files(folder: Path) -> dict[str, Path]:
    """Return the files under ``folder`` by their names (with ``/``); raise UnsafeModel for links and other oddities."""
    if not folder.is_dir():
        raise UnsafeModel(f"expected a model's folder at {folder}; there is none")
    found = {}
    for place, folders, names in os.walk(folder):
        for path in (Path(place) / name for name in [*folders, *names]):
            name = path.relative_to(folder).as_posix()
            if path.is_symlink():
                raise UnsafeModel(f"'{name}' is a symbolic link; a model holds plain files only")
            if not path.is_dir() and not path.is_file():
                raise UnsafeModel(f"'{name}' is neither a file nor a folder")
            if path.is_file():
                found[name] = path
    return found


def write_manifest(folder: Path) -> str:
    """Return the sizes and digests of all files under ``folder``, as the JSON text that a version's tag keeps."""
    marks = {
        name: {"size": path.stat().st_size, "sha256": sha256_file(path)} for name, path in list_files(folder).items()
    }
    return json.dumps(marks, sort_keys=True, separators=(",", ":"))


def read_manifest(text: str | None) -> Manifest:
    """Read what ``write_manifest`` returned; raise UnsafeModel if there is none or it is not one."""
    if not text:
        raise UnsafeModel("no manifest was recorded when this model was registered; register it anew with `taxi run`")
    try:
        return _MANIFEST.validate_json(text)
    except ValidationError as error:
        raise UnsafeModel(f"the recorded manifest cannot be read: {error.errors()[0]['msg']}") from error


def model_part(manifest: Manifest) -> tuple[str, Manifest]:
    """Return the model's own folder inside of the registered one (``data/winner``), and the manifest of just that."""
    folders = {"/".join(name.split("/")[:2]) for name in manifest if name.startswith("data/")}
    if len(folders) != 1:
        raise UnsafeModel(f"expected the manifest to name one folder under data/; it names {sorted(folders) or 'none'}")
    folder = folders.pop()
    return folder, {name.removeprefix(f"{folder}/"): mark for name, mark in manifest.items() if name.startswith(folder)}


def name_fault(name: str, allowed: re.Pattern[str]) -> str | None:
    """Return why a file of this name may not be in a model; None if it may."""
    path = PurePosixPath(name)
    if ".." in path.parts or path.is_absolute() or "\\" in name:
        return "leads out of the model's folder"
    if path.parts[:1] == ("code",):
        return "is code, which loading would put on the import path"
    if any(one.lower() in PICKLED for one in path.suffixes):
        return "is a pickle by its name"
    return None if allowed.fullmatch(name) else "is not one of the files that a model may have"


def check_names(names: Iterable[str], manifest: Manifest, allowed: re.Pattern[str] = MODEL_NAME) -> None:
    """Raise UnsafeModel unless all names are allowed and are just those of the manifest."""
    there = set(names)
    for name in sorted(there | set(manifest)):
        if fault := name_fault(name, allowed):
            raise UnsafeModel(f"'{name}' {fault}")
    if there != set(manifest):
        more, less = sorted(there - set(manifest)), sorted(set(manifest) - there)
        said = [f"there is also {more}"] if more else []
        raise UnsafeModel(f"expected the files recorded at registration; {', '.join([*said, *_missing(less)])}")


def _missing(names: list[str]) -> list[str]:
    return [f"missing is {names}"] if names else []


def _check_files(folder: Path, manifest: Manifest, allowed: re.Pattern[str]) -> None:
    files = list_files(folder)
    check_names(files, manifest, allowed)
    for name, path in sorted(files.items()):
        mark, size = manifest[name], path.stat().st_size
        if size != mark.size:
            raise UnsafeModel(f"'{name}' has {size:,} bytes; {mark.size:,} were recorded at registration")
        if (found := sha256_file(path)) != mark.sha256:
            raise UnsafeModel(f"'{name}' has sha256 {found}; {mark.sha256} was recorded at registration")
        if fault := content_fault(path):
            raise UnsafeModel(f"'{name}' {fault}")


def check_model_folder(folder: Path, manifest: Manifest) -> None:
    """Raise UnsafeModel, which names the fault, unless ``folder`` is a model's with just the files recorded; parses none."""
    _check_files(folder, manifest, MODEL_NAME)
    check_needed(manifest)


def check_needed(manifest: Manifest) -> None:
    """Raise UnsafeModel if a file that every model has is not in the manifest."""
    if less := [name for name in NEEDED if name not in manifest]:
        raise UnsafeModel(f"expected a model's files; {_missing(less)[0]}")


def check_registered_folder(folder: Path, manifest: Manifest) -> None:
    """Raise UnsafeModel unless the folder that MLflow keeps is as recorded, and asks for no code but this package's."""
    _check_files(folder, manifest, WRAPPED_NAME)
    check_needed(model_part(manifest)[1])
    if fault := flavour_fault(folder / "MLmodel", model_part(manifest)[0]):
        raise UnsafeModel(f"'MLmodel' {fault}")
