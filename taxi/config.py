"""Where things lie and what is decided by ``params.yaml``: the only place that reads the environment."""

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from taxi.errors import UsageError
from taxi.serve_params import ServeParams

TLC_SITE = "https://d37ci6vzurychx.cloudfront.net"
SERVICES = ("green", "yellow")
NOTEBOOKS = ("01-explore", "02-features", "03-monitor", "04-train", "05-compare")
TELEMETRY_OFF = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DVC_NO_ANALYTICS": "1",
}


def parse_service(text: str) -> str:
    """Return ``text`` if it names a service whose months this project reads; raise UsageError otherwise."""
    if text not in SERVICES:
        raise UsageError(f"expected a service, one of {', '.join(SERVICES)}; got {text!r}")
    return text


def find_root(start: Path | None = None) -> Path:
    """Return the nearest folder, from ``start`` (default: the working folder) upwards, that holds ``params.yaml``.

    Outside any checkout it is the checkout that this package is installed from.
    """
    here = (start or Path.cwd()).resolve()
    installed = Path(__file__).resolve().parent.parent
    for folder in (here, *here.parents, installed):
        if (folder / "params.yaml").is_file() and (folder / "notebooks").is_dir():
            return folder
    raise UsageError(f"expected to be inside a checkout that has params.yaml and notebooks/; {here} is in none")


@dataclass(frozen=True)
class Settings:
    """Places and addresses of one run, resolved to absolute paths."""

    root: Path
    source: str
    data: Path
    reports: Path
    tracking_uri: str

    def month(self, service: str, month: str) -> "MonthPaths":
        """Return where the files of one month of one service lie."""
        return MonthPaths(self.data, self.reports, parse_service(service), month)

    def months_on_hand(self, service: str) -> list[str]:
        """Return the months whose trips were accepted and kept, oldest first."""
        return sorted(p.stem for p in (self.data / "trips" / service).glob("????-??.parquet"))

    @property
    def predictions(self) -> str:
        """Address of the prediction store: TAXI_PREDICTIONS, or a SQLite file beside the data."""
        return os.environ.get("TAXI_PREDICTIONS") or f"sqlite:///{self.data / 'predictions.db'}"

    @property
    def spool(self) -> Path:
        """Folder where predictions wait on disk until the store has them."""
        return self.data / "spool"

    def server(self, service: str) -> Path:
        """Return where a service's server keeps checked versions and which of them serves."""
        return self.data / "serving" / parse_service(service)

    @property
    def zones(self) -> Path:
        """Folder with the publisher's zone files."""
        return self.data / "zones"


def load_settings(source: str | None = None) -> Settings:
    """Read TAXI_SOURCE, TAXI_DATA, TAXI_REPORTS and MLFLOW_TRACKING_URI; relative folders count from the root."""
    root = find_root()
    place = {name: Path(os.environ.get(f"TAXI_{name.upper()}") or name) for name in ("data", "reports")}
    return Settings(
        root=root,
        source=source or os.environ.get("TAXI_SOURCE") or TLC_SITE,
        data=(root / place["data"]).resolve(),
        reports=(root / place["reports"]).resolve(),
        tracking_uri=os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{root / 'mlflow.db'}",
    )


@dataclass(frozen=True)
class MonthPaths:
    """Where the files of one month of one service lie."""

    data: Path
    report_root: Path
    service: str
    month: str

    @cached_property
    def raw(self) -> Path:
        """The published bytes."""
        return self.data / "raw" / self.service / f"{self.month}.parquet"

    @cached_property
    def sidecar(self) -> Path:
        """Where the published bytes came from: address, ETag, size, sha256, time."""
        return self.raw.with_suffix(".json")

    @cached_property
    def trips(self) -> Path:
        """Kept trips, in the canonical schema."""
        return self.data / "trips" / self.service / f"{self.month}.parquet"

    @cached_property
    def quarantine(self) -> Path:
        """Refused rows, whole, with ``row`` and ``reason``."""
        return self.data / "quarantine" / self.service / f"{self.month}.parquet"

    @cached_property
    def acceptance(self) -> Path:
        """Counts and the acceptance rules' findings, as JSON; there also when the month was refused."""
        return self.data / "acceptance" / self.service / f"{self.month}.json"

    @cached_property
    def models(self) -> Path:
        """Folder with the month's models: ``incumbent``, ``challenger``, ``winner``."""
        return self.data / "models" / self.service / self.month

    @cached_property
    def reports(self) -> Path:
        """Folder with the month's reports."""
        return self.report_root / self.service / self.month


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class CleanParams(_Section):
    """Which trips are kept (minutes)."""

    min_minutes: float = Field(gt=0)
    max_minutes: float = Field(gt=0)


class AcceptParams(_Section):
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


class FeatureParams(_Section):
    """How history is learnt."""

    smoothing: float
    folds: int


class ModelParams(_Section):
    """The model's recipe."""

    kind: Literal["xgboost", "linear", "pair-median"]
    window_months: int = Field(ge=1)
    half_life_days: float = Field(gt=0)
    rounds: int
    learning_rate: float
    max_depth: int
    min_child_weight: float
    subsample: float
    colsample_bytree: float
    reg_lambda: float
    max_bin: int
    interval_rounds: int
    interval_learning_rate: float
    interval_max_depth: int
    device: Literal["cpu", "cuda"]
    threads: int
    seed: int


class RetrainParams(_Section):
    """When a challenger is trained."""

    on_alarm: bool
    every_months: int = Field(ge=0)


class PromoteParams(_Section):
    """What a challenger must show."""

    resamples: int = Field(ge=100)
    confidence: float = Field(gt=0, lt=1)
    slice_loss: float
    slice_min_trips: int
    seed: int


class MonitorParams(_Section):
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


class ExperimentParams(_Section):
    """TEMP."""

    mode: Literal["none", "shadow", "share"] = "none"
    share: float = 0.5
    salt: str = "first"


class Params(_Section):
    """All of ``params.yaml``."""

    clean: CleanParams
    accept: AcceptParams
    features: FeatureParams
    model: ModelParams
    retrain: RetrainParams
    promote: PromoteParams
    monitor: MonitorParams
    serve: ServeParams
    experiment: ExperimentParams = ExperimentParams()

    @field_validator("clean")
    @classmethod
    def _ordered(cls, clean: CleanParams) -> CleanParams:
        if clean.min_minutes >= clean.max_minutes:
            raise ValueError("clean.min_minutes must be below clean.max_minutes")
        return clean


def load_api_keys() -> list[str]:
    """Return the API keys that the service accepts: TAXI_API_KEYS, or the file that TAXI_API_KEYS_FILE names.

    They are separated by commas or white space. Several make rotation possible; the file is read anew when it changes.
    """
    path = api_keys_file()
    text = path.read_text(encoding="utf-8") if path else os.environ.get("TAXI_API_KEYS", "")
    return text.replace(",", " ").split()


def api_keys_file() -> Path | None:
    """Return the file of API keys, if TAXI_API_KEYS_FILE names one."""
    named = os.environ.get("TAXI_API_KEYS_FILE")
    return Path(named) if named else None


def load_params(path: Path | None = None) -> Params:
    """Read and check ``params.yaml``; an unknown, missing or mistyped entry raises UsageError that names it."""
    path = path or find_root() / "params.yaml"
    try:
        return Params.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (ValidationError, yaml.YAMLError) as error:
        raise UsageError(f"{path.name}: {error}") from error
