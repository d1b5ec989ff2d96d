"""What ``params.yaml`` may say: every number that decides something, typed and checked."""

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError, field_validator

from taxi.alarm_params import AlarmParams
from taxi.config import find_root
from taxi.errors import UsageError
from taxi.live_params import ExperimentParams
from taxi.section import Section
from taxi.serve_params import ServeParams

Check = Literal["volume", "null-block", "rmse", "coverage", "slice-rmse", "input-drift", "prediction-drift"]
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
    on_alarm: list[Check]
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
