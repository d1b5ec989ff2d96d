"""Section ``serve`` of ``params.yaml``: read anew while the service runs, and without effect on any month."""

from pydantic import Field

from taxi.section import Section


class ServeParams(Section):
    """How the service behaves; all but the address is reread while it runs. Rates and bursts are per key or address."""

    poll_seconds: float = Field(gt=0)
    rate_per_second: float = Field(gt=0)
    burst: int = Field(ge=1)
    body_bytes: int = Field(ge=1000)
    body_seconds: float = Field(gt=0)
    answer_seconds: float = Field(gt=0)
    drain_seconds: float = Field(ge=0)
