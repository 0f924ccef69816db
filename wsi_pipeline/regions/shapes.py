"""Raw polygons to what a pathologist can work with: valid, without specks, no more vertices than needed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely
from shapely import LinearRing, Polygon

from wsi_pipeline.config import Regions
from wsi_pipeline.regions.contours import Polygons, flattened, ordered

# QuPath 0.6 and later parse GeoJSON on this grid and refuse a file with one polygon that is invalid there.
GRID_PX = 0.01


@dataclass(frozen=True, slots=True)
class ShapeRules:
    """The rules in level-0 pixels."""

    min_area_px: float
    min_hole_px: float
    tolerance_px: float

    @classmethod
    def of(cls, settings: Regions, mpp: float) -> ShapeRules:
        """`settings` (µm, µm²) for a slide of `mpp` µm/px at level 0."""
        return cls(settings.min_area_um2 / mpp**2, settings.min_hole_um2 / mpp**2, settings.simplify_um / mpp)


def tidy(polygons: Polygons, rules: ShapeRules) -> Polygons:
    """Simplify, mend, drop specks, fill pinholes and round to the grid.

    Returns
    -------
    Array of Polygons in level-0 px: valid after rounding to 0.01 px, each at least `min_area_px`, holes at
    least `min_hole_px`, sorted.
    """
    sound = _mended(polygons)
    large = sound[shapely.area(sound) >= rules.min_area_px]
    if rules.tolerance_px > 0:
        large = shapely.simplify(large, rules.tolerance_px, preserve_topology=True)
    large = _mended(large)
    large = fill_small_holes(large, rules.min_hole_px)
    large = _mended(shapely.set_precision(large, GRID_PX))
    return ordered(large[shapely.area(large) >= rules.min_area_px])


def _mended(polygons: Polygons) -> Polygons:
    valid = shapely.is_valid(polygons)
    if valid.all():
        return flattened(polygons)
    mended = polygons.copy()
    mended[~valid] = shapely.make_valid(polygons[~valid])
    return flattened(mended)


def fill_small_holes(polygons: Polygons, min_area: float) -> Polygons:
    """Remove the holes below `min_area` (px²) from each polygon; what lay inside of such a hole goes with it."""
    result = polygons.copy()
    filled = []
    for i in np.flatnonzero(shapely.get_num_interior_rings(polygons) > 0):
        polygon: Polygon = polygons[i]
        holes = [ring for ring in polygon.interiors if _area(ring) >= min_area]
        if len(holes) < len(polygon.interiors):
            result[i] = Polygon(polygon.exterior, holes)
            filled += [Polygon(ring) for ring in polygon.interiors if _area(ring) < min_area]
    if not filled:
        return result
    inside, _ = shapely.STRtree(filled).query(result, predicate="covered_by")
    outside: Polygons = np.delete(result, np.unique(inside))
    return outside


def _area(ring: LinearRing) -> float:
    return float(shapely.area(Polygon(ring)))
