"""What the files of a model may hold: nothing that needs pickle, and no request to load code. Each check returns the fault."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import yaml

LOADER = "taxi.pyfunc"
BEGINNINGS = {".json": (b"{",), ".npz": (b"PK\x03\x04",), ".parquet": (b"PAR1",), ".ubj": (b"{",)}
MOST_BYTES = 512 * 1024**2
MLMODEL_KEYS = {
    "artifact_path", "flavors", "is_signature_from_type_hint", "mlflow_version", "model_id", "model_size_bytes", "model_uuid",
    "prompts", "run_id", "saved_input_example_info", "signature", "type_hint_from_example", "utc_time_created",
}  # fmt: skip
FLAVOUR_KEYS = {"code", "data", "env", "loader_module", "python_version", "streamable"}


def content_fault(path: Path) -> str | None:
    """Return why a file of an allowed name may not be parsed; None if it begins as its format does and holds no pickle."""
    expected = BEGINNINGS.get(path.suffix)
    with open(path, "rb") as stream:
        begins = stream.read(4)
    if expected and not begins.startswith(expected):
        kind = "a pickle" if begins[:1] == b"\x80" else "gzip" if begins[:2] == b"\x1f\x8b" else repr(begins)
        return f"is not a {path.suffix} file: it begins as {kind}"
    return _arrays_fault(path) if path.suffix == ".npz" else None


def _arrays_fault(path: Path) -> str | None:
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if (size := sum(member.file_size for member in members)) > MOST_BYTES:
                return f"unpacks to {size:,} bytes; at most {MOST_BYTES:,} are allowed"
            for member in members:
                with archive.open(member) as stream:
                    if not member.filename.endswith(".npy") or _array_type(stream).hasobject:
                        return f"holds '{member.filename}', which is not a plain array: it would need pickle"
    except (zipfile.BadZipFile, ValueError, EOFError) as error:
        return f"is not a .npz file: {error}"
    return None


def _array_type(stream: Any) -> np.dtype[Any]:
    version = np.lib.format.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"arrays of format {version} are not read")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return read(stream)[2]


def flavour_fault(mlmodel: Path, data: str) -> str | None:
    """Return what is wrong with ``MLmodel``: another flavour than pyfunc, another loader, code, or another data folder."""
    try:
        content = yaml.safe_load(mlmodel.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
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
            return f"has {name} {pyfunc.get(name)!r}; expected {expected!r}"
    return None
