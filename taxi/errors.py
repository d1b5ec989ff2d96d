"""Exceptions, each with the exit code that the command line gives it."""


class TaxiError(Exception):
    """A failure that is explained to the user without a traceback (exit code 1)."""


class NoAnswer(TaxiError):
    """The publisher, the registry or a store did not answer: a transient failure, another attempt may succeed (exit code 1)."""


class UsageError(TaxiError):
    """The request itself is wrong: an unknown service, a malformed month, a bad parameter (exit code 2)."""


class NotPublished(TaxiError):
    """The publisher does not have the month, yet or at all (exit code 3)."""


class MonthRefused(TaxiError):
    """The month broke an acceptance rule that forbids training on it (exit code 4)."""


class Refused(TaxiError):
    """What was asked for is understood and not allowed: a gate that is closed, an unsafe version, nothing to roll back to (exit code 4)."""


class BadFile(MonthRefused):
    """The published file cannot be read as trips at all: not Parquet, truncated, columns missing (exit code 4).

    ``rule`` names the acceptance rule that it broke.
    """

    def __init__(self, rule: str, message: str) -> None:
        super().__init__(message)
        self.rule = rule
