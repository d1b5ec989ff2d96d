"""Request of a backtest, checked before anything heavy is imported."""

from dataclasses import dataclass, field
from typing import Any

from taxi.config import parse_service
from taxi.errors import UsageError
from taxi.months import iterate_months

POLICIES = ("auto", "never", "always")
SECTIONS = ("features", "model", "retrain", "promote", "monitor", "alarms")


@dataclass(frozen=True)
class Asked:
    """What to play: months of a service from ``first`` to ``last``, by which policies, with other parameters if given."""

    service: str
    first: str
    last: str
    policies: tuple[str, ...] = POLICIES
    overrides: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raise UsageError for an unknown service or policy, and for months that are none or swapped."""
        parse_service(self.service), list(iterate_months(self.first, self.last))
        unknown = [one for one in self.policies if one not in POLICIES]
        if unknown or not self.policies or len(set(self.policies)) < len(self.policies):
            said = ",".join(self.policies)
            raise UsageError(f"expected policies once each, out of {', '.join(POLICIES)}; got {said!r}")
