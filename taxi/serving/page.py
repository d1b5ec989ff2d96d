"""Web page for people: two zones by name or on the map, a time, and the estimate with its interval. It loads nothing else."""

import base64
import hashlib
import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

from taxi.config import TEMPLATES
from taxi.data.zones import read_zone_shapes, read_zones

GRID = 0.04  # miles; a vertex that neighbours share is rounded alike in both, so no gap opens between them
MARGIN = 2.5  # miles around the outermost centroids: half of the largest zone there
SCALE = 100  # units of the drawing a mile
BEYOND = (1, 264, 265)  # Newark's airport lies far to the west; the other two are no places


@dataclass(frozen=True)
class Page:
    """The page and the headers that go with it."""

    html: str
    headers: dict[str, str]


def ring_path(ring: np.ndarray, west: float, north: float) -> str:
    """Return a ring (n, 2) in miles as an SVG path, coarsened to the grid; empty if nothing is left of it."""
    points = np.round(ring / GRID).astype(int)
    kept = points[np.r_[True, (np.diff(points, axis=0) != 0).any(axis=1)]]
    if len(kept) < 4:
        return ""
    x, y = (kept[:, 0] * GRID - west) * SCALE, (north - kept[:, 1] * GRID) * SCALE
    return "M" + "L".join(f"{round(a)} {round(b)}" for a, b in zip(x[:-1], y[:-1], strict=True)) + "Z"


def draw(zones: pd.DataFrame, shapes: dict[int, list[np.ndarray]]) -> tuple[str, list[dict[str, Any]]]:
    """Return the drawing's view box and its zones: a path where a shape is known, a circle of its area otherwise."""
    known = zones[zones["x"].notna() & ~zones.index.isin(BEYOND)]
    west, east = known["x"].min() - MARGIN, known["x"].max() + MARGIN
    south, north = known["y"].min() - MARGIN, known["y"].max() + MARGIN
    places = []
    for zone, row in zip(known.index.astype(int).tolist(), known.to_dict("records"), strict=True):
        rings = [ring_path(ring, west, north) for ring in shapes.get(zone, [])]
        place = {"id": zone, "name": row["zone"], "borough": row["borough"], "path": "".join(rings)}
        place |= {"x": round((row["x"] - west) * SCALE), "y": round((north - row["y"]) * SCALE)}
        places.append(place | {"r": max(8, round(SCALE * math.sqrt(row["area"] / math.pi)))})
    places.sort(key=lambda place: -place["r"])
    return f"0 0 {round((east - west) * SCALE)} {round((north - south) * SCALE)}", places


def by_borough(zones: pd.DataFrame) -> list[tuple[str, list[dict[str, Any]]]]:
    """Return the boroughs and their zones by name, both in the order of the alphabet."""
    return [
        (str(borough), [{"id": zone, "name": name} for zone, name in group["zone"].sort_values().items()])
        for borough, group in zones.dropna(subset=["zone"]).groupby("borough")
    ]


def _source(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def safe_headers(script: str, style: str) -> dict[str, str]:
    """Return headers that let the page run its own script and style, ask its own service, and nothing else."""
    policy = {
        "default-src": "'none'",
        "script-src": _source(script),
        "style-src": _source(style),
        "connect-src": "'self'",
        "img-src": "data:",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        "base-uri": "'none'",
    }
    return {
        "content-security-policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
        "referrer-policy": "no-referrer",
        "x-frame-options": "DENY",
        "cross-origin-opener-policy": "same-origin",
        "cross-origin-resource-policy": "same-origin",
        "permissions-policy": "geolocation=(), camera=(), microphone=()",
    }


def render(service: str, zones: pd.DataFrame, shapes: dict[int, list[np.ndarray]], locked: bool) -> Page:
    """Return the page for a zone table (``read_zones``) and the shapes that are known; ``locked``: it asks for a key."""
    script, style = ((TEMPLATES / f"estimate.{kind}").read_text(encoding="utf-8") for kind in ("js", "css"))
    box, places = draw(zones, shapes)
    template = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True).get_template("estimate.html.j2")
    words = {"service": service, "boroughs": by_borough(zones), "box": box, "places": places, "locked": locked}
    html = template.render(**words, script=Markup(script), style=Markup(style))
    return Page(html, safe_headers(script, style))


def unready_page(service: str, why: str) -> Page:
    """Return the page that stands for the estimate while no version can answer; it looks again by itself."""
    style = (TEMPLATES / "estimate.css").read_text(encoding="utf-8")
    template = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True).get_template("unready.html.j2")
    return Page(template.render(service=service, why=why, style=Markup(style)), safe_headers("", style))


@lru_cache(maxsize=8)
def page_of(service: str, published: Path, of_model: Path, locked: bool) -> Page:
    """Return the page, its map from the publisher's shapes or, without them, from the model's table."""
    if (published / "taxi_zones.zip").is_file():
        return render(service, read_zones(published), read_zone_shapes(published), locked)
    return render(service, pd.read_parquet(of_model / "zones.parquet"), {}, locked)
