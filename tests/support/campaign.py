"""The scale of stress tests: one small case in the suite, the same test at full scale in ``make campaign``."""

import os
from typing import TypeVar

import pytest

Scale = TypeVar("Scale")
only_in_campaign = pytest.mark.skipif(not os.environ.get("TAXI_CAMPAIGN"), reason="only at full scale")


def at_scale(suite: Scale, campaign: Scale) -> Scale:
    """Return how often, or how long, a test marked ``campaign`` repeats itself."""
    return campaign if os.environ.get("TAXI_CAMPAIGN") else suite
