"""Taxi zones of the publisher: names, boroughs, centroids, areas and shapes, in miles."""

import csv
import io
import zipfile
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import shapefile

from taxi.errors import BadFile
from taxi.unpacking import NO_ARCHIVE, zip_fault

FEET_PER_MILE = 5280.0
LAST_ZONE = 265
MOST_BYTES = 32 * 1024**2  # of a zone file, packed or not; the publisher's have 12 kB and 1 MB
LOOKUP = {"LocationID": "int64", "Borough": "str", "Zone": "str", "service_zone": "str"}
# What the parsers of ZIP, shapes and tables raise over bytes that are none.
UNREADABLE = (*NO_ARCHIVE, TypeError, IndexError, AssertionError, shapefile.ShapefileException)


def ring_centroid(ring: np.ndarray) -> tuple[float, float, float]:
    """Return the signed area and centroid of a closed ring of points, shape (n, 2): the shoelace formula.

    Source: P. Bourke, "Calculating the area and centroid of a polygon" (1988).
    """
    x, y = ring[:, 0], ring[:, 1]
    cross = x[:-1] * y[1:] - x[1:] * y[:-1]
    area = cross.sum() / 2
    if area == 0:
        return 0.0, float(x.mean()), float(y.mean())
    return area, ((x[:-1] + x[1:]) * cross).sum() / (6 * area), ((y[:-1] + y[1:]) * cross).sum() / (6 * area)


def _rings(shape: shapefile.Shape) -> list[np.ndarray]:
    points = np.asarray(shape.points, dtype=float) / FEET_PER_MILE
    return [part for part in np.split(points, list(shape.parts)[1:]) if len(part) >= 4]


def check_size(path: Path) -> None:
    """Raise BadFile for a zone file that is larger than one can be."""
    if (size := path.stat().st_size) > MOST_BYTES:
        raise BadFile("zones", f"expected at most {MOST_BYTES:,} bytes as {path.name}; it has {size:,}")


def read_zone_shapes(folder: Path) -> dict[int, list[np.ndarray]]:
    """Read each zone's rings, shape (n, 2) in miles (EPSG:2263), by its id.

    The id is OBJECTID: the file's LocationID repeats 56 and 103 and lacks 57, 104 and 105.
    """
    return parse_shapes(folder / "taxi_zones.zip")


def parse_shapes(path: Path) -> dict[int, list[np.ndarray]]:
    """Read the zones' rings from the publisher's archive; raise BadFile if it is none, unpacks to too much, or is damaged."""
    check_size(path)
    try:
        return dict(_parse_shapes(path.read_bytes()))
    except UNREADABLE as error:
        raise BadFile(
            "zones", f"expected a ZIP archive of zone shapes as {path.name}; it is none: {error!r}"
        ) from error


@lru_cache(maxsize=2)  # parsing the shapes takes as long as preparing a month's trips
def _parse_shapes(zipped: bytes) -> dict[int, list[np.ndarray]]:
    with zipfile.ZipFile(io.BytesIO(zipped)) as archive:
        if fault := zip_fault(archive.infolist(), MOST_BYTES):
            raise BadFile("zones", f"expected taxi_zones.zip with the zones' shapes; it {fault}")
        parts = {Path(name).suffix: archive.read(name) for name in archive.namelist()}
    if not {".shp", ".shx", ".dbf"} <= set(parts):
        raise BadFile("zones", f"expected .shp, .shx and .dbf in taxi_zones.zip; there are {sorted(parts)}")
    streams = {name: io.BytesIO(parts[f".{name}"]) for name in ("shp", "shx", "dbf")}
    with shapefile.Reader(**streams) as reader:
        return {int(one.record["OBJECTID"]): _rings(one.shape) for one in reader.iterShapeRecords()}


def _geometry(rings: list[np.ndarray]) -> tuple[float, float, float]:
    parts = np.array([ring_centroid(ring) for ring in rings])
    area = parts[:, 0].sum()
    weights = parts[:, 0] / area
    return abs(area), float(weights @ parts[:, 1]), float(weights @ parts[:, 2])


def read_lookup(path: Path) -> pd.DataFrame:
    """Read the publisher's zone lookup; raise BadFile if it is no CSV with just one row for each of some of the zones."""
    check_size(path)
    try:
        lookup = pd.read_csv(path, keep_default_na=False, dtype=LOOKUP, usecols=list(LOOKUP))
    except (ValueError, csv.Error) as error:
        raise BadFile(
            "zones", f"expected a CSV with {', '.join(LOOKUP)} as {path.name}; it is none: {error}"
        ) from error
    zones = lookup["LocationID"]
    if not zones.between(1, LAST_ZONE).all() or not zones.is_unique:
        raise BadFile(
            "zones", f"expected LocationID 1 to {LAST_ZONE}, each once, in {path.name}; got others or some twice"
        )
    return lookup


def read_zones(folder: Path) -> pd.DataFrame:
    """Read the zone table, indexed by LocationID 1..265: borough, zone, service_zone, x, y, area, airport.

    x and y are the centroid in miles, area is in square miles; all three are NaN for 264 (unknown) and 265 (outside).
    """
    lookup = read_lookup(folder / "taxi_zone_lookup.csv")
    table = lookup.rename(columns={"Borough": "borough", "Zone": "zone"}).set_index("LocationID").sort_index()
    shapes = read_zone_shapes(folder)
    found = {zone: _geometry(rings) for zone, rings in shapes.items()}
    geometry = pd.DataFrame.from_dict(found, orient="index", columns=["area", "x", "y"])
    airport = table["service_zone"].isin(["Airports", "EWR"]) | table["zone"].str.contains("Airport")
    joined = table.join(geometry).assign(airport=airport)
    return joined.reindex(range(1, LAST_ZONE + 1))[["borough", "zone", "service_zone", "x", "y", "area", "airport"]]
