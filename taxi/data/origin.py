"""Sidecar of a published file: where its bytes came from, and which editions they replaced."""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from taxi.files import read_model

REMEDY = "Remove it, and the next `taxi ingest` brings the file anew"


class Edition(BaseModel):
    """One edition of a published file: where it came from, what it is known by, and when it came (ISO, UTC)."""

    model_config = ConfigDict(frozen=True)

    address: str
    sha256: str
    size: int
    etag: str | None
    fetched_at: str


class Origin(Edition):
    """The sidecar of a published file: the edition on hand, and those that it replaced, newest first.

    The same bytes from another address, or under another ETag, are an edition too: what was recorded of them stays.
    """

    format: Literal[1] = 1
    last_modified: str | None = None
    synthetic: dict[str, Any] | None = None
    previous: list[Edition] = []


def read_origin(sidecar: Path) -> Origin | None:
    """Read where a published file came from; None if nothing is kept of it. Raises TaxiError if the sidecar is damaged."""
    return read_model(sidecar, Origin, "where a published file came from", REMEDY) if sidecar.is_file() else None
