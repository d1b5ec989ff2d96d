"""The daily question: is the next month out? If it is, it is run; if not, that is no failure."""

import logging
from typing import Any

from prefect import flow

from pipelines.alarming import watch
from pipelines.flow_runs import sign
from pipelines.monthly import monthly
from taxi.config import load_settings
from taxi.month import due_month
from taxi.source import is_published, open_source

_LOG = logging.getLogger(__name__)


@flow(name="arrivals", flow_run_name="arrivals-{service}", on_running=[sign])
def arrivals(service: str, source: str | None = None, version: bool = True) -> list[dict[str, Any]]:
    """Run the months that the publisher has and we have not, oldest first, and return their results; none is fine."""
    settings, results = load_settings(source), []
    publisher = open_source(settings.source)
    while is_published(publisher, service, month := due_month(settings, service)):
        results.append(monthly(service, month, settings.source, version))
        if results[-1]["status"] != "done":
            return results
    _LOG.info("%s %s is not published yet", service, month)
    watch(settings, service, None)
    return results
