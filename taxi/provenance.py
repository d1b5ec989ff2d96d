"""What a model was made of: code, lock and the publisher's bytes."""

import subprocess
from pathlib import Path
from typing import Any

from taxi.config import Params, Settings
from taxi.files import read_json, sha256_file


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def describe_code(root: Path) -> dict[str, str]:
    """Return the git commit (``none`` outside git), whether the tree had changes, and the lock's sha256."""
    lock = root / "requirements.lock"
    return {
        "git_commit": _git(root, "rev-parse", "HEAD") or "none",
        "git_dirty": str(bool(_git(root, "status", "--porcelain", "--untracked-files=no"))).lower(),
        "lock_sha256": sha256_file(lock) if lock.is_file() else "none",
    }


def describe_inputs(settings: Settings, service: str, months: list[str]) -> dict[str, dict[str, str]]:
    """Return for each month the sha256 of the published bytes and of the kept trips, and the address they came from."""
    found = {}
    for month in months:
        paths = settings.month(service, month)
        source = read_json(paths.sidecar) if paths.sidecar.is_file() else {}
        found[month] = {
            "raw_sha256": sha256_file(paths.raw),
            "trips_sha256": sha256_file(paths.trips),
            "address": source.get("address", "unknown"),
        }
    return found


def flatten_params(params: Params) -> dict[str, Any]:
    """Return ``section.name`` to value for all of ``params.yaml``."""
    sections = params.model_dump(mode="json").items()
    return {f"{section}.{name}": value for section, part in sections for name, value in part.items()}


def trace_version(settings: Settings, version: Any) -> dict[str, Any]:
    """Go from a registered version back to raw bytes, code and reports; ``on_hand`` says whether the bytes are still here."""
    months = version.tags["months"].split(",")
    raw = []
    for month in months:
        paths, registered = settings.month(version.service, month), version.tags[f"data.{month}"]
        here = sha256_file(paths.raw) if paths.raw.is_file() else None
        source = read_json(paths.sidecar) if paths.sidecar.is_file() else {}
        raw.append({"month": month, "sha256": registered, "on_hand": here == registered, "address": source.get("address")})
    folder = settings.month(version.service, version.tags["month"]).reports
    return {
        "version": f"{version.service}/{version.number}",
        "role": version.tags["role"],
        "trained_from": version.trained_from,
        "trained_to": version.trained_to,
        "promoted_in": version.promoted_in,
        "metrics": version.metrics,
        "model_sha256": version.tags["model_sha256"],
        "raw": raw,
        "code": {name: version.tags[name] for name in ("git_commit", "git_dirty", "lock_sha256")},
        "run": version.run_id,
        "reports": [str(page) for page in sorted(folder.glob("??-*.html"))],
    }
