"""Raw polygons to what a pathologist can work with: valid, without specks, no more vertices than needed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray

from wsi_pipeline.config import Regions
from wsi_pipeline.regions.contours import Polygons, flattened_of, ordered

# QuPath 0.6 and later parse GeoJSON on this grid and refuse a file with one polygon that is invalid there.
GRID_PX = 0.01
# A closed ring needs three corners, its first one repeated at the end.
LEAST_RING = 4
# Beyond these, simplifying with all rings in view takes minutes for one polygon.
CAREFUL_VERTICES = 20_000


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
    whole, pinholes = without_pinholes(slimmed(polygons, rules), rules.min_hole_px)
    return ordered(on_grid(whole[~covered(whole, pinholes)], rules)[0])


def slimmed(polygons: Polygons, rules: ShapeRules) -> Polygons:
    """Mend, drop specks, simplify and mend; each polygon for itself."""
    sound = _mended(polygons)
    large = sound[shapely.area(sound) >= rules.min_area_px]
    return _mended(simplified(large, rules.tolerance_px))


def on_grid(polygons: Polygons, rules: ShapeRules) -> tuple[Polygons, NDArray[np.intp]]:
    """Round to the grid and mend, each polygon for itself: what is large enough then, and the number of its polygon."""
    sound, owner = _mended_of(shapely.set_precision(polygons, GRID_PX))
    large = shapely.area(sound) >= rules.min_area_px
    return sound[large], owner[large]


def simplified(polygons: Polygons, tolerance: float) -> Polygons:
    """Polygons whose rings were simplified one by one by Douglas and Peucker (1973), `tolerance` in px.

    Keeping all rings of a polygon apart at once (`preserve_topology`) takes the square of its vertices and more: 45
    CPU seconds for one of 350,000, where each ring alone takes a tenth of one. Rings seldom come to cross; such a
    polygon is done again with care, or, when it is large, left to be mended.
    """
    if tolerance <= 0 or not len(polygons):
        return polygons
    rings, owner = shapely.get_rings(polygons, return_index=True)
    first = np.r_[True, owner[1:] != owner[:-1]]
    slim = shapely.simplify(rings, tolerance, preserve_topology=False)
    flat = shapely.get_num_coordinates(slim) < LEAST_RING
    slim[first & flat] = rings[first & flat]
    keep = first | ~flat
    result = _polygons(slim[keep], owner[keep], len(polygons))
    careful = ~shapely.is_valid(result) & (shapely.get_num_coordinates(polygons) <= CAREFUL_VERTICES)
    result[careful] = shapely.simplify(polygons[careful], tolerance, preserve_topology=True)
    return result


def _polygons(rings: Polygons, owner: NDArray[np.int64], count: int) -> Polygons:
    """`count` polygons of closed rings; the first ring of each owner is its outline."""
    ends = np.concatenate([[0], np.cumsum(shapely.get_num_coordinates(rings))])
    parts = np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=count))])
    coordinates = shapely.get_coordinates(rings)
    result: Polygons = shapely.from_ragged_array(shapely.GeometryType.POLYGON, coordinates, (ends, parts))
    return result


def _mended(polygons: Polygons) -> Polygons:
    return _mended_of(polygons)[0]


def _mended_of(polygons: Polygons) -> tuple[Polygons, NDArray[np.intp]]:
    """Valid polygons, and of which of the given ones each is (a part)."""
    valid = shapely.is_valid(polygons)
    if not valid.all():
        polygons = polygons.copy()
        polygons[~valid] = shapely.make_valid(polygons[~valid])
    return flattened_of(polygons)


def without_pinholes(polygons: Polygons, min_area: float) -> tuple[Polygons, Polygons]:
    """Each polygon without its holes below `min_area` (px²), and these holes as polygons; in the same order."""
    nothing: Polygons = np.empty(0, dtype=object)
    if not len(polygons):
        return polygons, nothing
    rings, owner = shapely.get_rings(polygons, return_index=True)
    outline = np.r_[True, owner[1:] != owner[:-1]]
    discs: Polygons = np.asarray(shapely.polygons(rings))
    small = ~outline & (shapely.area(discs) < min_area)
    if not small.any():
        return polygons, nothing
    return _polygons(rings[~small], owner[~small], len(polygons)), discs[small]


def covered(polygons: Polygons, discs: Polygons) -> NDArray[np.bool_]:
    """Which polygons lie inside of one of the discs."""
    result: NDArray[np.bool_] = np.zeros(len(polygons), bool)
    if len(discs) and len(polygons):
        inside, _ = shapely.STRtree(discs).query(polygons, predicate="covered_by")
        result[inside] = True
    return result


def fill_small_holes(polygons: Polygons, min_area: float) -> Polygons:
    """Remove the holes below `min_area` (px²) from each polygon; what lay inside of such a hole goes with it."""
    whole, pinholes = without_pinholes(polygons, min_area)
    return whole[~covered(whole, pinholes)]
