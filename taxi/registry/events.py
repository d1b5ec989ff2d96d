"""Event log of a registered model: each rollback, approval, entry or alias move is one tag; the champion is a fold over them."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta

from taxi.errors import TaxiError

EVENT = "event."
# Registries before the event log: a move that was carried out, and the journal of one that was begun.
MOVED, JOURNAL = "moved.", "journal"
COPY = "copy"
ANSWERED = "answered"  # names the newest event whose command came to its end

_TIME = "%Y-%m-%dT%H:%M:%S.%fZ"
Change = list[str | None]
TagChanges = dict[str, dict[str, Change]]


@dataclass(frozen=True)
class Event:
    """One change of a registered model: ``aliases`` by name, and ``tags`` by versions ("3" or "3,4") and name, as [before, after].

    ``copied`` is the version (``models:/taxi-green/4``) that enters from the environment before; "copy" stands for its copy.
    """

    at: str
    by: str
    why: str
    aliases: dict[str, Change] = field(default_factory=dict)
    tags: TagChanges = field(default_factory=dict)
    copied: str | None = None


def now() -> str:
    """Return the time (UTC), sortable, to a microsecond."""
    return now_less(0)


def now_less(hours: float) -> str:
    """Return the time so many hours ago, as ``now`` does."""
    return (datetime.now(UTC) - timedelta(hours=hours)).strftime(_TIME)


def write_event(event: Event) -> str:
    """Return the event as the JSON text of a tag."""
    return json.dumps(asdict(event), sort_keys=True, separators=(",", ":"))


def read_event(text: str) -> Event:
    """Read what ``write_event`` returned; raise TaxiError if it cannot be read."""
    try:
        return Event(**json.loads(text))
    except (ValueError, TypeError) as error:
        raise TaxiError(f"expected an event of the registry; got {text[:200]!r}") from error


def read_events(tags: Mapping[str, str], copies: Mapping[str, str]) -> dict[str, Event]:
    """Return the events in a registered model's tags, by tag, oldest first; ``copies`` are its versions' numbers by source."""
    keys = [key for kind in (MOVED, JOURNAL, EVENT) for key in sorted(tags) if key.startswith(kind)]
    return {key: _number_copy(read_event(tags[key]), copies) for key in keys}


def _number_copy(event: Event, copies: Mapping[str, str]) -> Event:
    number = copies.get(event.copied or "", COPY)
    aliases = {alias: [before, number if after == COPY else after] for alias, (before, after) in event.aliases.items()}
    tags = {number if versions == COPY else versions: changes for versions, changes in event.tags.items()}
    return replace(event, aliases=aliases, tags=tags)


def fold_tags(events: Iterable[Event], undone: bool = False) -> dict[str, dict[str, str]]:
    """Return what all events together say of the versions' tags, by version and name; "" where a tag was taken back.

    ``undone`` is for what was said before them.
    """
    said: dict[str, dict[str, str]] = {}
    for event in events:
        for versions, changes in event.tags.items():
            for number in versions.split(","):
                said.setdefault(number, {}).update({name: change[not undone] or "" for name, change in changes.items()})
    return said


def fold_aliases(events: Iterable[Event]) -> dict[str, str]:
    """Return the version that each alias names after all events."""
    return {alias: after for event in events for alias, (_, after) in event.aliases.items() if after}


def champions_served(history: Sequence[Event]) -> list[int]:
    """Return the versions that the alias ``champion`` has named, oldest first."""
    named = [event.aliases["champion"] for event in history if "champion" in event.aliases]
    return [int(number) for number in [*(before for before, _ in named[:1]), *(after for _, after in named)] if number]
