"""Daily flow: is the next month out? If it is, it is run; if not, that is no failure."""

import logging
from typing import Any

from prefect import flow

from pipelines.alarms import watch
from pipelines.flow_runs import patient, sign
from pipelines.monthly import monthly
from pipelines.retrain import retrain
from taxi.config import Settings, load_settings
from taxi.data.source import is_published, open_source
from taxi.monitoring.alarm_book import list_standing
from taxi.runs.month_result import due_month
from taxi.training.retraining import pick_live

_LOG = logging.getLogger(__name__)


@flow(name="arrivals", flow_run_name="arrivals-{service}", on_running=[sign])
@patient
def arrivals(service: str, source: str | None = None, version: bool = True) -> list[dict[str, Any]]:
    """Run the months that the publisher has and we have not, oldest first, and return their results; none is fine."""
    settings, results = load_settings(source), []
    publisher = open_source(settings.source)
    while is_published(publisher, service, month := due_month(settings, service)):
        results.append(monthly(service, month, settings.told_source, version))
        if results[-1]["status"] != "done":
            return results
    _LOG.info("%s %s is not published yet", service, month)
    watch(settings, service, None)
    if results:
        _make_up(settings, service)
    return results


def _make_up(settings: Settings, service: str) -> None:
    """Retrain now that there is something new to learn, if live traffic still asks for it: its event came once, weeks ago."""
    if one := pick_live(list_standing(settings, service)):
        retrain(service, one["rule"], one["severity"], one["said"], source=settings.told_source)
