"""Files that are damaged at random, read as the product reads them, in a process that may die.

``python -m tests.support.bombs CASES`` prints one JSON object, by kind: how many were read, were refused in words, or escaped, the
seconds of the slowest, and the most memory (MiB) that reading took beyond what was in use.
"""

import json
import random
import resource
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as parquet

from taxi.config import MonthPaths
from taxi.data.acceptance import clean_month
from taxi.data.synthetic_city import build_city, write_lookup, write_shapes
from taxi.data.zones import read_zones
from taxi.errors import TaxiError
from taxi.files import read_json, read_kept
from taxi.models.fitting import fit_model
from taxi.models.model import load_model, save_model
from taxi.params import load_params
from tests.support.builders import build_published, build_trips

Read = Callable[[Path], object]


def damage(content: bytes, chance: random.Random) -> bytes:
    """Return bytes with a few changed, cut off, doubled or zeroed."""
    kind, changed, at = chance.randrange(5), bytearray(content), chance.randrange(len(content))
    if kind == 0:
        return content[:at]
    if kind == 1:
        changed[at : at + chance.randrange(1, 64)] = bytes(chance.randrange(64))
    elif kind == 2:
        changed[at:at] = changed[at : at + chance.randrange(1, 256)]
    else:
        for _ in range(chance.randrange(1, 9)):
            changed[chance.randrange(len(changed))] = chance.randrange(256)
    return bytes(changed)


def make_month(folder: Path) -> tuple[list[Path], Read]:
    paths = MonthPaths(folder / "data", folder / "reports", "green", "2023-03")
    paths.raw.parent.mkdir(parents=True)
    parquet.write_table(pa.Table.from_pandas(build_published(n=300), preserve_index=False), paths.raw)
    return [paths.raw], lambda _: clean_month(paths, load_params())


def write_zones(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    write_lookup(build_city(), folder / "taxi_zone_lookup.csv")
    write_shapes(build_city(), folder / "taxi_zones.zip")


def make_zones(folder: Path, name: str) -> tuple[list[Path], Read]:
    write_zones(folder)
    return [folder / name], lambda path: read_zones(path.parent)


def make_model(folder: Path) -> tuple[list[Path], Read]:
    params, city = load_params(), folder / "city"
    write_zones(city)
    quick = params.model.model_copy(
        update={"rounds": 3, "head_rounds": 2, "interval_rounds": 3, "max_depth": 3, "planned": False}
    )
    model = fit_model(build_trips(400), read_zones(city), quick, params.features)
    save_model(model, folder / "model")
    trips = build_trips(40)
    return sorted((folder / "model").iterdir()), lambda path: load_model(path.parent).predict(trips)


def make_json(folder: Path) -> tuple[list[Path], Read]:
    (folder / "kept.json").write_text(json.dumps({"rows": {"a": [1, 2.5, None]}, "said": "ä" * 50}))
    return [folder / "kept.json"], lambda path: (read_kept(path), read_json(path))


KINDS: dict[str, Callable[[Path], tuple[list[Path], Read]]] = {
    "month": make_month,
    "csv": partial(make_zones, name="taxi_zone_lookup.csv"),
    "zip": partial(make_zones, name="taxi_zones.zip"),
    "json": make_json,
    "model": make_model,
}


def memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def outcome(read: Read, path: Path) -> str:
    """Say what reading a file comes to: ``read``, ``refused`` in words, or what escaped."""
    try:
        read(path)
    except TaxiError:
        return "refused"
    except Exception as error:  # what escapes is what is looked for
        return f"{path.name}: {error!r}"[:300]
    return "read"


def play(kind: str, cases: int, seed: int = 7) -> dict[str, object]:
    """Read so many damaged files, and return what came of them."""
    folder, chance, outcomes, slowest = Path(tempfile.mkdtemp()), random.Random(seed), Counter[str](), 0.0
    try:
        paths, read = KINDS[kind](folder)
        read(paths[0])
        before = memory()
        for case in range(cases):
            path = paths[case % len(paths)]
            good, begun = path.read_bytes(), time.monotonic()
            path.write_bytes(damage(good, chance))
            outcomes[outcome(read, path)] += 1
            slowest = max(slowest, time.monotonic() - begun)
            path.write_bytes(good)
    finally:
        shutil.rmtree(folder)
    return {"outcomes": outcomes, "slowest": round(slowest, 2), "more_mb": memory() - before}


if __name__ == "__main__":
    print(json.dumps({kind: play(kind, int(sys.argv[1])) for kind in KINDS}))
