"""Environment variables: the settings that an installation is given from outside, each declared once.

Secrets (``TAXI_API_KEYS``, the alarm channels) are not among them: ``taxi.config`` reads each where it is used.
"""

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Environment(BaseSettings):
    """What the environment says (``TAXI_DATA`` for ``data``); a variable that is empty counts as not set."""

    model_config = SettingsConfigDict(env_prefix="TAXI_", env_ignore_empty=True)

    source: str | None = None
    data: Path = Path("data")
    reports: Path = Path("reports")
    predictions: str | None = None
    metrics: str | None = None
    artifacts: str | None = None
    proxies: str | None = None
    locks: str | None = None
    engine: str = "local"
    scheduler: str | None = None
    attempt: str | None = None
    commit: str | None = None  # of an image, which holds no git
    tracking_uri: str = Field(default="sqlite:///mlflow.db", validation_alias="MLFLOW_TRACKING_URI")
    prefect: str | None = Field(default=None, validation_alias="PREFECT_API_URL")
