"""Watching: what months and live traffic say is held against the alarm book; what is new is told, once, to every channel."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any

from taxi.alarm_book import Json, Message, change_book, claim, enter, queue, read_book, settle
from taxi.alarm_rules import Checked, Finding
from taxi.channels import Channel, Delivery, name_channels, send
from taxi.config import Settings, load_alarm_channels
from taxi.files import append_json
from taxi.month import read_results
from taxi.month_alarms import judge_month, judge_overdue
from taxi.params import Params

_LOG = logging.getLogger(__name__)
OURS = "alarms"  # the service that the channels' own alarms are kept under


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
    change_book(settings.alarm_book, lambda book: (settle(book, arrived, sorted(tried)), None))
    return came


def judge_channels(came: Sequence[Delivery], standing: Mapping[str, Any], names: Sequence[str]) -> Checked:
    """Say which channels are dead: those that did not take a message; those that did, or are gone, are well."""
    found: Checked = {}
    for place in standing:
        rule, _, part = place.removeprefix(f"{OURS}/").partition("/")
        if rule == "channel-dead" and part not in names:
            found[f"channel-dead/{part}"] = None
    for one in came:
        said = f"channel {one.channel} {one.fault}, after {one.seconds:.1f} s"
        fault = Finding("channel-dead", "error", said, part=one.channel, numbers={"seconds": one.seconds})
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


def _unchecked(results: Mapping[str, Any], checked: str | None, month: str) -> list[str]:
    return [one for one in results if checked and checked < one < month]


def _answer(settings: Settings, service: str, found: Checked, more: Mapping[str, Any]) -> dict[str, Any]:
    raised = [one.as_dict() for one in found.values() if one]
    standing = list_standing(settings, service)
    return {"service": service, "found": raised, "standing": standing, **more}


def list_standing(settings: Settings, service: str | None = None) -> list[dict[str, Any]]:
    """Return the alarms that stand (of one service, the channels' own, or all), gravest and oldest first."""
    places = read_book(settings.alarm_book)["standing"]
    wanted = [
        {"service": place.partition("/")[0], **entry}
        for place, entry in places.items()
        if service is None or place.partition("/")[0] in (service, OURS)
    ]
    return sorted(wanted, key=lambda one: (one["severity"], one["since"], one["rule"]))


def check_month(settings: Settings, params: Params, service: str, month: str, at: datetime) -> dict[str, Any]:
    """Hold one month's result against the rules and tell what is new; a month before the newest checked one is only judged."""
    results = read_results(settings.reports, service)
    checked = read_book(settings.alarm_book)["checked"].get(service)
    found = judge_month(results, month, _unchecked(results, checked, month), params.alarms)
    return _answer(settings, service, found, {"month": month} | tell(settings, params, service, found, month, at))


def check_service(settings: Settings, params: Params, service: str, at: datetime) -> dict[str, Any]:
    """Check the newest month that was run, whether the next is overdue, and whether the live check is being run."""
    results = read_results(settings.reports, service)
    book = read_book(settings.alarm_book)
    month = max(results, default=None)
    found = judge_overdue(list(results), at.date(), params.alarms)
    found |= judge_live_check(settings, params, service, book["live_checked"].get(service), at)
    if month:
        unchecked = _unchecked(results, book["checked"].get(service), month)
        found |= judge_month(results, month, unchecked, params.alarms)
    return _answer(settings, service, found, {"month": month} | tell(settings, params, service, found, month, at))


def judge_live_check(settings: Settings, params: Params, service: str, last: str | None, at: datetime) -> Checked:
    """Say whether live traffic is looked at as often as it should be; nothing where no service ever ran here."""
    if last is None and not settings.server(service).is_dir():
        return {}
    key, longest = "check-did-not-run/live", timedelta(minutes=2 * params.alarms.live_every_minutes)
    if last and at - datetime.fromisoformat(last) <= longest:
        return {key: None}
    said = f"live traffic was last looked at {last or 'never'} (expected every {params.alarms.live_every_minutes:g} minutes)"
    return {key: Finding("check-did-not-run", "error", said, part="live")}
