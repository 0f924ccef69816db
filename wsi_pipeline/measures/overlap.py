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
from shapely import GeometryType, MultiPolygon
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
    return compare_many_areas([(before, after)], mpp)[0]


def compare_many_areas(pairs: Iterable[tuple[BaseGeometry | None, BaseGeometry | None]], mpp: float) -> list[Areas]:
    """Compare many pairs of regions: the same as `compare_areas` of each."""
    before, after = sides_of(pairs)
    area_a, area_b, shared = (
        px2 * (mpp * mpp) for px2 in (*map(shapely.area, (before, after)), _shared(before, after))
    )
    # Rounding in the overlay must not make more kept than there is.
    kept = np.minimum(shared, np.minimum(area_a, area_b))
    return [Areas(*row) for row in zip(area_a.tolist(), area_b.tolist(), kept.tolist(), strict=True)]


def sides_of(pairs: Iterable[tuple[BaseGeometry | None, BaseGeometry | None]]) -> tuple[Shapes, Shapes]:
    """The regions of pairs of geometries: those before, those after."""
    both = [shape for pair in pairs for shape in pair]
    regions = regions_of(both)
    return regions[::2], regions[1::2]


def _shared(before: Shapes, after: Shapes) -> NDArray[np.float64]:
    """Area of the intersection of each pair of regions (see `region_of`), in px².

    The polygons of a region do not overlap each other, so the areas of all pairs add up; and most polygons of a
    corrected slide are the same on both sides, for which nothing needs to be cut.
    """
    alike = shapely.equals_exact(before, after, 0.0)
    total = np.where(alike, shapely.area(before), 0.0)
    a, b = (Polygons.of(side).of_regions(~alike) for side in (before, after))
    first, second = a.meeting(b)
    shapes_a, shapes_b, region = a.shapes[first], b.shapes[second], a.region[first]
    same = shapely.equals_exact(shapes_a, shapes_b, 0.0)
    area = np.empty(len(region))
    area[same] = shapely.area(shapes_a[same])
    area[~same] = shapely.area(intersection(shapes_a[~same], shapes_b[~same]))
    np.add.at(total, region, area)
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


def regions_of(geometries: Iterable[BaseGeometry | None]) -> Shapes:
    """The region of each geometry, see `region_of`."""
    found = as_array(geometries)
    kind = shapely.get_type_id(found)
    areal = (kind == GeometryType.POLYGON) | (kind == GeometryType.MULTIPOLYGON)
    for index in np.flatnonzero(~areal | ~shapely.is_valid(found) | shapely.is_empty(found)):
        found[index] = region_of(found[index])
    return found


def union_of(geometries: Iterable[BaseGeometry | None]) -> BaseGeometry:
    """The union of the regions of several objects, so that what two of them cover counts once.

    Only polygons that meet are overlaid; the others keep their vertices, and hundreds of them cost nothing.
    """
    parts = Polygons.of(regions_of(geometries)).shapes
    if not parts.size:
        return EMPTY
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
    return Polygons.of(as_array([region])).shapes


def as_array(shapes: Iterable[BaseGeometry | None]) -> Shapes:
    """Geometries as an array of objects, of whatever number and kind they are."""
    return np.array([*shapes, None], dtype=object)[:-1]


@dataclass(frozen=True, slots=True)
class Polygons:
    """Polygons of many regions, and the number of the region that each belongs to; in the order of the regions."""

    shapes: Shapes
    region: NDArray[np.intp]

    @classmethod
    def of(cls, regions: Shapes) -> Polygons:
        """Of regions as `region_of` gives them."""
        shapes, region = shapely.get_parts(regions, return_index=True)
        return cls(np.asarray(shapes, dtype=object), region).only(~shapely.is_empty(shapes))

    def only(self, chosen: NDArray[np.bool_]) -> Polygons:
        return Polygons(self.shapes[chosen], self.region[chosen])

    def of_regions(self, chosen: NDArray[np.bool_]) -> Polygons:
        """All polygons of the chosen regions."""
        return self.only(chosen[self.region])

    def meeting(self, other: Polygons) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Which polygons (index here, index there) of the same region have boxes that meet."""
        single = np.intersect1d(_alone(self.region), _alone(other.region), assume_unique=True)
        first = [np.searchsorted(self.region, single)]
        second = [np.searchsorted(other.region, single)]
        for region in np.setdiff1d(np.intersect1d(self.region, other.region), single, assume_unique=True):
            here, there = np.flatnonzero(self.region == region), np.flatnonzero(other.region == region)
            index_there, index_here = shapely.STRtree(self.shapes[here]).query(other.shapes[there])
            first.append(here[index_here])
            second.append(there[index_there])
        return np.concatenate(first), np.concatenate(second)

    def __add__(self, other: Polygons) -> Polygons:
        return Polygons(np.append(self.shapes, other.shapes), np.append(self.region, other.region))


def _alone(region: NDArray[np.intp]) -> NDArray[np.intp]:
    """Regions that have a single polygon."""
    found, count = np.unique(region, return_counts=True)
    single: NDArray[np.intp] = found[count == 1]
    return single
