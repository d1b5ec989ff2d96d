"""Alarm checks: months and live traffic are held against the rules, and what is new is sent, once, to every channel."""

import logging
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from taxi.config import Settings
from taxi.data.acceptance import read_acceptance
from taxi.errors import TaxiError
from taxi.monitoring.alarm_book import list_standing, read_book, tell
from taxi.monitoring.alarm_rules import Alarm, Checked, judge_overdue, judge_result
from taxi.monitoring.live_rules import WEEKS, judge_arms, judge_live_volume
from taxi.months import days_in_month
from taxi.params import Params, load_params
from taxi.predictions.arms import with_known_duration
from taxi.predictions.store import Store, open_store
from taxi.runs.month_result import read_results

_LOG = logging.getLogger(__name__)


def _unchecked(results: Mapping[str, Any], checked: str | None, month: str) -> list[str]:
    return [one for one in results if checked and checked < one < month]


def _answer(settings: Settings, service: str, found: Checked, more: Mapping[str, Any]) -> dict[str, Any]:
    raised = [one.as_dict() for one in found.values() if one]
    standing = list_standing(settings, service)
    return {"service": service, "found": raised, "standing": standing, **more}


def check_month(settings: Settings, params: Params, service: str, month: str, at: datetime) -> dict[str, Any]:
    """Hold one month's result against the rules and tell what is new; a month before the newest checked one is only judged."""
    results = read_results(settings.reports, service)
    checked = read_book(settings.alarm_book)["checked"].get(service)
    found = judge_result(results, month, _unchecked(results, checked, month), params.alarms)
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
        found |= judge_result(results, month, unchecked, params.alarms)
    return _answer(settings, service, found, {"month": month} | tell(settings, params, service, found, month, at))


def judge_live_check(settings: Settings, params: Params, service: str, last: str | None, at: datetime) -> Checked:
    """Say whether live traffic is looked at as often as it should be; nothing where no service ever ran here."""
    if last is None and not settings.server(service).is_dir():
        return {}
    key, longest = "check-did-not-run/live", timedelta(minutes=2 * params.alarms.live_every_minutes)
    if last and at - datetime.fromisoformat(last) <= longest:
        return {key: None}
    said = f"live traffic was last looked at {last or 'never'} (expected every {params.alarms.live_every_minutes:g} minutes)"
    return {key: Alarm("check-did-not-run", "error", said, part="live")}


def check(settings: Settings, service: str, month: str | None) -> dict[str, Any]:
    """Check a month's result, or without one what holds now."""
    params, now = load_params(settings.root / "params.yaml"), datetime.now(UTC)
    if month is None:
        return check_service(settings, params, service, now)
    return check_month(settings, params, service, month, now)


def watch(settings: Settings, service: str, month: str | None) -> dict[str, Any]:
    """Check the alarms as the last step of a run: returns what was told, what came of the channels, and why the check failed.

    A check that fails (``failed`` says why; None: it did not) is said, and fails no month.
    """
    try:
        came = check(settings, service, month)
    except (TaxiError, OSError, ValueError, KeyError) as error:
        return not_checked(service, month, str(error))
    return {"told": came["told"], "channels": came["channels"], "failed": None}


def not_checked(service: str, month: str | None, why: str) -> dict[str, Any]:
    """Return the answer of a check that failed, and say so."""
    _LOG.error("%s %s: the alarms were not checked: %s", service, month or "now", why)
    return {"told": [], "channels": [], "failed": why}


# --- The live check: reads the prediction log and the registry, and hands the rules what they judge.

NEW_YORK = ZoneInfo("America/New_York")


def hourly_trips(settings: Settings, service: str, at: datetime) -> float | None:
    """Return the trips that the newest month on hand had in an hour like the one before ``at``; None without a month."""
    months = settings.months_on_hand(service)
    if not months:
        return None
    figures = read_acceptance(settings.month(service, months[-1])).counted
    hour = (at - timedelta(minutes=30)).astimezone(NEW_YORK).hour
    return float(figures["kept"] / days_in_month(months[-1]) * figures["by_hour"][hour])


def judge_live(settings: Settings, params: Params, service: str, store: Store, at: datetime) -> Checked:
    """Return what the rules find in the log up to ``at``; raises StoreDown where the store does not answer."""
    from taxi.registry.versions import versions  # MLflow, which the check of a month does without

    alarms, since = params.alarms, at - timedelta(hours=params.alarms.live_hours)
    made = store.newest(service, since, 4 * alarms.live_trips)
    judged = with_known_duration(store.with_outcomes(service, since), params.clean)
    hours = [at - timedelta(weeks=week) for week in range(WEEKS + 1)]
    now, *weeks = (store.count_made(service, end - timedelta(hours=1), end) for end in hours)
    registered = {
        one.number: one.metrics["rmse"] for one in versions(settings.tracking_uri, service) if "rmse" in one.metrics
    }
    found = judge_arms(made, judged, registered, params.monitor, alarms)
    return found | judge_live_volume(now, weeks, hourly_trips(settings, service, at), alarms)


def check_live(settings: Settings, params: Params, service: str, store: Store, at: datetime) -> dict[str, Any]:
    """Hold live traffic against the rules and tell what is new; that it was looked at is kept in the alarm book."""
    found = judge_live(settings, params, service, store, at)
    stamp = at.isoformat(timespec="seconds")
    found |= judge_live_check(settings, params, service, stamp, at)
    told = tell(settings, params, service, found, None, at, {service: stamp})
    raised = [one.as_dict() for one in found.values() if one]
    return {"service": service, "month": None, "found": raised, "standing": list_standing(settings, service), **told}


def check_store(settings: Settings, params: Params, service: str, at: datetime) -> dict[str, Any]:
    """Do ``check_live`` on the prediction store that the settings name."""
    store = open_store(settings.predictions, make=False)
    try:
        return check_live(settings, params, service, store, at)
    finally:
        store.close()
