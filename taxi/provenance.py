"""What a model was made of: code, lock and the publisher's bytes."""

import hashlib
import json
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from taxi.config import NOTEBOOKS, MonthPaths, Settings
from taxi.files import read_json, sha256_file, sha256_json
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


def committed_sha256(root: Path, commit: str, name: str) -> str | None:
    """Return the SHA-256 of a file as it is in ``commit``; None if that commit, or the file in it, is not on hand."""
    shown = subprocess.run(["git", "-C", str(root), "show", f"{commit}:{name}"], capture_output=True, check=False)
    return hashlib.sha256(shown.stdout).hexdigest() if shown.returncode == 0 else None


def describe_inputs(settings: Settings, service: str, months: list[str]) -> dict[str, dict[str, Any]]:
    """Return for each month the sha256 of raw bytes and kept trips, address, ETag, time, and whether they are synthetic."""
    found = {}
    for month in months:
        paths = settings.month(service, month)
        source = read_json(paths.sidecar) if paths.sidecar.is_file() else {}
        found[month] = {
            "raw_sha256": sha256_file(paths.raw),
            "trips_sha256": sha256_file(paths.trips),
            "address": source.get("address", "unknown"),
            "etag": source.get("etag") or "none",
            "fetched_at": source.get("fetched_at", "unknown"),
            "synthetic": bool(source.get("synthetic")),
        }
    return found


def flatten_params(params: Params) -> dict[str, Any]:
    """Return ``section.name`` to value for all of ``params.yaml`` but the live experiment."""
    sections = params.lasting().items()
    return {f"{section}.{name}": value for section, part in sections for name, value in part.items()}


def report_pages(paths: MonthPaths) -> list[Path]:
    """Return the month's executed notebooks, their pages and results, in order of their names."""
    return sorted(page for name in NOTEBOOKS for page in paths.reports.glob(f"{name}.*"))


def trail_tags(settings: Settings, plan: Plan, params: Params) -> dict[str, str]:
    """Return the digests by which a version's parameters and reports are known again: JSON of name to SHA-256."""
    pages = {page.name: sha256_file(page) for page in report_pages(settings.month(plan.service, plan.month))}
    logged = sha256_json(logged_params(plan, params))
    return {"reports": json.dumps(pages, sort_keys=True, separators=(",", ":")), "params_sha256": logged}


def logged_params(plan: Plan, params: Params) -> dict[str, str]:
    """Return what a month's run logs as its parameters: all of ``params.yaml`` and the months that train."""
    given = flatten_params(params) | {"months": ",".join(plan.learnt)}
    return {name: str(value) for name, value in given.items()}


def run_tags(settings: Settings, plan: Plan, inputs: dict[str, Any], fingerprint: str) -> dict[str, str]:
    """Return what the month's run and its versions have in common: code, lock, month, fingerprint, synthetic or not."""
    synthetic = str(any(one["synthetic"] for one in inputs.values())).lower()
    month = {"service": plan.service, "month": plan.month, "fingerprint": fingerprint, "synthetic": synthetic}
    return describe_code(settings.root) | month


def version_tags(
    plan: Plan, role: str, metrics: dict[str, float], inputs: dict[str, Any], challenger: int | None
) -> dict[str, str]:
    """Return a version's own tags: the months that trained it, their bytes, what judged it, and its parent version."""
    months = plan.months_of(role)
    parent = challenger if role == "winner" else plan.incumbent and plan.incumbent["version"]
    tags = {"role": role, "trained_from": months[0], "trained_to": months[-1], "months": ",".join(months)}
    tags |= {"judged_in": plan.month} | ({"promoted_in": plan.month} if role == "winner" else {})
    tags |= {"parent": f"{plan.service}/{parent}"} if parent else {}
    tags |= {f"metric.{name}": str(value) for name, value in metrics.items()}
    for month in months:
        tags |= {f"data.{month}": inputs[month]["raw_sha256"], f"trips.{month}": inputs[month]["trips_sha256"]}
        tags |= {f"{name}.{month}": inputs[month][name] for name in ("address", "etag", "fetched_at")}
    return tags
