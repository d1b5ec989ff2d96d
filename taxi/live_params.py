"""The section of ``params.yaml`` that is changed while the service runs; ``taxi.params`` reads it with the others."""

from datetime import UTC, datetime
from typing import Literal

from pydantic import Field

from taxi.section import Section


class ExperimentParams(Section):
    """Champion against challenger on live trips. Shares, levels and effects are of 1."""

    mode: Literal["none", "shadow", "share"]
    share: float = Field(ge=0, le=1)
    salt: str = Field(min_length=1, max_length=16)
    since: datetime | None
    metric: Literal["rmse", "mae"]
    effect: float = Field(gt=0, lt=1)
    alpha: float = Field(gt=0, lt=0.5)
    power: float = Field(ge=0.5, lt=1)
    planned_trips: int = Field(ge=1000)
    least_days: int = Field(ge=2)
    ratio_alpha: float = Field(gt=0, lt=0.5)
    fallback_limit: float = Field(ge=0, le=1)
    unpaired_limit: float = Field(ge=0, le=1)

    @property
    def start(self) -> datetime | None:
        """``since`` with its zone; without one it is taken for UTC."""
        return self.since and (self.since if self.since.tzinfo else self.since.replace(tzinfo=UTC))
