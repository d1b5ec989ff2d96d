"""Alias moves as transactions: a journal in the registry names all steps before the first, so a crash is finished or undone."""

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from mlflow.exceptions import MlflowException

from taxi.errors import Refused, TaxiError, UsageError
from taxi.files import locked
from taxi.params import Params
from taxi.registry.mlflow_client import Client, connect, is_missing, lock_file, prepare, reaching
from taxi.registry.versions import (
    DEV,
    Version,
    find_version,
    model_name,
    newest_version,
    pick_champion,
    read_aliases,
    versions,
)

# --- What an alias move changes, decided before anything is changed: pure functions over versions and their tags.

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


JOURNAL = "journal"
MOVED = "moved."
_LOG = logging.getLogger(__name__)


def make_name(client: Client, name: str) -> None:
    """Make the registered model, unless it is there."""
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name)


def _model_tags(client: Client, name: str) -> dict[str, str]:
    found = client.search_registered_models(f"name = '{name}'")
    return dict(found[0].tags) if found else {}


def read_history(tracking_uri: str, service: str, environment: str = DEV) -> list[Move]:
    """Return the alias moves that were carried out, oldest first."""
    prepare(tracking_uri)
    with reaching(tracking_uri):
        tags = _model_tags(connect(tracking_uri), model_name(service, environment))
    return [read_move(tags[name]) for name in sorted(tags) if name.startswith(MOVED)]


def carry_out(client: Client, name: str, move: Move) -> None:
    """Journal the move, do its steps, note it in the history, close the journal; the caller holds the service's lock."""
    client.set_registered_model_tag(name, JOURNAL, write_move(move))
    _finish(client, name, move)


def _finish(client: Client, name: str, move: Move) -> None:
    """Do all steps, whichever were done before: each sets what is to be, so doing it twice is doing it once."""
    copy = _copied(client, name, move.copied) if move.copied else ""
    for number, tags in move.tags.items():
        for tag, (_, after) in tags.items():
            client.set_model_version_tag(name, copy if number == "copy" else number, tag, after)
    aliases = {alias: [before, copy if after == "copy" else after] for alias, (before, after) in move.aliases.items()}
    for alias, (_, after) in aliases.items():
        client.set_registered_model_alias(name, alias, str(after))
    _close(client, name, Move(**{**vars(move), "aliases": aliases}))


def _copied(client: Client, name: str, source: str) -> str:
    """Return the number of the copy of ``source``, made unless a killed process had got so far."""
    for one in client.search_model_versions(f"name = '{name}'", max_results=10_000):
        if one.source == source:
            return str(one.version)
    return str(client.copy_model_version(source, name).version)


def _close(client: Client, name: str, move: Move) -> None:
    client.set_registered_model_tag(name, f"{MOVED}{move.at}", write_move(move))
    client.delete_registered_model_tag(name, JOURNAL)


def _undo(client: Client, name: str, move: Move, there: set[str]) -> None:
    """Put back what was before, as far as its versions are still there."""
    for number, tags in move.tags.items():
        for tag, (before, _) in tags.items() if number in there else ():
            if before is None:
                client.delete_model_version_tag(name, number, tag)
            else:
                client.set_model_version_tag(name, number, tag, before)
    for alias, (before, _) in move.aliases.items():
        if before in there:
            client.set_registered_model_alias(name, alias, before)
        else:
            client.delete_registered_model_alias(name, alias)
    client.delete_registered_model_tag(name, JOURNAL)


def _possible(client: Client, name: str, move: Move) -> tuple[bool, set[str]]:
    """Return whether all versions that the move names are still there, and the versions that are."""
    there = {str(one.version) for one in client.search_model_versions(f"name = '{name}'", max_results=10_000)}
    named = {*move.tags, *(after for _, after in move.aliases.values() if after)} - {"copy"}
    return named <= there and (move.copied is None or _exists(client, move.copied)), there


def _exists(client: Client, source: str) -> bool:
    name, _, number = source.removeprefix("models:/").rpartition("/")
    try:
        return bool(client.get_model_version(name, number))
    except MlflowException as error:
        if is_missing(error):
            return False
        raise


def settle_open(client: Client, name: str) -> str | None:
    """Finish the move that a killed process left open, or undo it if a version it names is gone; return what was done."""
    text = _model_tags(client, name).get(JOURNAL)
    if not text:
        return None
    move = read_move(text)
    possible, there = _possible(client, name, move)
    if possible:
        _finish(client, name, move)
    else:
        _undo(client, name, move, there)
    done = f"{'finished' if possible else 'undid'} a move of {name} begun at {move.at} by {move.by}: {move.why}"
    _LOG.warning("%s", done)
    return done


def open_move(tracking_uri: str, service: str, environment: str = DEV) -> Move | None:
    """Return the move that is in the journal: one that is under way, or that a killed process left half done."""
    prepare(tracking_uri)
    with reaching(tracking_uri):
        text = _model_tags(connect(tracking_uri), model_name(service, environment)).get(JOURNAL)
    return read_move(text) if text else None


def settle(tracking_uri: str, service: str, environment: str = DEV) -> str | None:
    """Do ``settle_open`` under the service's lock: every start that reads or moves an alias begins with it."""
    prepare(tracking_uri)
    with reaching(tracking_uri), locked(lock_file(tracking_uri, service)):
        return settle_open(connect(tracking_uri), model_name(service, environment))


def follow_tags(tracking_uri: str, service: str, why: str, by: str = "taxi run", environment: str = DEV) -> None:
    """Let the aliases follow the versions' tags; the caller holds the service's lock."""
    client, name = connect(tracking_uri), model_name(service, environment)
    settle_open(client, name)
    move = plan_move(versions(tracking_uri, service, environment), read_aliases(client, name), by, why)
    if move:
        carry_out(client, name, move)


def roll_back(
    tracking_uri: str, service: str, by: str, why: str, to: int | None = None, environment: str = DEV
) -> tuple[Version | None, Version]:
    """Return to the champion before this one (or to version ``to``), for good: the monthly run does not bring it back.

    Returns the version that was champion and the one that is. Raises Refused or UsageError if there is none to go to.
    """
    prepare(tracking_uri)
    name = model_name(service, environment)
    with reaching(tracking_uri), locked(lock_file(tracking_uri, service)):
        client = connect(tracking_uri)
        settle_open(client, name)
        there = versions(tracking_uri, service, environment)
        before = next((one for one in there if one.number == read_aliases(client, name).get("champion")), None)
        target = choose_target(there, read_history(tracking_uri, service, environment), to)
        tags = rollback_tags(there, target, now(), by, why)
        move = plan_move(there, read_aliases(client, name), by, f"rollback to {target.number}: {why}", tags)
        if move:
            carry_out(client, name, move)
    return before, find_version(tracking_uri, f"{service}/{target.number}", environment=environment)


def approve(
    tracking_uri: str, wanted: Version, for_environment: str, report: str, sha256: str, by: str, params: Params
) -> Version:
    """Record that a person let the version into an environment after reading ``report``, and let the aliases follow.

    ``sha256`` is the report's as read. Raises Refused if it is not one of the version's own, UsageError if no one asked.
    """
    own = wanted.recorded_reports
    if sha256 not in own.values():
        raise Refused(f"{report} is no report of {wanted.label}; its reports are {', '.join(sorted(own)) or 'none'}")
    if for_environment not in params.release.approval and "awaits_approval" not in wanted.tags:
        raise UsageError(f"params.yaml asks for no approval in {for_environment} (release.approval)")
    prepare(tracking_uri)
    name = model_name(wanted.service, wanted.environment)
    with reaching(tracking_uri), locked(lock_file(tracking_uri, wanted.service)):
        client = connect(tracking_uri)
        settle_open(client, name)
        tags = approval_tags(wanted, for_environment, report, sha256, now(), by)
        there = versions(tracking_uri, wanted.service, wanted.environment)
        why = f"{wanted.label} was approved for {for_environment}"
        move = plan_move(there, read_aliases(client, name), by, why, tags)
        if move:
            carry_out(client, name, move)
    return find_version(tracking_uri, f"{wanted.service}/{wanted.number}", environment=wanted.environment)
