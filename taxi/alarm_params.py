"""Section ``alarms`` of ``params.yaml``: from where on something is told, to whom, and without effect on any month."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]


class Owners(BaseModel):
    """Who is asked to act, by the kind of trouble."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    data: str = Field(min_length=1)
    model: str = Field(min_length=1)
    service: str = Field(min_length=1)
    operations: str = Field(min_length=1)


class AlarmParams(BaseModel):
    """When the alarms go off. Pairs are: from where on a warning, from where on an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    volume_error: Share
    rmse_error: float = Field(gt=1)
    coverage_error: tuple[Share, Share]
    champion_months: tuple[Count, Count]
    overdue_days: tuple[Count, Count]
    stalled_months: Count
    live_trips: Count
    live_least: Count
    live_hours: float = Field(gt=0)
    live_rmse_ratio: tuple[float, float]
    live_volume: tuple[Share, Share]
    live_volume_least: Count
    live_p99_ms: tuple[float, float]
    live_every_minutes: float = Field(gt=0)
    channels_env: str = Field(pattern=r"^[A-Z][A-Z0-9_]*$")
    channel_seconds: float = Field(gt=0)
    runbook: str = Field(min_length=1)
    owners: Owners
