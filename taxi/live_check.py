"""The live check: reads the prediction log and the registry, and hands the rules what they judge."""

from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from taxi.alarm_rules import Checked
from taxi.alarms import judge_live_check, list_standing, tell
from taxi.arms import with_known_duration
from taxi.config import Settings
from taxi.explore import read_acceptance
from taxi.live_alarms import WEEKS, judge_arms, judge_live_volume
from taxi.months import days_in_month
from taxi.params import Params
from taxi.predictions import Store, open_store
from taxi.registry import versions

NEW_YORK = ZoneInfo("America/New_York")


def hourly_trips(settings: Settings, service: str, at: datetime) -> float | None:
    """Return the trips that the newest month on hand had in an hour like the one before ``at``; None without a month."""
    months = settings.months_on_hand(service)
    if not months:
        return None
    figures = read_acceptance(settings.month(service, months[-1]))["figures"]
    hour = (at - timedelta(minutes=30)).astimezone(NEW_YORK).hour
    return float(figures["kept"] / days_in_month(months[-1]) * figures["by_hour"][hour])


def judge_live(settings: Settings, params: Params, service: str, store: Store, at: datetime) -> Checked:
    """Return what the rules find in the log up to ``at``; raises StoreDown where the store does not answer."""
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
    store = open_store(settings.predictions)
    try:
        return check_live(settings, params, service, store, at)
    finally:
        store.close()
