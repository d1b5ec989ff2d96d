"""Recomputing what a version's tags claim of files on this machine: each file is the same, differs, or is not here."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from taxi.config import Settings
from taxi.files import read_json, sha256_file
from taxi.integrity import Manifest
from taxi.lineage import Version
from taxi.provenance import committed_sha256

LOCK = "requirements.lock"
_AWAY = "is not on hand: it was published anew since, or is kept elsewhere"


@dataclass(frozen=True)
class Finding:
    """What recomputing one thing found: ``status`` is same, differs or away (not on this machine, so not checked)."""

    what: str
    name: str
    status: str
    reason: str = ""


def compare(what: str, name: str, expected: str, found: str | None, away: str = "is not on hand") -> Finding:
    """Return whether a digest is the one recorded; ``found`` is None where there is nothing to hash."""
    if found is None:
        return Finding(what, name, "away", away)
    if found == expected:
        return Finding(what, name, "same")
    return Finding(what, name, "differs", f"has sha256 {found}; {expected} was recorded")


def hash_file(path: Path) -> str | None:
    """Return the SHA-256 of a file; None if it is not there."""
    return sha256_file(path) if path.is_file() else None


def check_raw(found: Version, month: str, settings: Settings) -> Finding:
    """Compare the published bytes of a month; an edition that was replaced since is looked for among those kept."""
    paths, expected = settings.month(found.service, month), found.tags[f"data.{month}"]
    here, edition = hash_file(paths.raw), f"{month}-{expected[:12]}.parquet"
    if here != expected and (kept := settings.data / "editions" / found.service / edition).is_file():
        return compare("raw month", f"editions/{found.service}/{edition}", expected, sha256_file(kept))
    if here not in (None, expected) and expected in _earlier(paths.sidecar):
        here = None
    return compare("raw month", f"raw/{found.service}/{month}.parquet", expected, here, _AWAY)


def _earlier(sidecar: Path) -> set[str]:
    origin = read_json(sidecar) if sidecar.is_file() else {}
    return {one["sha256"] for one in origin.get("previous", [])}


def check_kept(found: Version, month: str, settings: Settings) -> Finding:
    """Compare the kept trips of a month; those made anew from a later edition of it are not the ones that trained."""
    paths, expected = settings.month(found.service, month), found.tags[f"trips.{month}"]
    here = hash_file(paths.trips)
    if here not in (None, expected) and found.tags[f"data.{month}"] in _earlier(paths.sidecar):
        here = None
    return compare("kept month", f"trips/{found.service}/{month}.parquet", expected, here, _AWAY)


def check_origin(found: Version, month: str, settings: Settings) -> Finding | None:
    """Compare the address in the month's sidecar with the one recorded; None where the sidecar is of another edition."""
    sidecar = settings.month(found.service, month).sidecar
    origin = read_json(sidecar) if sidecar.is_file() else {}
    if origin.get("sha256") != found.tags[f"data.{month}"]:
        return None
    expected, name = found.tags[f"address.{month}"], f"raw/{found.service}/{month}.json"
    if origin.get("address") == expected:
        return Finding("origin", name, "same")
    return Finding("origin", name, "differs", f"names the address {origin.get('address')}; {expected} was recorded")


def check_months(found: Version, settings: Settings) -> list[Finding]:
    """Compare raw bytes, their origin and kept trips of all months that trained the version."""
    months = found.tags["months"].split(",")
    origins = [check_origin(found, month, settings) for month in months]
    return [
        *(check_kept(found, month, settings) for month in months),
        *(check_raw(found, month, settings) for month in months),
        *(one for one in origins if one),
    ]


def made_by_the_same_run(found: Version, settings: Settings) -> bool:
    """Return whether the reports and models in the month's folders are of the run that registered the version."""
    result = settings.month(found.service, found.tags["judged_in"]).reports / "month.json"
    return not result.is_file() or read_json(result).get("fingerprint") == found.tags["fingerprint"]


def check_folder(what: str, folder: Path, shown: str, expected: Mapping[str, str], away: str) -> list[Finding]:
    """Compare each expected file (by name, with its SHA-256) in a folder."""
    return [
        compare(what, f"{shown}/{name}", sha256, hash_file(folder / name), away) for name, sha256 in expected.items()
    ]


def check_published(found: Version, settings: Settings, manifest: Manifest) -> list[Finding]:
    """Compare the copies that people open: the month's reports and the model's folder beside its data.

    Where a later run made the month anew, they are that run's, and nothing is said of them.
    """
    if not made_by_the_same_run(found, settings):
        return []
    paths, month = settings.month(found.service, found.tags["judged_in"]), found.tags["judged_in"]
    shown = f"reports/{found.service}/{month}"
    reports = check_folder("published report", paths.reports, shown, found.recorded_reports, "is not on hand")
    marks = {name: mark.sha256 for name, mark in manifest.items()}
    role, place = found.tags["role"], f"models/{found.service}/{month}/{found.tags['role']}"
    return [*reports, *check_folder("local model file", paths.models / role, place, marks, "is not on hand")]


def check_code(found: Version, root: Path) -> list[Finding]:
    """Compare the lock in the version's commit, and the one in this checkout unless a later commit changed it."""
    commit, expected = found.tags["git_commit"], found.tags["lock_sha256"]
    committed, here = committed_sha256(root, commit, LOCK), hash_file(root / LOCK)
    findings = [compare("lock", f"{LOCK} in commit {commit[:12]}", expected, committed, "that commit is not on hand")]
    if findings[0].status == "differs" and found.tags["git_dirty"] == "true":
        findings = [Finding("lock", findings[0].name, "away", "the lock that was used was in no commit")]
    if here != expected and here is not None and here == committed_sha256(root, "HEAD", LOCK):
        return [*findings, Finding("lock", LOCK, "away", "a later commit changed it")]
    return [*findings, compare("lock", LOCK, expected, here)]


def describe_faults(findings: list[Finding]) -> str | None:
    """Return what differs, in one line; None if nothing does."""
    faults = [f"{one.what} {one.name} {one.reason}" for one in findings if one.status == "differs"]
    return "; ".join(faults) or None


def count_findings(findings: list[Finding]) -> dict[str, Any]:
    """Return how many findings have each status."""
    return {status: sum(one.status == status for one in findings) for status in ("same", "differs", "away")}
