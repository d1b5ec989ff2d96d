"""The live check as a flow of its own, so that a server runs it on a schedule and its alarms become events."""

from datetime import UTC, datetime
from typing import Any

from prefect import flow

from pipelines.events import emit_alarms
from pipelines.flow_runs import sign
from taxi.config import load_settings, parse_service
from taxi.live_check import check_store
from taxi.params import load_params


@flow(name="watch", flow_run_name="watch-{service}", on_running=[sign])
def watch_live(service: str) -> dict[str, Any]:
    """Check live traffic by the prediction log; what is new is told once, and is an event."""
    settings = load_settings()
    params = load_params(settings.root / "params.yaml")
    came = check_store(settings, params, parse_service(service), datetime.now(UTC))
    emit_alarms(settings, came["told"])
    return came
