"""What a service's trips are like: figures of real green months of 2023 and yellow months of 2019, for the synthetic source."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Profile:
    """What a service's trips are like. Speeds in miles per hour, distances in miles, shares of 1."""

    overhead: float  # minutes of a trip that do not depend on its length
    speed: tuple[float, ...]
    by_hour: tuple[float, ...]
    by_weekday: tuple[float, ...]
    miles: tuple[float, float]
    null_miles: tuple[float, float]
    null_share: float
    too_long: float
    not_positive: float
    too_short: float
    zero_distance: float
    void: float
    outside: float


PROFILES = {
    "green": Profile(
        3.2,
        (15.3, 15.4, 15.7, 16.5, 18.5, 20.5, 17.1, 13.3, 12.2, 12.5, 12.6, 12.3,
         12.2, 12.0, 11.1, 10.5, 10.4, 10.7, 11.4, 12.5, 13.3, 14.4, 14.7, 15.0),
        (1.8, 1.2, 0.9, 0.7, 0.6, 0.6, 1.6, 3.8, 4.8, 5.3, 5.2, 5.5, 5.6, 5.5, 6.3, 7.0, 7.5, 7.7, 7.8, 6.1, 4.7, 4.0, 3.2, 2.5),
        (13.9, 14.7, 15.5, 16.0, 15.8, 12.7, 11.4),
        (1.95, 0.78), (3.8, 0.78), 0.075, 0.0045, 0.0013, 0.022, 0.031, 0.0026, 0.0046,
    ),
    "yellow": Profile(
        2.2,
        (16.2, 17.0, 17.2, 18.6, 20.5, 23.6, 18.6, 13.7, 11.3, 10.9, 11.2, 10.7,
         10.8, 11.1, 10.9, 10.3, 10.3, 10.3, 10.8, 11.9, 13.6, 14.0, 14.4, 15.4),
        (3.0, 2.0, 1.4, 0.9, 0.8, 0.9, 2.1, 3.7, 4.5, 4.7, 4.8, 4.9, 5.3, 5.2, 5.6, 5.5, 5.1, 5.9, 6.6, 6.3, 5.8, 5.6, 5.2, 4.1),
        (13.1, 14.8, 14.9, 15.3, 15.3, 14.4, 12.3),
        (1.98, 0.80), (8.8, 0.55), 0.004, 0.003, 0.0009, 0.009, 0.0024, 0.0015, 0.0084,
    ),
}  # fmt: skip
SHIFT = {"pace": 1.18, "rows": 0.65, "null_share": 0.15}
