"""Rollback, approval and alias moves: each is one event in the registry, and MLflow's aliases and tags are set by all events."""

import json
import logging
import re
from collections.abc import Callable, Sequence
from functools import partial

from taxi.addresses import shown
from taxi.errors import Refused, UsageError
from taxi.params import Params
from taxi.registry.events import (
    ANSWERED,
    COPY,
    EVENT,
    JOURNAL,
    MOVED,
    Event,
    TagChanges,
    champions_served,
    fold_aliases,
    fold_tags,
    now,
    now_less,
    write_event,
)
from taxi.registry.mlflow_client import Client, changing, connect, prepare, reaching
from taxi.registry.versions import (
    DEV,
    Registered,
    Version,
    find_version,
    model_name,
    newest_version,
    pick_champion,
    read_registered,
    versions,
    with_tags,
)

NO_CHAMPION = "there is no champion to roll back from"

# --- What an event says, decided before anything is changed: pure functions over versions and their tags.


def plan_event(
    made: Sequence[Version], aliases: dict[str, str], by: str, why: str, tags: TagChanges | None = None
) -> Event | None:
    """Return the event that sets ``tags`` and lets the aliases follow the versions' tags; None if nothing changes.

    The alias ``champion`` names the newest version in use, ``challenger`` the newest challenger that was tried.
    """
    event = Event(now(), by, why, tags=tags or {})
    after = with_tags(made, fold_tags([event]))
    tried = newest_version([version for version in after if version.tags["role"] == "challenger"])
    wanted = {"champion": pick_champion(after), "challenger": tried if tried and tried.environment == DEV else None}
    for alias, version in wanted.items():
        if version and aliases.get(alias) != str(version.number):
            event.aliases[alias] = [aliases.get(alias), str(version.number)]
    return event if event.aliases or event.tags else None


def choose_target(there: Sequence[Version], history: Sequence[Event], to: int | None = None) -> Version:
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
        raise Refused(NO_CHAMPION)
    usable = {one.number: one for one in there if one.in_use and one.number != champion.number}
    for number in reversed(champions_served(history)):
        if number in usable:
            return usable[number]
    raise Refused(f"{champion.label} has no champion before it that is still in use; name one by --to")


def rollback_tags(made: Sequence[Version], target: Version, at: str, by: str, why: str) -> TagChanges:
    """Return the tags that make ``target`` the champion and keep it so: all versions in use that rank above it are out.

    A rolled-back target is taken back into use.
    """
    rank = (target.trained_to, target.number)
    above = [str(one.number) for one in made if one.in_use and (one.trained_to, one.number) > rank]
    note = json.dumps({"at": at, "by": by, "why": why, "to": target.number})
    # the versions share one note: a tag of MLflow's holds 5,000 characters on PostgreSQL
    tags: TagChanges = {",".join(above): {"rolled_back": [None, note]}} if above else {}
    if before := target.tags.get("rolled_back"):
        tags[str(target.number)] = {"rolled_back": [before, ""]}
    return tags


def approval_tags(version: Version, environment: str, report: str, sha256: str, at: str, by: str) -> TagChanges:
    """Return the tags that say who let the version into ``environment``, when, and on the strength of which report."""
    note, name = json.dumps({"at": at, "by": by, "report": report, "sha256": sha256}), f"approved.{environment}"
    return {str(version.number): {name: [version.tags.get(name), note]}}


def _is_approved(tags: TagChanges) -> bool:
    """Say whether this very approval (same person, same report) stands already: typed again, it is one."""
    ((_, changes),) = tags.items()
    ((before, after),) = changes.values()
    same = [{name: text for name, text in json.loads(note or "{}").items() if name != "at"} for note in (before, after)]
    return same[0] == same[1]


# --- Events are written in one call each; aliases, versions' tags and copies are then set by all events, again if need be.

Step = Callable[[], object]
_LOG = logging.getLogger(__name__)


def make_name(client: Client, name: str) -> None:
    """Make the registered model, unless it is there."""
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name)


def carry_out(client: Client, registered: Registered, event: Event) -> None:
    """Write the event, which makes it so, and set in MLflow what it says; the caller holds the service's lock."""
    client.set_registered_model_tag(registered.name, f"{EVENT}{len(registered.events) + 1:06d}", write_event(event))
    _set_unset(client, registered.name)


def _set_unset(client: Client, name: str) -> None:
    for _ in range(3):  # an old journal, then a copy, then aliases and tags
        for step in _unset(client, read_registered(client, name)):
            step()


def _unset(client: Client, registered: Registered) -> list[Step]:
    """Return the next calls that are missing until MLflow says what the events say; each can be done twice."""
    if not registered.events:
        return []
    name, key, event = registered.name, [*registered.events][-1], registered.last
    if _is_impossible(client, registered, event):
        put_back = _unset_tags(client, registered, fold_tags([event], undone=True))
        return [*put_back, partial(client.delete_registered_model_tag, name, key)]
    if key == JOURNAL:
        keep = partial(client.set_registered_model_tag, name, f"{MOVED}{event.at}", write_event(event))
        return [keep, partial(client.delete_registered_model_tag, name, key)]
    if COPY in event.tags:
        return [partial(client.copy_model_version, event.copied, name)]
    events, made = registered.events.values(), {str(version.version) for version in registered.versions}
    wrong = {(alias, after) for alias, after in fold_aliases(events).items() if after in made}
    wrong -= registered.aliases.items()
    aliases = [partial(client.set_registered_model_alias, name, *change) for change in sorted(wrong)]
    return [*aliases, *_unset_tags(client, registered, fold_tags(events))]


def _unset_tags(client: Client, registered: Registered, said: dict[str, dict[str, str]]) -> list[Step]:
    return [
        partial(client.set_model_version_tag, registered.name, str(version.version), tag, text)
        for version in registered.versions
        for tag, text in said.get(str(version.version), {}).items()
        if version.tags.get(tag, "") != text
    ]


def _is_impossible(client: Client, registered: Registered, event: Event) -> bool:
    """Return whether a version that the last event is about is gone, before its alias was moved."""
    if COPY in event.tags:
        name, _, number = str(event.copied).removeprefix("models:/").rpartition("/")
        return all(str(version.version) != number for version in read_registered(client, name).versions)
    made, aliases = {str(version.version) for version in registered.versions}, registered.aliases
    unmoved = [after for alias, (before, after) in event.aliases.items() if aliases.get(alias, "") == before]
    return not made.issuperset(unmoved)


def settle_open(client: Client, name: str) -> str | None:
    """Set what the events say and MLflow does not, or undo an event that a deleted version made impossible; say which."""
    registered = read_registered(client, name)
    if not _unset(client, registered):
        return None
    event = registered.last
    done = "undid" if _is_impossible(client, registered, event) else "finished"
    _set_unset(client, name)
    _LOG.warning(message := f"{done} a move of {name} begun at {event.at} by {event.by}: {event.why}")
    return message


def open_event(tracking_uri: str, service: str, environment: str = DEV) -> Event | None:
    """Return the event that a process is at, or was killed at before MLflow said all of it; nothing is written."""
    if not prepare(tracking_uri, make=False):
        return None
    with reaching(tracking_uri):
        client = connect(tracking_uri)
        registered = read_registered(client, model_name(service, environment))
        return registered.last if _unset(client, registered) else None


def settle(tracking_uri: str, service: str, environment: str = DEV) -> str | None:
    """Do ``settle_open`` under the service's lock: every start of what moves an alias begins with it."""
    prepare(tracking_uri)
    with changing(tracking_uri, service) as client, reaching(tracking_uri):
        return settle_open(client, model_name(service, environment))


def follow_tags(
    tracking_uri: str,
    service: str,
    why: str,
    by: str = "taxi run",
    environment: str = DEV,
    client: Client | None = None,
) -> None:
    """Let the aliases follow the versions' tags; the caller holds the service's lock, and gives the ``client`` that came with it."""
    client = client or connect(tracking_uri)
    settle_open(client, model_name(service, environment))
    _carry_out_plan(client, tracking_uri, service, environment, by, why)


def _carry_out_plan(
    client: Client, uri: str, service: str, environment: str, by: str, why: str, tags: TagChanges | None = None
) -> None:
    registered = read_registered(client, model_name(service, environment))
    event = plan_event(versions(uri, service, environment), registered.aliases, by, why, tags)
    if event:
        carry_out(client, registered, event)


# --- A command that was killed and is typed again is one request: what it did already is answered, not done once more.

REPEAT_HOURS = 1.0  # a request that was not answered is the same one so long


def is_unanswered(registered: Registered, by: str) -> bool:
    """Say whether the newest event is this person's, of this hour, and of a command that never came to its end."""
    if not registered.events or [*registered.events][-1] == registered.answered:
        return False
    return registered.last.by == by and registered.last.at >= now_less(REPEAT_HOURS)


def close_request(client: Client, name: str) -> None:
    """Note that the newest event's command was answered: typed again from here on, it is another request."""
    client.set_registered_model_tag(name, ANSWERED, [*read_registered(client, name).events][-1])


def _begun_rollback(registered: Registered, by: str, why: str, to: int | None) -> tuple[str | None, int] | None:
    """Return from where to where this very rollback went already, if it was not answered."""
    if not is_unanswered(registered, by):
        return None
    went = re.fullmatch(rf"rollback to (\d+): {re.escape(why)}", registered.last.why)
    if went is None or to not in (None, int(went[1])):
        return None
    return registered.last.aliases.get("champion", [None])[0], int(went[1])


def roll_back(
    tracking_uri: str,
    service: str,
    by: str,
    why: str,
    to: int | None = None,
    environment: str = DEV,
    answer: Callable[[Version | None, Version], object] = lambda *_: None,
) -> tuple[Version | None, Version]:
    """Return to the champion before this one (or to version ``to``), for good: the monthly run does not bring it back.

    Returns, and tells ``answer``, the version that was champion and the one that is. Killed before that and called again, it goes
    no further. Raises Refused or UsageError if there is none to go to.
    """
    name = model_name(service, environment)
    if not prepare(tracking_uri, make=False):
        raise Refused(f"{NO_CHAMPION}, and no registry at {shown(tracking_uri)}")
    with changing(tracking_uri, service) as client:
        with reaching(tracking_uri):
            settle_open(client, name)
            registered, made = read_registered(client, name), versions(tracking_uri, service, environment)
            if begun := _begun_rollback(registered, by, why, to):
                _LOG.warning("this rollback was begun at %s and is done; it is not done twice", registered.last.at)
                was, number = begun
            else:
                was, target = registered.aliases.get("champion"), choose_target(made, [*registered.events.values()], to)
                tags, number = rollback_tags(made, target, now(), by, why), target.number
                _carry_out_plan(client, tracking_uri, service, environment, by, f"rollback to {number}: {why}", tags)
        before = next((one for one in made if str(one.number) == was), None)
        after = find_version(tracking_uri, f"{service}/{number}", environment=environment)
        # in the lock: whoever comes next must see an event that was answered, or it takes its own request for this one
        answer(before, after)
        with reaching(tracking_uri):
            close_request(client, name)
    return before, after


def approve(
    tracking_uri: str, wanted: Version, for_environment: str, report: str, sha256: str, by: str, params: Params
) -> Version:
    """Record that a person let the version into an environment after reading ``report``, and let the aliases follow.

    ``sha256`` is the report's as read. Raises Refused if it is not the version's comparison, which says why it was promoted;
    UsageError if no one asked.
    """
    own, deciding = wanted.recorded_reports, wanted.deciding_reports
    if sha256 not in own.values():
        raise Refused(f"{report} is no report of {wanted.label}; its reports are {', '.join(sorted(own)) or 'none'}")
    if sha256 not in deciding.values():
        raise Refused(
            f"{report} does not judge {wanted.label}; expected {', '.join(sorted(deciding)) or 'a comparison'}"
        )
    if for_environment not in params.release.approval and "awaits_approval" not in wanted.tags:
        raise UsageError(f"params.yaml asks for no approval in {for_environment} (release.approval)")
    prepare(tracking_uri)
    service, environment = wanted.service, wanted.environment
    with changing(tracking_uri, service) as client, reaching(tracking_uri):
        settle_open(client, model_name(service, environment))
        tags = approval_tags(wanted, for_environment, report, sha256, now(), by)
        if _is_approved(tags):
            tags = {}
        why = f"{wanted.label} was approved for {for_environment}"
        _carry_out_plan(client, tracking_uri, service, environment, by, why, tags)
    return find_version(tracking_uri, f"{service}/{wanted.number}", environment=environment)
