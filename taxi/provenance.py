"""What a model was made of: code, lock and the publisher's bytes."""

import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from taxi.config import Settings
from taxi.files import read_json, sha256_file
from taxi.params import Params
from taxi.plan import Plan

NEEDED = ("holidays", "numpy", "pandas", "pyarrow", "scikit-learn", "xgboost-cpu")


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


def describe_inputs(settings: Settings, service: str, months: list[str]) -> dict[str, dict[str, Any]]:
    """Return for each month the sha256 of raw bytes and kept trips, the address, and whether they are synthetic."""
    found = {}
    for month in months:
        paths = settings.month(service, month)
        source = read_json(paths.sidecar) if paths.sidecar.is_file() else {}
        found[month] = {
            "raw_sha256": sha256_file(paths.raw),
            "trips_sha256": sha256_file(paths.trips),
            "address": source.get("address", "unknown"),
            "synthetic": bool(source.get("synthetic")),
        }
    return found


def flatten_params(params: Params) -> dict[str, Any]:
    """Return ``section.name`` to value for all of ``params.yaml`` but the live experiment."""
    sections = params.lasting().items()
    return {f"{section}.{name}": value for section, part in sections for name, value in part.items()}


def run_tags(settings: Settings, plan: Plan, inputs: dict[str, Any], fingerprint: str) -> dict[str, str]:
    """Return what the month's run and its versions have in common: code, lock, month, fingerprint, synthetic or not."""
    synthetic = str(any(one["synthetic"] for one in inputs.values())).lower()
    month = {"service": plan.service, "month": plan.month, "fingerprint": fingerprint, "synthetic": synthetic}
    return describe_code(settings.root) | month


def version_tags(
    plan: Plan, role: str, metrics: dict[str, float], inputs: dict[str, Any], challenger: int | None
) -> dict[str, str]:
    """Return a version's own tags: the months that trained it, their bytes, what judged it, and its parent version."""
    months = plan.refit_window if role == "winner" else plan.window or [plan.month]
    parent = challenger if role == "winner" else plan.incumbent and plan.incumbent["version"]
    tags = {"role": role, "trained_from": months[0], "trained_to": months[-1], "months": ",".join(months)}
    tags |= {"judged_in": plan.month} | ({"promoted_in": plan.month} if role == "winner" else {})
    tags |= {"parent": f"{plan.service}/{parent}"} if parent else {}
    tags |= {f"metric.{name}": str(value) for name, value in metrics.items()}
    for month in months:
        tags |= {f"data.{month}": inputs[month]["raw_sha256"], f"trips.{month}": inputs[month]["trips_sha256"]}
        tags[f"address.{month}"] = inputs[month]["address"]
    return tags
