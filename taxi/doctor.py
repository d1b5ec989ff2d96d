"""Checks of an installation and of what crashes leave: each finds, and only what is asked to repair repairs."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from taxi.config import Settings
from taxi.errors import TaxiError

Level = Literal["ok", "warn", "broken"]
LEVELS: tuple[Level, ...] = ("ok", "warn", "broken")


@dataclass(frozen=True)
class Finding:
    """What one check found: ``ok``, ``warn`` (works, but look) or ``broken`` (does not work), a sentence, and what to do."""

    name: str
    level: Level
    says: str
    todo: str = ""
    repaired: bool = False


@dataclass(frozen=True)
class Check:
    """One check by name; ``find`` changes nothing, ``repair`` (where there is one) may be done at any time, and again."""

    name: str
    find: Callable[[Settings], Finding]
    repair: Callable[[Settings], object] | None = None


def _find(check: Check, settings: Settings) -> Finding:
    """Return what the check finds; that it could not look is a finding too."""
    try:
        return check.find(settings)
    except (TaxiError, OSError) as error:
        return Finding(check.name, "broken", f"could not be checked: {error}", "mend what the message names")


def _mend(check: Check, settings: Settings, before: Finding) -> Finding:
    """Repair and look again; what was found before is said, so that it is known what was repaired."""
    assert check.repair is not None
    try:
        check.repair(settings)
    except (TaxiError, OSError) as error:
        return replace(before, says=f"{before.says}; the repair failed: {error}")
    after = _find(check, settings)
    if after.level == "ok":
        return Finding(check.name, "ok", f"repaired: {before.says}", repaired=True)
    return after


def examine(checks: Sequence[Check], settings: Settings, repair: bool = False) -> list[Finding]:
    """Return one finding a check, in their order; with ``repair`` what can be repaired safely is, and looked at again."""
    found = []
    for check in checks:
        finding = _find(check, settings)
        if repair and check.repair and finding.level != "ok":
            finding = _mend(check, settings, finding)
        found.append(finding)
    return found


def worst(findings: Sequence[Finding]) -> Level:
    """Return the worst level among the findings; ok if there is none."""
    return max((one.level for one in findings), key=LEVELS.index, default="ok")


def as_answer(findings: Sequence[Finding]) -> dict[str, Any]:
    """Return the findings as ``taxi doctor --json`` prints them."""
    return {"level": worst(findings), "findings": [asdict(one) for one in findings]}
