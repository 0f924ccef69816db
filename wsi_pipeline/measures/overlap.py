"""Areas before and after a correction: kept, removed, added, Dice and IoU; exact on vectors."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import shapely
from shapely import MultiPolygon
from shapely.geometry.base import BaseGeometry

EMPTY: BaseGeometry = MultiPolygon()

# Where an overlay fails on coordinates that nearly coincide, it is made again on this grid, in px.
_RESCUE_GRID = 1e-3


@dataclass(frozen=True, slots=True)
class Areas:
    """Areas in µm²: of the region before, of the region after, and of what they share.

    Areas of several slides, objects or classes are pooled by `+`.
    """

    before: float = 0.0
    after: float = 0.0
    kept: float = 0.0

    @property
    def removed(self) -> float:
        """Before, not after."""
        return max(0.0, self.before - self.kept)

    @property
    def added(self) -> float:
        """After, not before."""
        return max(0.0, self.after - self.kept)

    @property
    def dice(self) -> float:
        """2 |A ∩ B| / (|A| + |B|); 1 when both are empty, 0 when one of them is (Dice 1945, Sørensen 1948)."""
        whole = self.before + self.after
        return 2.0 * self.kept / whole if whole > 0 else 1.0

    @property
    def iou(self) -> float:
        """|A ∩ B| / |A ∪ B|; 1 when both are empty, 0 when one of them is (Jaccard 1901)."""
        union = self.before + self.after - self.kept
        return self.kept / union if union > 0 else 1.0

    def __add__(self, other: Areas) -> Areas:
        return Areas(self.before + other.before, self.after + other.after, self.kept + other.kept)


def compare_areas(before: BaseGeometry | None, after: BaseGeometry | None, mpp: float) -> Areas:
    """Areas of two regions and of their intersection, computed on the vectors.

    Parameters
    ----------
    before, after
        In level-0 px; None stands for nothing. Lines and points have no area. Invalid polygons are repaired.
    mpp
        µm per level-0 px.
    """
    a, b = region_of(before), region_of(after)
    um2 = mpp * mpp
    area_a, area_b = float(a.area) * um2, float(b.area) * um2
    if a is b or a.equals_exact(b, 0.0):
        return Areas(area_a, area_a, area_a)
    # Rounding in the overlay must not make more kept than there is.
    kept = min(float(intersection(a, b).area) * um2, area_a, area_b)
    return Areas(area_a, area_b, kept)


def region_of(geometry: BaseGeometry | None) -> BaseGeometry:
    """The part of a geometry that has an area, valid: a Polygon or MultiPolygon, empty when there is none.

    A self-crossing outline is taken by its structure, as `shapely.make_valid(method="structure")` does; buffer(0)
    would drop a half of a bow-tie.
    """
    if geometry is None or geometry.is_empty or shapely.get_dimensions(geometry) < 2:
        return EMPTY
    if not geometry.is_valid:
        geometry = shapely.make_valid(geometry, method="structure", keep_collapsed=False)
    if geometry.geom_type in {"Polygon", "MultiPolygon"}:
        return geometry
    parts = [p for p in shapely.get_parts(shapely.get_parts(geometry)) if p.geom_type == "Polygon" and p.area > 0]
    return shapely.union_all(parts) if parts else EMPTY


def union_of(geometries: Iterable[BaseGeometry | None]) -> BaseGeometry:
    """The union of the regions of several objects, so that what two of them cover counts once."""
    parts = [region for g in geometries if not (region := region_of(g)).is_empty]
    if not parts:
        return EMPTY
    try:
        return region_of(shapely.union_all(parts))
    except shapely.GEOSException:
        return region_of(shapely.union_all(parts, grid_size=_RESCUE_GRID))


def intersection(a: BaseGeometry, b: BaseGeometry) -> BaseGeometry:
    """The intersection; made again on a grid of 1/1000 px where coordinates that nearly coincide defeat the first."""
    try:
        return a.intersection(b)
    except shapely.GEOSException:
        return a.intersection(b, grid_size=_RESCUE_GRID)


def polygons_of(geometry: BaseGeometry) -> np.ndarray[tuple[int], np.dtype[np.object_]]:
    """The polygons of a region (see `region_of`), as an array."""
    parts = np.atleast_1d(np.asarray(shapely.get_parts(geometry), dtype=object))
    return parts[~shapely.is_empty(parts)] if parts.size else parts
