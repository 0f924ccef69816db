"""Which of a newer model's predictions a person has settled already: they are not handed out over that work."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from wsi_pipeline.measures import compare_areas, region_of, union_of
from wsi_pipeline.objects import Kind, PathObject

# A prediction is in a person's region when this share of it is, and says the same when their IoU is as much.
MOSTLY = 0.5


def without_settled(
    incoming: Iterable[PathObject], work: Sequence[PathObject], decided: Sequence[PathObject]
) -> list[PathObject]:
    """The predictions that add something to what a person did; everything in level-0 px.

    Left out is what lies mostly in annotations of its class that a person drew or changed, and what is the same region
    as one that a person changed in any way or deleted, as it is now or as it was handed out: it would be drawn twice,
    or come back. A review tile is left out where one of the same square was judged.

    Parameters
    ----------
    work
        Objects in the project that are not untouched predictions.
    decided
        Earlier predictions that a person changed or took away, as they were handed out.
    """
    judged = {_square(o) for o in work if o.kind is Kind.TILE}
    drawn = [o for o in work if o.kind is Kind.ANNOTATION]
    settled = [*drawn, *(o for o in decided if o.kind is Kind.ANNOTATION)]
    shapes = np.array([*(region_of(o.geometry) for o in settled), None], dtype=object)[:-1]
    tree = shapely.STRtree(shapes)
    left = []
    for item in incoming:
        if item.kind is not Kind.ANNOTATION:
            if item.kind is not Kind.TILE or _square(item) not in judged:
                left.append(item)
            continue
        region = region_of(item.geometry)
        near = [int(i) for i in tree.query(region, predicate="intersects")]
        own = [shapes[i] for i in near if i < len(drawn) and drawn[i].path_class == item.path_class]
        if _covered(region, own) or any(compare_areas(region, shapes[i], 1.0).iou >= MOSTLY for i in near):
            continue
        left.append(item)
    return left


def _square(tile: PathObject) -> tuple[int, ...] | None:
    return None if tile.geometry is None else tuple(round(v) for v in tile.geometry.bounds)


def _covered(region: BaseGeometry, shapes: Sequence[BaseGeometry]) -> bool:
    areas = compare_areas(region, union_of(shapes), 1.0)
    return bool(shapes) and areas.kept >= MOSTLY * areas.before
