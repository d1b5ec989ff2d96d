"""Results kept by what they were made from: asked for again they are taken up, after a kill too, and by other processes."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from taxi.files import locked, read_json, sha256_json, write_json

Json = dict[str, Any]


@dataclass(frozen=True)
class Shelf:
    """A folder of results. A result is there whole or not at all, and is made once however many processes want it."""

    folder: Path

    def place(self, kind: str, made_from: Json) -> Path:
        """Return where what is made from ``made_from`` lies, without an ending: one place for one content."""
        return self.folder / kind / sha256_json(made_from)[:24]

    def take(self, kind: str, made_from: Json, make: Callable[[Path], Json]) -> Json:
        """Return the result; where there is none, ``make`` is given its place, for files beside it, and makes it first."""
        place = self.place(kind, made_from)
        kept = place.with_suffix(".json")
        with locked(self.folder / ".locks" / f"{place.name}.lock"):
            if not kept.is_file():
                write_json(kept, {"made_from": made_from, "result": make(place)})
        return dict(read_json(kept)["result"])
