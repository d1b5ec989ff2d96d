"""Registered versions as plain values: which is the champion, which one is asked for, and the way back to its bytes."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from taxi.errors import UsageError

DEV = "dev"
ENVIRONMENTS = (DEV, "staging", "prod")


def model_name(service: str, environment: str = DEV) -> str:
    """Return the registered model's name in an environment: ``taxi-green``, ``taxi-green-staging``, ``taxi-green-prod``."""
    if environment not in ENVIRONMENTS:
        raise UsageError(f"expected an environment, one of {', '.join(ENVIRONMENTS)}; got {environment!r}")
    return f"taxi-{service}" if environment == DEV else f"taxi-{service}-{environment}"


@dataclass(frozen=True)
class Version:
    """One registered version of a service's model; ``metrics`` are those of the month that judged its recipe."""

    service: str
    number: int
    trained_from: str
    trained_to: str
    promoted_in: str | None
    metrics: dict[str, float]
    tags: dict[str, str]
    source: str
    run_id: str
    environment: str = DEV

    @property
    def label(self) -> str:
        """The version as messages name it: ``green/4``, or ``green/2 in prod``."""
        return f"{self.service}/{self.number}" + ("" if self.environment == DEV else f" in {self.environment}")

    @property
    def in_use(self) -> bool:
        """Whether it may be champion: promoted, approved where a person must approve, and not rolled back."""
        waits = "awaits_approval" in self.tags and f"approved.{DEV}" not in self.tags
        return bool(self.promoted_in) and not waits and not self.tags.get("rolled_back")

    @property
    def recorded_reports(self) -> dict[str, str]:
        """SHA-256 of the month's reports as they were when the version was registered, by file name."""
        return dict(json.loads(self.tags.get("reports", "{}")))


def newest_version(versions: Sequence[Version]) -> Version | None:
    """Return the version trained to the latest month, the last one registered of several; None if there is none."""
    return max(versions, key=lambda one: (one.trained_to, one.number), default=None)


def pick_champion(versions: Sequence[Version], before: str = "9999-12") -> Version | None:
    """Return the newest version in use whose training ends before the month ``before``; None if there is none."""
    return newest_version([one for one in versions if one.in_use and one.trained_to < before])


def pick_version(versions: Sequence[Version], service: str, number: str) -> Version:
    """Return the version of that number, or the ``champion``; raise UsageError that lists what there is."""
    known = {str(one.number): one for one in versions}
    if champion := pick_champion(versions):
        known["champion"] = champion
    if number not in known:
        listed = ", ".join(f"{service}/{one}" for one in known) or "none yet"
        raise UsageError(f"expected a version as SERVICE/NUMBER; got '{service}/{number}'; there are: {listed}")
    return known[number]


def _raw_bytes(found: Version, month: str) -> dict[str, Any]:
    names = {
        "sha256": "data",
        "trips_sha256": "trips",
        "address": "address",
        "etag": "etag",
        "fetched_at": "fetched_at",
    }
    return {"month": month} | {name: found.tags.get(f"{tag}.{month}") for name, tag in names.items()}


def trace_version(found: Version, pages: list[str]) -> dict[str, Any]:
    """Spell out a version's way back to raw bytes, code and reports, as its tags have it."""
    tags = found.tags
    return {
        "version": f"{found.service}/{found.number}",
        "environment": found.environment,
        "released_from": tags.get("released_from"),
        "rolled_back": tags.get("rolled_back") or None,
        "approved": {name: tags[f"approved.{name}"] for name in ENVIRONMENTS if f"approved.{name}" in tags},
        "role": tags["role"],
        "parent": tags.get("parent"),
        "trained_from": found.trained_from,
        "trained_to": found.trained_to,
        "judged_in": tags["judged_in"],
        "promoted_in": found.promoted_in,
        "synthetic": tags["synthetic"] == "true",
        "metrics": found.metrics,
        "model_sha256": tags["model_sha256"],
        "fingerprint": tags["fingerprint"],
        "raw": [_raw_bytes(found, month) for month in tags["months"].split(",")],
        "code": {name: tags[name] for name in ("git_commit", "git_dirty", "lock_sha256")},
        "run": found.run_id,
        "reports": pages,
    }
