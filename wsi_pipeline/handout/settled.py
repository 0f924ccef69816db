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
    incoming: Iterable[PathObject], work: Sequence[PathObject], deleted: Sequence[PathObject]
) -> list[PathObject]:
    """The predictions that add something to what a person did; everything in level-0 px.

    Left out is what lies mostly in annotations of its class that a person drew or changed, and what is the same region
    as one that a person changed in any way or deleted: it would be drawn twice, or come back.

    Parameters
    ----------
    work
        Annotations in the project that are not untouched predictions.
    deleted
        Earlier predictions that a person took away.
    """
    settled = [o for o in (*work, *deleted) if o.kind is Kind.ANNOTATION]
    shapes = np.array([*(region_of(o.geometry) for o in settled), None], dtype=object)[:-1]
    if not len(shapes):
        return list(incoming)
    drawn = {o.uuid for o in work}
    tree = shapely.STRtree(shapes)
    left = []
    for item in incoming:
        region = region_of(item.geometry)
        near = [int(i) for i in tree.query(region, predicate="intersects")] if item.kind is Kind.ANNOTATION else []
        own = [shapes[i] for i in near if settled[i].uuid in drawn and settled[i].path_class == item.path_class]
        if _covered(region, own) or any(compare_areas(region, shapes[i], 1.0).iou >= MOSTLY for i in near):
            continue
        left.append(item)
    return left


def _covered(region: BaseGeometry, shapes: Sequence[BaseGeometry]) -> bool:
    areas = compare_areas(region, union_of(shapes), 1.0)
    return bool(shapes) and areas.kept >= MOSTLY * areas.before
