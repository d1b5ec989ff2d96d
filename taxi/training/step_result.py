"""Results of a step's notebook (``NN-name.json`` beside its page), typed: the monitor's checks, the comparison."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from taxi.config import MonthPaths
from taxi.errors import TaxiError
from taxi.files import read_model

FORMAT = 2  # 1: a check was a line of text, "rule: sentence"
Severity = Literal["info", "warning", "error"]
Verdict = Literal["calm", "alarm", "first"]
Limit = tuple[float | None, float | None]
Scores = dict[str, int | float]
MEASURES = {
    "volume": "volume",
    "null-block": "null_share",
    "rmse": "rmse_ratio",
    "coverage": "coverage",
    "slice-rmse": "slice_rmse_ratio",
    "input-drift": "drifted_share",
    "prediction-drift": "prediction_drift",
}
# What rules were called to 2.0, in alarm books, events and calls for a retrain.
RENAMED = {"error": "rmse", "slice-error": "slice-rmse", "live-error": "live-rmse"}


def current_rule(rule: str) -> str:
    """Return a rule's id of today from one that it may have had before."""
    return RENAMED.get(rule, rule)


class Check(BaseModel):
    """What one rule of the monitor says of a month: ``info`` where all is well, else ``warning``.

    ``numbers`` are what it judged by, by name; ``limit`` is the lowest and the highest that they may be (None: any).
    """

    model_config = ConfigDict(frozen=True)

    rule: str
    severity: Severity
    sentence: str
    numbers: Scores = {}
    limit: Limit = (None, None)

    @property
    def alarms(self) -> bool:
        """Whether the rule raises an alarm."""
        return self.severity != "info"

    def __str__(self) -> str:
        """Return the rule and its sentence in one line."""
        return f"{self.rule}: {self.sentence}"


def make_check(rule: str, value: float | None, limit: Limit, sentence: str) -> Check:
    """Hold a rule's number against its limit, which it may reach; without a number (None) all is well."""
    if value is None:
        return Check(rule=rule, severity="info", sentence=sentence, limit=limit)
    low, high = limit
    beyond = (low is not None and value < low) or (high is not None and value > high)
    numbers = {MEASURES[rule]: float(value)}
    return Check(rule=rule, severity="warning" if beyond else "info", sentence=sentence, numbers=numbers, limit=limit)


def list_alarms(checks: Sequence[Check]) -> list[str]:
    """Return the rules that raise an alarm."""
    return [check.rule for check in checks if check.alarms]


def checks_from_lines(
    lines: Sequence[str], alarms: Sequence[str], numbers: Mapping[str, float]
) -> list[dict[str, Any]]:
    """Return checks, as JSON, from the lines that format 1 kept: ``rule: sentence``."""
    checks = []
    for line in lines:
        rule, sentence = line.split(": ", 1)
        kept = {name: value for name, value in numbers.items() if name == MEASURES.get(rule)}
        severity = "warning" if rule in alarms else "info"
        checks.append({"rule": rule, "severity": severity, "sentence": sentence, "numbers": kept})
    return checks


class StepResult(BaseModel):
    """What every notebook's result holds: which notebook, with which parameters, from which inputs (a hash)."""

    model_config = ConfigDict(frozen=True)
    stem: ClassVar[str | None] = None

    format: int = Field(1, ge=1, le=FORMAT)
    notebook: str
    parameters: dict[str, Any]
    fingerprint: str


class MonitorResult(StepResult):
    """What 03-monitor recorded: the verdict, the champion's scores on the month (minutes), and a check a rule."""

    stem = "03-monitor"

    verdict: Verdict
    metrics: Scores | None
    checks: list[Check]

    @model_validator(mode="before")
    @classmethod
    def _upgrade(cls, kept: Any) -> Any:
        if not isinstance(kept, dict) or "checks" in kept or not {"reasons", "alarms"} <= set(kept):
            return kept
        return kept | {"checks": checks_from_lines(kept["reasons"], kept["alarms"], kept.get("numbers") or {})}

    @property
    def alarms(self) -> list[str]:
        """The rules that raise an alarm."""
        return list_alarms(self.checks)


class CompareResult(StepResult):
    """What 05-compare recorded: whether the challenger is promoted and why, and both models' scores (minutes)."""

    stem = "05-compare"

    promote: bool
    reason: str
    gain: float
    interval: tuple[float, float]
    challenger: Scores
    before: Scores


Result = TypeVar("Result", bound=StepResult)


def load_step(path: Path, kind: type[Result]) -> Result:
    """Read what a notebook recorded from its file; raise TaxiError that names the file if it is damaged."""
    return read_model(path, kind, "what a notebook recorded", "Remove it and run the month again")


def read_step(paths: MonthPaths, kind: type[Result], notebook: str | None = None) -> Result | None:
    """Return what a notebook recorded for the month; None where it was not run. Raises TaxiError if the file is damaged."""
    path = paths.reports / f"{notebook or kind.stem}.json"
    return load_step(path, kind) if path.is_file() else None


def recorded(paths: MonthPaths, kind: type[Result]) -> Result:
    """Return what a notebook that was run recorded for the month; raise TaxiError where its result is not there."""
    if (result := read_step(paths, kind)) is None:
        raise TaxiError(f"expected what {kind.stem} recorded at {paths.reports / f'{kind.stem}.json'}; it is not there")
    return result


def load_attempt(path: Path) -> dict[str, Any]:
    """Read a retrain's result; raise TaxiError that names it if it is damaged."""
    return read_model(path, dict[str, Any], "what came of a retrain", "Remove it; the next retrain makes it anew")
