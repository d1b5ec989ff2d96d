"""Parameters: the schema of ``params.yaml``, every number that decides something, typed and checked."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from taxi.config import find_root
from taxi.errors import UsageError

# --- What every section of ``params.yaml`` is: a name that is not known is an error, and nobody changes a value once it is read.


class Section(BaseModel):
    """A part of ``params.yaml``."""

    model_config = ConfigDict(extra="forbid", frozen=True)


# --- Section ``alarms`` of ``params.yaml``: from where on something is told, to whom, and without effect on any month.

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]


class Owners(Section):
    """Who is asked to act, by the kind of trouble."""

    data: str = Field(min_length=1)
    model: str = Field(min_length=1)
    service: str = Field(min_length=1)
    operations: str = Field(min_length=1)


class AlarmParams(Section):
    """When the alarms go off. Pairs are: from where on a warning, from where on an error."""

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


# --- The section of ``params.yaml`` that is changed while the service runs; ``taxi.params`` reads it with the others.


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
    complete_share: float = Field(0.95, gt=0, le=1)
    uneven_limit: float = Field(0.02, ge=0, le=1)

    @property
    def start(self) -> datetime | None:
        """``since`` with its zone; without one it is taken for UTC."""
        return self.since and (self.since if self.since.tzinfo else self.since.replace(tzinfo=UTC))


# --- Section ``serve`` of ``params.yaml``: read anew while the service runs, and without effect on any month.


class ServeParams(Section):
    """How the service behaves; all but the address is reread while it runs. Rates and bursts are per key or address."""

    poll_seconds: float = Field(gt=0)
    rate_per_second: float = Field(gt=0)
    burst: int = Field(ge=1)
    body_bytes: int = Field(ge=1000)
    body_seconds: float = Field(gt=0)
    answer_seconds: float = Field(gt=0)
    drain_seconds: float = Field(ge=0)


MonitorRule = Literal["volume", "null-block", "rmse", "coverage", "slice-rmse", "input-drift", "prediction-drift"]
ASIDE = {"alarms", "experiment", "release", "search", "serve"}


class CleanParams(Section):
    """Which trips are kept (minutes)."""

    min_minutes: float = Field(gt=0)
    max_minutes: float = Field(gt=0)


class AcceptParams(Section):
    """When a month as a whole is refused or accepted with warnings. Shares are of 1."""

    kept_share_warn: float
    kept_share_refuse: float
    reason_share_warn: float
    reason_share_refuse: float
    rows_ratio_warn: float
    rows_ratio_refuse: float
    week_ratio_warn: float
    week_ratio_refuse: float
    week_ratio_agrees: float
    rows_ratio_agrees: float
    history_months: int = Field(ge=1)
    missing_days_warn: int
    missing_days_refuse: int
    null_share_jump_warn: float
    null_share_jump_refuse: float
    missing_share_refuse: float
    quiet_from: tuple[int, int]
    night_share_warn: float
    night_share_refuse: float
    hour_fit_gain: float
    hour_overlap_warn: float
    hour_overlap_refuse: float
    zone_overlap_warn: float
    zone_overlap_refuse: float
    zone_swap_gain: float
    vendor_overlap_warn: float
    vendor_overlap_refuse: float
    median_minutes: tuple[float, float]
    median_miles: tuple[float, float]
    median_mph: tuple[float, float]
    median_dollars: tuple[float, float]
    minutes_ratio_refuse: float
    miles_ratio_refuse: float
    speed_ratio_refuse: float
    dollars_ratio_refuse: float


class FeatureParams(Section):
    """How history is learnt."""

    smoothing: float
    folds: int


class ModelParams(Section):
    """The model's recipe."""

    kind: Literal["xgboost", "linear", "pair-median"]
    planned: bool
    window_months: int = Field(ge=1)
    half_life_days: float = Field(gt=0)
    season_doubt: float = Field(ge=0, lt=1)
    max_rows: int = Field(ge=1)
    calibration_days: int = Field(ge=1)
    trips_per_round: int = Field(ge=1)
    rounds: int = Field(ge=1)
    learning_rate: float = Field(gt=0)
    max_depth: int = Field(ge=1)
    colsample_bytree: float = Field(gt=0, le=1)
    head_rounds: int = Field(ge=1)
    head_learning_rate: float = Field(gt=0)
    head_max_depth: int = Field(ge=1)
    head_colsample_bytree: float = Field(gt=0, le=1)
    interval_rows: int = Field(ge=1000)
    interval_rounds: int = Field(ge=1)
    interval_learning_rate: float = Field(gt=0)
    interval_max_depth: int = Field(ge=1)
    planned_rounds: int = Field(ge=1)
    planned_learning_rate: float = Field(gt=0)
    planned_max_depth: int = Field(ge=1)
    planned_head_rounds: int = Field(ge=1)
    planned_head_learning_rate: float = Field(gt=0)
    min_child_weight: float = Field(ge=0)
    subsample: float = Field(gt=0, le=1)
    reg_lambda: float = Field(ge=0)
    max_bin: int = Field(ge=2, le=256)
    device: Literal["cpu", "cuda"]
    threads: int = Field(ge=1)
    seed: int

    def for_planned(self) -> "ModelParams":
        """Return the recipe of the second model: with a distance there is more to learn, for more and deeper trees."""
        names = ("rounds", "learning_rate", "max_depth", "head_rounds", "head_learning_rate")
        return self.model_copy(update={name: getattr(self, f"planned_{name}") for name in names})


class RetrainParams(Section):
    """When a challenger is trained; months of 0 switch a trigger off."""

    policy: Literal["auto", "always", "never"]
    on_alarm: list[MonitorRule]
    oldest_months: int = Field(ge=0)
    every_months: int = Field(ge=0)


class PromoteParams(Section):
    """What a challenger must show."""

    resamples: int = Field(ge=100)
    confidence: float = Field(gt=0, lt=1)
    slice_loss: float
    slice_min_trips: int
    seed: int


class MonitorParams(Section):
    """When the monitor speaks up. Effect sizes are unitless; shares and ratios are of 1."""

    sample_rows: int
    column_drift: float
    prediction_drift: float
    drifted_share: float
    volume_drop: float
    volume_rise: float
    null_share_jump: float
    rmse_ratio: float
    coverage_low: float
    coverage_high: float
    slice_rmse_ratio: float
    slice_min_trips: int
    seed: int


class ReleaseParams(Section):
    """How a version goes from dev over staging to prod."""

    approval: list[Literal["dev", "staging", "prod"]]
    synthetic: bool
    uncommitted: bool


class SearchParams(Section):
    """How much a search for a better recipe may cost."""

    trials: int = Field(ge=1)
    seconds: float = Field(gt=0)
    folds: int = Field(ge=1)
    rows: int = Field(ge=1)
    judged_rows: int = Field(ge=1)
    startup_trials: int = Field(ge=1)
    seed: int


class Params(Section):
    """All of ``params.yaml``."""

    clean: CleanParams
    accept: AcceptParams
    features: FeatureParams
    model: ModelParams
    retrain: RetrainParams
    promote: PromoteParams
    monitor: MonitorParams
    experiment: ExperimentParams
    release: ReleaseParams
    search: SearchParams
    alarms: AlarmParams
    serve: ServeParams

    def lasting(self) -> dict[str, Any]:
        """Return what decides the outcome of a month's run: all but what is served, and how recipes are searched."""
        return self.model_dump(mode="json", exclude=ASIDE)

    @field_validator("clean")
    @classmethod
    def _ordered(cls, clean: CleanParams) -> CleanParams:
        if clean.min_minutes >= clean.max_minutes:
            raise ValueError("clean.min_minutes must be below clean.max_minutes")
        return clean


def load_params(path: Path | None = None) -> Params:
    """Read and check ``params.yaml``; an unknown, missing or mistyped entry raises UsageError that names it."""
    path = path or find_root() / "params.yaml"
    try:
        return Params.model_validate(yaml.load(path.read_text(encoding="utf-8"), yaml.CSafeLoader))
    except (ValidationError, yaml.YAMLError) as error:
        raise UsageError(f"{path.name}: {error}") from error


# --- Other values than those of ``params.yaml``, for one run: given as ``section.name=value``, checked as the file is.


def parse_overrides(given: Sequence[str], sections: Sequence[str]) -> dict[str, Any]:
    """Return ``section.name`` to value for texts like ``model.rounds=60``; raise UsageError for others."""
    found = {}
    for text in given:
        name, there, value = text.partition("=")
        if not there or name.partition(".")[0] not in sections or "." not in name:
            listed = ", ".join(sections)
            raise UsageError(f"expected a parameter as section.name=value, section one of {listed}; got {text!r}")
        found[name] = yaml.safe_load(value)
    return found


def override(params: Params, values: dict[str, Any]) -> Params:
    """Return the parameters with other values by ``section.name``; raise UsageError if one is unknown or does not fit."""
    content = params.model_dump(mode="json")
    for name, value in values.items():
        section, _, entry = name.partition(".")
        content[section][entry] = value
    try:
        return Params.model_validate(content)
    except ValidationError as error:
        raise UsageError(f"params.yaml with {values}: {error}") from error
