"""Where a slide was changed: area of each review tile whose class is another one after the correction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from wsi_pipeline.collect.matching import Change, Pair
from wsi_pipeline.collect.rows import shapes_of
from wsi_pipeline.measures import union_of
from wsi_pipeline.measures.overlap import EMPTY, intersection, polygons_of, region_of
from wsi_pipeline.objects import PathObject
from wsi_pipeline.regions import ReviewTile


@dataclass(frozen=True, slots=True)
class ChangedTile:
    """One row of changed_tiles.parquet: a review tile of a reviewed slide, and what was changed in it.

    Areas in µm²; the other columns are those of the slide's tiles.parquet.
    """

    slide_id: str
    patient: str | None
    batch: str
    rater: str
    source: str
    x: int
    y: int
    width: int
    height: int
    tissue_um2: float
    changed_um2: float
    score: float
    rank: int
    flagged: bool
    audit: bool
    audit_chance: float
    mean_uncertainty: float
    margin: float | None
    confidence: float | None
    out_of_distribution: float | None
    structure_distance: float | None = None


def changed_region(pairs: Sequence[Pair]) -> BaseGeometry:
    """Where the class differs before and after, level-0 px; counted once, whatever changed into what.

    Per class: what lies in one of the unions before and after, not in both. Regions that were left alone take part only
    where something that was changed reaches into them.
    """
    before: dict[str, dict[str, BaseGeometry | None]] = {}
    after: dict[str, dict[str, BaseGeometry | None]] = {}
    alone: dict[str, list[BaseGeometry]] = {}
    for pair in pairs:
        first, second = shapes_of(pair)
        if pair.change is Change.UNTOUCHED and pair.before is not None:
            alone.setdefault(_class(pair.before), []).append(region_of(first))
            continue
        for side, item, shape in ((before, pair.before, first), (after, pair.after, second)):
            if item is not None:
                side.setdefault(_class(item), {})[item.uuid] = shape
    found = []
    for name in sorted({*before, *after}):
        one, other = (union_of(side.get(name, {}).values()) for side in (before, after))
        found.append(_without(_difference(one, other), alone.get(name, [])))
    return union_of(found)


def _class(item: PathObject) -> str:
    return item.path_class or ""


def _difference(one: BaseGeometry, other: BaseGeometry) -> BaseGeometry:
    try:
        return region_of(shapely.symmetric_difference(one, other))
    except shapely.GEOSException:
        return region_of(shapely.symmetric_difference(one, other, grid_size=1e-3))


def _without(region: BaseGeometry, alone: Sequence[BaseGeometry]) -> BaseGeometry:
    if region.is_empty or not alone:
        return region
    near = shapely.STRtree(alone).query(region, predicate="intersects")
    if not near.size:
        return region
    there = union_of(alone[i] for i in sorted(near.tolist()))
    try:
        return region_of(shapely.difference(region, there))
    except shapely.GEOSException:
        return region_of(shapely.difference(region, there, grid_size=1e-3))


def area_in(region: BaseGeometry, tiles: Sequence[ReviewTile]) -> NDArray[np.float64]:
    """Area of the region in each tile, level-0 px²."""
    total = np.zeros(len(tiles))
    parts = polygons_of(region) if not region.is_empty else polygons_of(EMPTY)
    if not parts.size or not tiles:
        return total
    corners = np.array([(t.x, t.y, t.x + t.width, t.y + t.height) for t in tiles], dtype=np.float64)
    boxes = np.asarray(shapely.box(*corners.T), dtype=object)
    part, box = shapely.STRtree(boxes).query(parts, predicate="intersects")
    np.add.at(total, box, shapely.area(intersection(parts[part], boxes[box])))
    return total


TYPES: dict[str, pa.DataType] = {
    **dict.fromkeys(("slide_id", "patient", "batch", "rater", "source"), pa.string()),
    **dict.fromkeys(("x", "y", "width", "height"), pa.int64()),
    **dict.fromkeys(("tissue_um2", "changed_um2", "score"), pa.float64()),
    "rank": pa.int32(),
    **dict.fromkeys(("flagged", "audit"), pa.bool_()),
    **dict.fromkeys(("audit_chance", "mean_uncertainty", "margin", "confidence", "out_of_distribution"), pa.float64()),
    "structure_distance": pa.float64(),
}
