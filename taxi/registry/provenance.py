"""Provenance of a model: code, lock and the publisher's bytes."""

import hashlib
import shutil
import subprocess
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from taxi.config import MonthPaths, Settings, read_environment
from taxi.data.origin import read_origin
from taxi.files import sha256_file, sha256_json
from taxi.params import Params

NEEDED = ("holidays", "numpy", "pandas", "pyarrow", "scikit-learn", "xgboost-cpu")


SEAL = "seal"
RESULT = "result_sha256"  # of month.json, in the tags of the month's run
SET_LATER = ("approved.", "mlflow.", "released_", "rolled_back", SEAL)


def requirements() -> list[str]:
    """Return the packages that a model needs to predict, pinned to those installed here."""
    pinned = []
    for package in NEEDED:
        try:
            pinned.append(f"{package}=={version(package)}")
        except PackageNotFoundError:
            package = package.removesuffix("-cpu")
            pinned.append(f"{package}=={version(package)}")
    return pinned


def _git(root: Path, *arguments: str) -> bytes | None:
    """Return what git prints; None where it fails, or is not installed, as in an image."""
    if not shutil.which("git"):
        return None
    done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, check=False)
    return done.stdout if done.returncode == 0 else None


def describe_code(root: Path) -> dict[str, str]:
    """Return the git commit (outside git what TAXI_COMMIT says, or ``none``), whether the tree had changes, and the lock's sha256."""
    lock, head = root / "requirements.lock", (_git(root, "rev-parse", "HEAD") or b"").decode().strip()
    return {
        "git_commit": head or read_environment().commit or "none",
        "git_dirty": str(bool(_git(root, "status", "--porcelain", "--untracked-files=no"))).lower(),
        "lock_sha256": sha256_file(lock) if lock.is_file() else "none",
    }


def committed_sha256(root: Path, commit: str, name: str) -> str | None:
    """Return the SHA-256 of a file as it is in ``commit``; None if that commit, or the file in it, is not on hand."""
    content = _git(root, "show", f"{commit}:{name}")
    return None if content is None else hashlib.sha256(content).hexdigest()


def describe_inputs(settings: Settings, service: str, months: list[str]) -> dict[str, dict[str, Any]]:
    """Return for each month the sha256 of raw bytes and kept trips, address, ETag, time, and whether they are synthetic.

    ``records`` are the sha256 of what lies beside them: quarantine, acceptance and sidecar, as far as these are there.
    """
    found = {}
    for month in months:
        paths = settings.month(service, month)
        origin = read_origin(paths.sidecar)
        found[month] = {
            "raw_sha256": sha256_file(paths.raw),
            "trips_sha256": sha256_file(paths.trips),
            "address": origin.address if origin else "unknown",
            "etag": (origin and origin.etag) or "none",
            "fetched_at": origin.fetched_at if origin else "unknown",
            "synthetic": bool(origin and origin.synthetic),
            "records": {name: sha256_file(path) for name, path in list_records(paths).items() if path.is_file()},
        }
    return found


def list_records(paths: MonthPaths) -> dict[str, Path]:
    """Return the files that say what was published, refused and accepted of a month, by what they are."""
    return {"quarantine": paths.quarantine, "acceptance": paths.acceptance, "sidecar": paths.sidecar}


def sealed_digest(tags: Mapping[str, str]) -> str:
    """Return one SHA-256 over the tags that a version is registered with: not those that events, or MLflow, set later."""
    lasting = {name: text for name, text in tags.items() if not name.startswith(SET_LATER)}
    return sha256_json(lasting)


def flatten_params(params: Params) -> dict[str, Any]:
    """Return ``section.name`` to value for all of ``params.yaml`` but the live experiment."""
    sections = params.lasting().items()
    return {f"{section}.{name}": value for section, part in sections for name, value in part.items()}
