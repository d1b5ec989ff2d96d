"""Alarm state: which alarms stand, and which messages wait for which channel; each alarm is sent once, and so is its recovery.

All is one JSON file, changed under a lock. ``enter`` is the pure part: the book before and what was found give the book
after and what is to be told.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from taxi.config import Settings, load_alarm_channels
from taxi.errors import TaxiError
from taxi.files import Damaged, append_json, locked, read_json, write_json
from taxi.monitoring.alarm_rules import RANK, Alarm, Checked, Json, Message, make_message
from taxi.monitoring.channels import Channel, Delivery, name_channels, send
from taxi.params import AlarmParams, Params
from taxi.training.step_result import current_rule

_LOG = logging.getLogger(__name__)

Made = TypeVar("Made")
MOST_WAITING = 500  # messages that wait for dead channels; beyond, the oldest are given up


def empty_book() -> Json:
    """Return a book in which nothing stands."""
    return {"standing": {}, "checked": {}, "live_checked": {}, "waiting": []}


def _kind(entry: Json | None, finding: Alarm) -> str | None:
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


def _entry(entry: Json | None, finding: Alarm, at: datetime) -> Json:
    since = {"since": at.isoformat(timespec="seconds"), "first_month": finding.month}
    return (since if entry is None else {name: entry[name] for name in since}) | finding.as_dict()


def _recovery(entry: Json, service: str, month: str | None, at: datetime, alarms: AlarmParams) -> Message:
    said = f"{entry['rule']} has recovered; it stood since {entry['first_month'] or entry['since']}: {entry['said']}"
    known = {name: entry[name] for name in ("rule", "part", "report")}
    return make_message("recovered", service, Alarm(severity="info", said=said, month=month, **known), at, alarms)


def _upgrade(book: Json) -> Json:
    """Return the book with the rules' ids of today: what was raised under an earlier one stands, and can recover."""
    entries = [entry | {"rule": current_rule(entry["rule"])} for entry in book["standing"].values()]
    places = [place.split("/") for place in book["standing"]]
    keys = ["/".join([service, current_rule(rule), *part]) for service, rule, *part in places]
    return book | {"standing": dict(zip(keys, entries, strict=True))}


def read_book(path: Path) -> Json:
    """Return the book at ``path``; an empty one where there is none. One that cannot be read raises TaxiError."""
    try:
        return _upgrade(read_json(path)) if path.is_file() else empty_book()
    except (Damaged, ValueError, KeyError, TypeError, AttributeError) as error:
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


def remove_delivered(book: Json, delivered: dict[str, list[str]], tried: Sequence[str]) -> Json:
    """Return the book without what was delivered (message ids by channel); what was tried in vain is free again."""
    waiting = []
    for one in book["waiting"]:
        name = one["message"]["id"]
        to = [channel for channel in one["to"] if name not in delivered.get(channel, ())]
        if to:
            waiting.append(one | {"to": to, "until": None if name in tried else one["until"]})
    return book | {"waiting": waiting}


OURS = "alarms"  # the service that the channels' own alarms are kept under
EVENTS = "prefect"  # what messages wait for until Prefect's server has them as events
CLAIM_SECONDS = 60.0


def _enter(
    settings: Settings,
    params: Params,
    service: str,
    found: Checked,
    month: str | None,
    at: datetime,
    to: Sequence[str],
    live: Mapping[str, str] | None = None,
) -> list[Message]:
    to = [*to, *([EVENTS] if settings.prefect else [])]

    def change(book: Json) -> tuple[Json, list[Message]]:
        after, told = enter(book, service, found, month, at, params.alarms)
        # The file before the book: killed in between, a line may come twice, and none is lost.
        append_json(settings.alarm_log, map(asdict, told))
        looked = {"live_checked": book["live_checked"] | dict(live or {})}
        return queue(after, told, to) | looked, told

    told = change_book(settings.alarm_book, change)
    for one in told:
        _LOG.log(logging.INFO if one.kind == "recovered" else logging.WARNING, "%s: %s", one.title, one.said)
    return told


def _flush(settings: Settings, params: Params, channels: Sequence[Channel]) -> list[Delivery]:
    """Send what waits for the channels, that of earlier checks too, outside of any lock."""
    limit, names = params.alarms.channel_seconds, [one.name for one in channels]
    now = datetime.now(UTC)
    mine = change_book(settings.alarm_book, lambda book: claim(book, names, now, 3 * limit)) if channels else {}
    if not mine:
        return []
    came = send(channels, mine, limit)
    arrived = {one.channel: list(one.delivered) for one in came}
    tried = {message.id for messages in mine.values() for message in messages}
    change_book(settings.alarm_book, lambda book: (remove_delivered(book, arrived, sorted(tried)), None))
    return came


def waits_for_server(settings: Settings) -> bool:
    """Say whether a message waits for Prefect's server."""
    return settings.prefect is not None and any(
        EVENTS in one["to"] for one in read_book(settings.alarm_book)["waiting"]
    )


def deliver(settings: Settings, emit: Callable[[list[Message]], object]) -> list[Message]:
    """Hand ``emit`` the messages that wait for Prefect's server; those that it takes without an error no longer wait.

    Returns what was delivered. A claim of one who was killed at it lapses after a minute.
    """
    now = datetime.now(UTC)
    mine = change_book(settings.alarm_book, lambda book: claim(book, [EVENTS], now, CLAIM_SECONDS)).get(EVENTS, [])
    if not mine:
        return []
    ids, taken = [one.id for one in mine], False
    try:
        emit(mine)
        taken = True
    finally:
        arrived = {EVENTS: ids if taken else []}
        change_book(settings.alarm_book, lambda book: (remove_delivered(book, arrived, ids), None))
    return mine


def judge_channels(came: Sequence[Delivery], standing: Mapping[str, Any], names: Sequence[str]) -> Checked:
    """Say which channels are dead: those that did not take a message; those that did, or are gone, are well."""
    found: Checked = {}
    for place in standing:
        rule, _, part = place.removeprefix(f"{OURS}/").partition("/")
        if rule == "channel-dead" and part not in names:
            found[f"channel-dead/{part}"] = None
    for one in came:
        said = f"channel {one.channel} {one.fault}, after {one.seconds:.1f} s"
        fault = Alarm("channel-dead", "error", said, part=one.channel, numbers={"seconds": one.seconds})
        found[f"channel-dead/{one.channel}"] = fault if one.fault else None
    return found


def tell(
    settings: Settings,
    params: Params,
    service: str,
    found: Checked,
    month: str | None,
    at: datetime,
    live: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Enter what was found and tell what is new: to the local file first, then to the channels; returns what was told.

    A dead channel costs ``channel_seconds`` at most, and becomes an alarm itself, told to the others; its messages wait.
    ``live``: when live traffic was looked at (ISO, UTC), by service.
    """
    channels = name_channels(load_alarm_channels(params.alarms.channels_env))
    names = [one.name for one in channels]
    told = _enter(settings, params, service, found, month, at, names, live)
    came = _flush(settings, params, channels)
    dead = [one.channel for one in came if one.fault]
    own = judge_channels(came, read_book(settings.alarm_book)["standing"], names)
    if own:
        alive = [one for one in channels if one.name not in dead]
        more = _enter(settings, params, OURS, own, None, at, [one.name for one in alive])
        told, came = told + more, came + (_flush(settings, params, alive) if more else [])
    return {"told": [asdict(one) for one in told], "channels": [asdict(one) for one in came]}


def list_standing(settings: Settings, service: str | None = None) -> list[dict[str, Any]]:
    """Return the alarms that stand (of one service, the channels' own, or all), gravest and oldest first."""
    places = read_book(settings.alarm_book)["standing"]
    wanted = [
        {"service": place.partition("/")[0], **entry}
        for place, entry in places.items()
        if service is None or place.partition("/")[0] in (service, OURS)
    ]
    return sorted(wanted, key=lambda one: (one["severity"], one["since"], one["rule"]))
