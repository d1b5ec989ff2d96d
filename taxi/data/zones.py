"""Taxi zones of the publisher: names, boroughs, centroids, areas and shapes, in miles."""

import io
import zipfile
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import shapefile

from taxi.errors import BadFile

FEET_PER_MILE = 5280.0
LAST_ZONE = 265


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


def read_zone_shapes(folder: Path) -> dict[int, list[np.ndarray]]:
    """Read each zone's rings, shape (n, 2) in miles (EPSG:2263), by its id.

    The id is OBJECTID: the file's LocationID repeats 56 and 103 and lacks 57, 104 and 105.
    """
    return dict(_parse_shapes((folder / "taxi_zones.zip").read_bytes()))


@lru_cache(maxsize=2)  # parsing the shapes takes as long as preparing a month's trips
def _parse_shapes(zipped: bytes) -> dict[int, list[np.ndarray]]:
    with zipfile.ZipFile(io.BytesIO(zipped)) as archive:
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


def read_zones(folder: Path) -> pd.DataFrame:
    """Read the zone table, indexed by LocationID 1..265: borough, zone, service_zone, x, y, area, airport.

    x and y are the centroid in miles, area is in square miles; all three are NaN for 264 (unknown) and 265 (outside).
    """
    lookup = pd.read_csv(folder / "taxi_zone_lookup.csv", keep_default_na=False)
    missing = {"LocationID", "Borough", "Zone", "service_zone"} - set(lookup.columns)
    if missing:
        raise BadFile("zones", f"expected columns {sorted(missing)} in taxi_zone_lookup.csv; there are {list(lookup)}")
    table = lookup.rename(columns={"Borough": "borough", "Zone": "zone"}).set_index("LocationID").sort_index()
    shapes = read_zone_shapes(folder)
    found = {zone: _geometry(rings) for zone, rings in shapes.items()}
    geometry = pd.DataFrame.from_dict(found, orient="index", columns=["area", "x", "y"])
    airport = table["service_zone"].isin(["Airports", "EWR"]) | table["zone"].str.contains("Airport")
    joined = table.join(geometry).assign(airport=airport)
    return joined.reindex(range(1, LAST_ZONE + 1))[["borough", "zone", "service_zone", "x", "y", "area", "airport"]]
