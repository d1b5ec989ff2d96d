"""Which alarms stand, and which messages still have to go where: told once, recovered once, whoever asks how often.

All is one JSON file, changed under a lock. ``enter`` is the pure part: the book before and what was found give the book
after and what is to be told.
"""

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from taxi.alarm_params import AlarmParams
from taxi.alarm_rules import RANK, Checked, Finding, explain
from taxi.errors import TaxiError
from taxi.files import locked, read_json, write_json

Json = dict[str, Any]
Made = TypeVar("Made")
MOST_WAITING = 500  # messages that wait for dead channels; beyond, the oldest are given up


def empty_book() -> Json:
    """Return a book in which nothing stands."""
    return {"standing": {}, "checked": {}, "live_checked": {}, "waiting": []}


@dataclass(frozen=True)
class Message:
    """What is told, once: that an alarm was raised, that it got worse, or that it recovered."""

    id: str
    at: str
    kind: str
    service: str
    rule: str
    severity: str
    month: str | None
    part: str
    said: str
    numbers: dict[str, float]
    report: str | None
    owner: str
    act: str
    runbook: str

    @property
    def title(self) -> str:
        """Return the message in one line."""
        where = " ".join(filter(None, [self.service, self.month, self.part]))
        return f"[{self.severity if self.kind in ('raised', 'worse') else self.kind}] {where}: {self.rule}"

    @property
    def body(self) -> str:
        """Return the message's text: numbers, report, owner, what to do, runbook."""
        told = {"report": self.report, "owner": self.owner, "do": self.act, "runbook": self.runbook}
        if self.kind == "recovered":
            told = {"report": self.report}
        return "\n".join([self.said, *(f"{name}: {value}" for name, value in told.items() if value)])


def make_message(kind: str, service: str, finding: Finding, at: datetime, alarms: AlarmParams) -> Message:
    """Return the message about a finding, with its rule's owner, first step and runbook section."""
    known: Json = finding.as_dict() | explain(finding.rule, alarms)
    return Message(uuid.uuid4().hex, at.isoformat(timespec="seconds"), kind, service, **known)


def _kind(entry: Json | None, finding: Finding) -> str | None:
    if entry is None:
        return "raised"
    return "worse" if RANK[finding.severity] > RANK[entry["severity"]] else None


def enter(
    book: Json, service: str, found: Checked, month: str | None, at: datetime, alarms: AlarmParams
) -> tuple[Json, list[Message]]:
    """Return the book with ``found`` entered, and what is to be told: new, worse and recovered alarms.

    ``month`` is the one that was judged; None for what holds now. Rules that are not in ``found`` could not look: what they
    raised before stands. A month older than the newest that was checked changes nothing.
    """
    standing, told = dict(book["standing"]), []
    checked = book["checked"].get(service)
    if month and checked and month < checked:
        return book, []
    for key, finding in found.items():
        place = f"{service}/{key}"
        entry = standing.get(place)
        if finding is None and entry is not None:
            standing.pop(place)
            told.append(_recovery(entry, service, month, at, alarms))
        elif finding is not None:
            kind = _kind(entry, finding)
            told += [make_message(kind, service, finding, at, alarms)] if kind else []
            standing[place] = _entry(entry, finding, at)
    marks = {service: month} if month else {}
    return book | {"standing": standing, "checked": book["checked"] | marks}, told


def _entry(entry: Json | None, finding: Finding, at: datetime) -> Json:
    since = {"since": at.isoformat(timespec="seconds"), "first_month": finding.month}
    return (since if entry is None else {name: entry[name] for name in since}) | finding.as_dict()


def _recovery(entry: Json, service: str, month: str | None, at: datetime, alarms: AlarmParams) -> Message:
    said = f"{entry['rule']} has recovered; it stood since {entry['first_month'] or entry['since']}: {entry['said']}"
    known = {name: entry[name] for name in ("rule", "part", "report")}
    return make_message("recovered", service, Finding(severity="info", said=said, month=month, **known), at, alarms)


def read_book(path: Path) -> Json:
    """Return the book at ``path``; an empty one where there is none. One that cannot be read raises TaxiError."""
    try:
        return read_json(path) if path.is_file() else empty_book()
    except ValueError as error:
        said = f"expected the alarm book as JSON at {path}: {error}. Move it away, and what stands is told anew"
        raise TaxiError(said) from error


def change_book(path: Path, change: Callable[[Json], tuple[Json, Made]]) -> Made:
    """Change the book in one go, between processes; ``change`` returns the new book and what this returns."""
    with locked(path.with_name(f".{path.name}.lock"), timeout=60):
        book = read_book(path)
        changed, made = change(book)
        if changed != book:
            write_json(path, changed)
        return made


def queue(book: Json, messages: Sequence[Message], channels: Sequence[str]) -> Json:
    """Return the book with messages that are to go to ``channels``, by name."""
    new = [{"message": vars(one), "to": list(channels), "until": None} for one in messages if channels]
    return book | {"waiting": [*book["waiting"], *new][-MOST_WAITING:]}


def claim(book: Json, channels: Sequence[str], now: datetime, seconds: float) -> tuple[Json, dict[str, list[Message]]]:
    """Take what waits for ``channels`` and nobody else is sending; it is ours for so many seconds. Returns it by channel."""
    until, waiting = (now + timedelta(seconds=seconds)).isoformat(), []
    mine: dict[str, list[Message]] = {}
    for one in book["waiting"]:
        free = one["until"] is None or one["until"] < now.isoformat()
        to = [name for name in one["to"] if name in channels] if free else []
        for name in to:
            mine.setdefault(name, []).append(Message(**one["message"]))
        waiting.append(one | {"until": until} if to else one)
    return book | {"waiting": waiting}, mine


def settle(book: Json, delivered: dict[str, list[str]], tried: Sequence[str]) -> Json:
    """Return the book without what was delivered (message ids by channel); what was tried in vain is free again."""
    waiting = []
    for one in book["waiting"]:
        name = one["message"]["id"]
        to = [channel for channel in one["to"] if name not in delivered.get(channel, ())]
        if to:
            waiting.append(one | {"to": to, "until": None if name in tried else one["until"]})
    return book | {"waiting": waiting}
