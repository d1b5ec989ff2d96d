"""What an alias move changes, decided before anything is changed: pure functions over versions and their tags."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from taxi.errors import Refused, TaxiError, UsageError
from taxi.lineage import DEV, Version, newest_version, pick_champion

Change = list[str | None]


@dataclass(frozen=True)
class Move:
    """One change of a registered model: ``aliases`` by name, and ``tags`` by version and name, each as [before, after].

    ``copied`` is the version (``models:/taxi-green/4``) that is copied in first; ``tags`` of "copy" are the copy's, and
    the alias ``champion`` then names it.
    """

    at: str
    by: str
    why: str
    aliases: dict[str, Change] = field(default_factory=dict)
    tags: dict[str, dict[str, Change]] = field(default_factory=dict)
    copied: str | None = None


def now() -> str:
    """Return the time (UTC) as alias moves are named by it: sortable, and unique to a microsecond."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def write_move(move: Move) -> str:
    """Return the move as the JSON text of a tag."""
    return json.dumps(asdict(move), sort_keys=True, separators=(",", ":"))


def read_move(text: str) -> Move:
    """Read what ``write_move`` returned; raise TaxiError if it cannot be read."""
    try:
        return Move(**json.loads(text))
    except (ValueError, TypeError) as error:
        raise TaxiError(f"expected an alias move in the registry's journal; got {text[:200]!r}") from error


def with_tags(there: Sequence[Version], tags: dict[str, dict[str, Change]]) -> list[Version]:
    """Return the versions as they are once ``tags`` are set."""
    changed = {number: {name: str(after) for name, (_, after) in own.items()} for number, own in tags.items()}
    return [replace(one, tags={**one.tags, **changed.get(str(one.number), {})}) for one in there]


def plan_move(
    there: Sequence[Version],
    aliases: dict[str, int],
    by: str,
    why: str,
    tags: dict[str, dict[str, Change]] | None = None,
) -> Move | None:
    """Return the move that sets ``tags`` and lets the aliases follow the versions' tags; None if nothing changes.

    The alias ``champion`` names the newest version in use, ``challenger`` the newest challenger that was tried.
    """
    after = with_tags(there, tags or {})
    tried = newest_version([one for one in after if one.tags["role"] == "challenger"])
    wanted = {"champion": pick_champion(after), "challenger": tried if tried and tried.environment == DEV else None}
    changes: dict[str, Change] = {}
    for alias, one in wanted.items():
        before = str(aliases[alias]) if alias in aliases else None
        if one and before != str(one.number):
            changes[alias] = [before, str(one.number)]
    return Move(now(), by, why, changes, tags or {}) if changes or tags else None


def champions_served(history: Sequence[Move]) -> list[int]:
    """Return the versions that the alias ``champion`` has named, oldest first."""
    named = [move.aliases["champion"] for move in history if "champion" in move.aliases]
    return [int(one) for one in [*(before for before, _ in named[:1]), *(after for _, after in named)] if one]


def choose_target(there: Sequence[Version], history: Sequence[Move], to: int | None = None) -> Version:
    """Return the version to roll back to: ``to``, or else the champion before this one that is still in use.

    Raises UsageError or Refused that says why there is none.
    """
    promoted = {one.number: one for one in there if one.promoted_in}
    champion = pick_champion(there)
    if to is not None:
        if to not in promoted or (champion and to == champion.number):
            others = ", ".join(str(one) for one in promoted if not champion or one != champion.number) or "none"
            raise UsageError(f"expected a promoted version other than the champion; got {to}; there are: {others}")
        return promoted[to]
    if champion is None:
        raise Refused("there is no champion to roll back from")
    usable = {one.number: one for one in there if one.in_use and one.number != champion.number}
    for number in reversed(champions_served(history)):
        if number in usable:
            return usable[number]
    raise Refused(f"{champion.label} has no champion before it that is still in use; name one by --to")


def rollback_tags(
    there: Sequence[Version], target: Version, at: str, by: str, why: str
) -> dict[str, dict[str, Change]]:
    """Return the tags that make ``target`` the champion and keep it so: all versions in use that rank above it are out.

    A rolled-back target is taken back into use.
    """
    above = [one for one in there if one.in_use and (one.trained_to, one.number) > (target.trained_to, target.number)]
    note = json.dumps({"at": at, "by": by, "why": why, "to": target.number})
    tags: dict[str, dict[str, Change]] = {str(one.number): _change(one, "rolled_back", note) for one in above}
    if target.tags.get("rolled_back"):
        tags[str(target.number)] = _change(target, "rolled_back", "")
    return tags


def _change(one: Version, tag: str, after: str) -> dict[str, Change]:
    return {tag: [one.tags.get(tag), after]}


def approval_tags(
    one: Version, environment: str, report: str, sha256: str, at: str, by: str
) -> dict[str, dict[str, Any]]:
    """Return the tags that say who let ``one`` into ``environment``, when, and on the strength of which report."""
    note = json.dumps({"at": at, "by": by, "report": report, "sha256": sha256})
    return {str(one.number): _change(one, f"approved.{environment}", note)}
