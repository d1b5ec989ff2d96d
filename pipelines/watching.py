"""The alarms' check as a flow, so that a server runs it on a schedule and its alarms become events."""

from datetime import UTC, datetime
from typing import Any

from prefect import flow

from pipelines.events import emit_alarms
from taxi.alarms import check_service
from taxi.config import load_settings, parse_service
from taxi.live_check import check_store
from taxi.params import load_params


@flow(name="watch", flow_run_name="watch-{service}")
def watch(service: str, live: bool = False) -> dict[str, Any]:
    """Check the newest month, or ``live`` traffic; what is new is told once, and is an event."""
    settings = load_settings()
    check = check_store if live else check_service
    came = check(settings, load_params(settings.root / "params.yaml"), parse_service(service), datetime.now(UTC))
    emit_alarms(came["told"])
    return came
