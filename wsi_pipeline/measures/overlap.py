"""Areas before and after a correction: kept, removed, added, Dice and IoU; exact on vectors."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

import numpy as np
import shapely
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from shapely import MultiPolygon
from shapely.geometry.base import BaseGeometry

Shapes = NDArray[np.object_]

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
    # Rounding in the overlay must not make more kept than there is.
    return Areas(area_a, area_b, min(shared_area(a, b) * um2, area_a, area_b))


def shared_area(a: BaseGeometry, b: BaseGeometry) -> float:
    """Area of the intersection of two regions (see `region_of`), in px².

    The polygons of a region do not overlap each other, so the areas of all pairs add up; and most polygons of a
    corrected slide are the same on both sides, for which nothing needs to be cut.
    """
    if same_outline(a, b):
        return float(a.area)
    parts_a, parts_b = polygons_of(a), polygons_of(b)
    if not parts_a.size or not parts_b.size:
        return 0.0
    index_b, index_a = shapely.STRtree(parts_a).query(parts_b)
    pairs_a, pairs_b = parts_a[index_a], parts_b[index_b]
    same = shapely.equals_exact(pairs_a, pairs_b, 0.0)
    total = float(shapely.area(pairs_a[same]).sum())
    if not same.all():
        total += float(shapely.area(intersection(pairs_a[~same], pairs_b[~same])).sum())
    return total


def same_outline(a: BaseGeometry, b: BaseGeometry) -> bool:
    """Whether two geometries have the same vertices in the same order, to the last bit."""
    return a is b or bool(a.equals_exact(b, 0.0))


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
    """The union of the regions of several objects, so that what two of them cover counts once.

    Only polygons that meet are overlaid; the others keep their vertices, and hundreds of them cost nothing.
    """
    regions = [region for g in geometries if not (region := region_of(g)).is_empty]
    if not regions:
        return EMPTY
    parts = np.concatenate([polygons_of(region) for region in regions])
    first, second = shapely.STRtree(parts).query(parts, predicate="intersects")
    links = coo_array((np.ones(len(first), bool), (first, second)), shape=(len(parts), len(parts)))
    count, group = connected_components(links, directed=False)
    if count == len(parts):
        return _gathered(parts)
    alone = np.bincount(group)[group] == 1
    joined = [_joined(parts[group == g]) for g in np.unique(group[~alone])]
    found = np.concatenate([parts[alone], *(polygons_of(region) for region in joined)])
    return _gathered(found)


def _gathered(parts: Shapes) -> BaseGeometry:
    """Polygons that do not meet, as one geometry."""
    return parts[0] if len(parts) == 1 else cast(BaseGeometry, shapely.multipolygons(parts))


def _joined(parts: Shapes) -> BaseGeometry:
    try:
        return region_of(shapely.union_all(parts))
    except shapely.GEOSException:
        return region_of(shapely.union_all(parts, grid_size=_RESCUE_GRID))


def intersection(a: Shapes, b: Shapes) -> Shapes:
    """Intersections pair by pair; made again on a grid of 1/1000 px where nearly equal coordinates defeat the first."""
    try:
        return np.asarray(shapely.intersection(a, b), dtype=object)
    except shapely.GEOSException:
        return np.asarray(shapely.intersection(a, b, grid_size=_RESCUE_GRID), dtype=object)


def polygons_of(region: BaseGeometry) -> Shapes:
    """The polygons of a region (see `region_of`), as an array."""
    parts = np.asarray(shapely.get_parts([region]), dtype=object)
    return parts[~shapely.is_empty(parts)]
