"""A made-up city in the publisher's layout: 265 zones, their shapes, and how long it takes between them.

Nothing here is taken from the real zones but their number, the ids of the airports and the traps of the published files.
"""

import csv
import io
import zipfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import shapefile

from taxi.files import staged

AIRPORT_IDS = {1: "EWR", 132: "Queens", 138: "Queens"}
# borough: zones, columns of the lattice, cell (miles), corner of the lattice (miles)
LATTICE = {
    "Manhattan": (69, 3, 0.55, (0.0, 0.0)),
    "Bronx": (43, 6, 0.85, (1.8, 12.9)),
    "Queens": (69, 9, 1.15, (2.2, 2.0)),
    "Brooklyn": (61, 8, 0.95, (0.5, -7.8)),
    "Staten Island": (20, 5, 1.6, (-8.5, -8.0)),
    "EWR": (1, 1, 1.7, (-11.0, 0.0)),
}
DEMAND = {"Manhattan": 3.0, "Bronx": 0.6, "Queens": 1.5, "Brooklyn": 1.3, "Staten Island": 0.03, "EWR": 0.05}
PACE = {"Manhattan": 1.22, "Bronx": 0.95, "Queens": 0.92, "Brooklyn": 1.08, "Staten Island": 0.75, "EWR": 0.75}
DETOUR = 1.27
ORIGIN = (190.0, 38.0)  # of the lattice, in miles of EPSG:2263
PROJECTION = (
    'PROJCS["NAD_1983_StatePlane_New_York_Long_Island_FIPS_3104_Feet",GEOGCS["GCS_North_American_1983",DATUM["D_North_American_1983",'
    'SPHEROID["GRS_1980",6378137.0,298.257222101]],PRIMEM["Greenwich",0.0],UNIT["Degree",0.0174532925199433]],'
    'PROJECTION["Lambert_Conformal_Conic"],PARAMETER["False_Easting",984250.0],PARAMETER["False_Northing",0.0],'
    'PARAMETER["Central_Meridian",-74.0],PARAMETER["Standard_Parallel_1",40.66666666666666],'
    'PARAMETER["Standard_Parallel_2",41.03333333333333],PARAMETER["Latitude_Of_Origin",40.16666666666666],UNIT["Foot_US",0.3048006096012192]]'
)


@dataclass(frozen=True)
class City:
    """Zones 1..263: names, boroughs, centroids (miles), corners; demand; minutes-per-mile factors."""

    borough: np.ndarray
    name: np.ndarray
    centre: np.ndarray
    corners: np.ndarray
    demand: np.ndarray
    pace: np.ndarray

    @property
    def route_miles(self) -> np.ndarray:
        """Miles by road between every two zones, shape (263, 263); inside a zone, half its width and a bit."""
        apart = np.hypot(*(self.centre[None, :, :] - self.centre[:, None, :]).transpose(2, 0, 1))
        width = np.ptp(self.corners[:, :, 0], axis=1)
        return np.where(apart == 0, 0.55 * width[:, None], apart) * DETOUR


@lru_cache(maxsize=1)
def build_city() -> City:
    """Lay out the city; always the same one."""
    draw = np.random.default_rng(20_240_101)
    ids = {name: [zone for zone, borough in AIRPORT_IDS.items() if borough == name] for name in LATTICE}
    free = iter([zone for zone in draw.permutation(np.arange(1, 264)) if zone not in AIRPORT_IDS])
    borough, corners = np.empty(263, dtype=object), np.empty((263, 5, 2))
    for name, (count, columns, cell, corner) in LATTICE.items():
        rows = -(-count // columns)
        knots = np.stack(np.meshgrid(np.arange(columns + 1.0), np.arange(rows + 1.0), indexing="ij"), axis=-1)
        knots = (knots + draw.uniform(-0.18, 0.18, knots.shape)) * cell + np.array(corner) + np.array(ORIGIN)
        zones = ids[name] + [int(next(free)) for _ in range(count - len(ids[name]))]
        for place, zone in enumerate(reversed(zones)):
            i, j = place % columns, place // columns
            ring = [knots[i, j], knots[i, j + 1], knots[i + 1, j + 1], knots[i + 1, j], knots[i, j]]
            borough[zone - 1], corners[zone - 1] = name, ring
    demand = np.array([DEMAND[name] for name in borough]) * draw.lognormal(0, 0.7, 263)
    demand[[zone - 1 for zone in AIRPORT_IDS]] = [0.05, 4.0, 5.0]
    pace = np.array([PACE[name] for name in borough]) * draw.lognormal(0, 0.06, 263)
    names = np.array([f"{kind} {index}" for index, kind in enumerate(_names(borough), 1)], dtype=object)
    return City(borough, names, corners[:, :4].mean(axis=1), corners, demand, pace)


def _names(borough: np.ndarray) -> list[str]:
    return [f"{name} Airport" if zone in AIRPORT_IDS else f"{name} Quarter" for zone, name in enumerate(borough, 1)]


def _service_zone(zone: int, borough: str) -> str:
    if zone in AIRPORT_IDS:
        return "EWR" if borough == "EWR" else "Airports"
    return "Yellow Zone" if borough == "Manhattan" else "Boro Zone"


def write_lookup(city: City, path: Path) -> None:
    """Write the zone lookup as the publisher does, with its literal ``N/A``."""
    rows = [(zone, name, city.name[zone - 1], _service_zone(zone, name)) for zone, name in enumerate(city.borough, 1)]
    rows += [(264, "Unknown", "N/A", "N/A"), (265, "N/A", "Outside of NYC", "N/A")]
    with staged(path) as part, open(part, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, quoting=csv.QUOTE_NONNUMERIC)
        writer.writerow(("LocationID", "Borough", "Zone", "service_zone"))
        writer.writerows(rows)


def _published_id(zone: int) -> int:
    return {57: 56, 104: 103, 105: 103}.get(zone, zone)


def write_shapes(city: City, path: Path) -> None:
    """Write the zone shapes as the publisher does: feet of EPSG:2263, and LocationID wrong where theirs is."""
    parts = {name: io.BytesIO() for name in ("shp", "shx", "dbf")}
    with shapefile.Writer(**parts, shapeType=shapefile.POLYGON) as writer:
        for field, kind, size, places in (
            ("OBJECTID", "N", 9, 0),
            ("Shape_Leng", "F", 19, 11),
            ("Shape_Area", "F", 19, 11),
            ("zone", "C", 254, 0),
            ("LocationID", "N", 4, 0),
            ("borough", "C", 254, 0),
        ):
            writer.field(field, kind, size, places)
        for zone in range(1, 264):
            ring = city.corners[zone - 1] * 5280
            writer.poly([ring.tolist()])
            writer.record(zone, 0.0, 0.0, city.name[zone - 1], _published_id(zone), city.borough[zone - 1])
    with staged(path) as part, zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, stream in parts.items():
            content = bytearray(stream.getvalue())
            if name == "dbf":
                content[1:4] = bytes((124, 1, 1))
            archive.writestr(zipfile.ZipInfo(f"taxi_zones.{name}"), bytes(content))
        archive.writestr(zipfile.ZipInfo("taxi_zones.prj"), PROJECTION)
