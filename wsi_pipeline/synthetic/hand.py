"""How a hand corrects an outline: brush strokes where the difference is worth one, and never quite on the line."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import shapely
from numpy.typing import NDArray
from scipy import ndimage
from shapely.geometry.base import BaseGeometry

from wsi_pipeline.synthetic.fields import EMPTY

# Points of a hand-drawn line lie this far apart, in px.
SPACING = 6.0
# A stroke is laid this many px over the edge that it corrects: else hairlines stay.
OVERLAP = 2.0
# Crumbs and pinholes that strokes leave are wiped away below this area, in px².
CRUMB = 60.0


class Strokes(NamedTuple):
    """What a brush adds to a region and takes from it; polygons in level-0 px, possibly empty."""

    added: BaseGeometry
    removed: BaseGeometry

    @property
    def area(self) -> float:
        return float(self.added.area + self.removed.area)

    def __bool__(self) -> bool:
        return not (self.added.is_empty and self.removed.is_empty)


def strokes_toward(current: BaseGeometry, target: BaseGeometry, *, width: float, smallest: float) -> Strokes:
    """Where `current` differs from `target` by more than a hand would leave.

    Parameters
    ----------
    width
        Differences narrower than this are left, in px.
    smallest
        Differences of a smaller area are left, in px².
    """
    return Strokes(
        _wide_parts(target.difference(current), width, smallest),
        _wide_parts(current.difference(target), width, smallest),
    )


def brushed(region: BaseGeometry, strokes: Strokes, rng: np.random.Generator, jitter: float) -> BaseGeometry:
    """`region` after the strokes, each with its own hand's jitter; the outline elsewhere stays as it is."""
    grown = region.union(wobbled(strokes.added, rng, jitter)) if not strokes.added.is_empty else region
    left = grown.difference(wobbled(strokes.removed, rng, jitter)) if not strokes.removed.is_empty else grown
    return without_crumbs(left)


def wobbled(region: BaseGeometry, rng: np.random.Generator, jitter: float) -> BaseGeometry:
    """The same region as a hand would draw it: its outline strays smoothly by about `jitter` px."""
    polygons = []
    for polygon in shapely.get_parts(region):
        if polygon.area < CRUMB:
            continue
        rings = [_wobbled_ring(ring, rng, jitter) for ring in (polygon.exterior, *polygon.interiors)]
        polygons.append(shapely.Polygon(rings[0], rings[1:]))
    return without_crumbs(shapely.union_all(shapely.make_valid(np.array(polygons, dtype=object))))


def without_crumbs(region: BaseGeometry) -> BaseGeometry:
    """The polygons of a region on QuPath's grid of 0.01 px, without parts and holes that are too small to see.

    A Polygon where one is left, else a MultiPolygon (empty where none is).
    """
    parts = []
    for part in shapely.get_parts(shapely.set_precision(region, 0.01)):
        if part.geom_type == "Polygon" and part.area >= CRUMB:
            holes = [ring for ring in part.interiors if shapely.Polygon(ring).area >= CRUMB]
            parts.append(shapely.Polygon(part.exterior, holes))
    return EMPTY if not parts else parts[0] if len(parts) == 1 else shapely.MultiPolygon(parts)


def _wide_parts(difference: BaseGeometry, width: float, smallest: float) -> BaseGeometry:
    """The parts that are at least `width` wide somewhere, as the strokes that cover them."""
    core = difference.buffer(-width / 2)
    opened = core.buffer(width / 2 + OVERLAP)
    parts = [part for part in shapely.get_parts(opened) if part.area >= smallest]
    return shapely.union_all(parts) if parts else EMPTY


def _wobbled_ring(ring: shapely.LinearRing, rng: np.random.Generator, jitter: float) -> NDArray[np.float64]:
    count = max(12, int(ring.length / SPACING))
    points = shapely.get_coordinates(shapely.line_interpolate_point(ring, np.linspace(0, ring.length, count + 1)[:-1]))
    tangent = np.roll(points, -1, axis=0) - np.roll(points, 1, axis=0)
    normal = np.stack([tangent[:, 1], -tangent[:, 0]], axis=1)
    normal /= np.maximum(np.hypot(*normal.T), 1e-9)[:, None]
    noise = ndimage.gaussian_filter1d(rng.standard_normal(count), 3.0, mode="wrap")
    # About zero, not about their mean: on a short ring the smoothed noise is nearly one number, and its spread nothing.
    spread = max(float(np.sqrt(np.mean(noise**2))), 1e-9)
    stray: NDArray[np.float64] = points + normal * (noise / spread * jitter)[:, None]
    return stray
