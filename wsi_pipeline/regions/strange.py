"""Regions learn from the review tiles that they lie in how unlike the training slides their place looks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import shapely

from wsi_pipeline.objects import PathObject
from wsi_pipeline.regions.tiles import ReviewTile

MEASUREMENT = "Out of distribution"
STRUCTURE = "Out of distribution: structure"


def with_strangeness(regions: Sequence[PathObject], tiles: Sequence[ReviewTile]) -> list[PathObject]:
    """The regions with the means of their tiles' values, by the area in each; without them where no tile has one."""
    found = _with_mean(regions, [(t, t.out_of_distribution) for t in tiles], MEASUREMENT)
    return _with_mean(found, [(t, t.structure_distance) for t in tiles], STRUCTURE)


def _with_mean(
    regions: Sequence[PathObject], values_of: Sequence[tuple[ReviewTile, float | None]], name: str
) -> list[PathObject]:
    known = [(t, value) for t, value in values_of if value is not None]
    if not known or not regions:
        return list(regions)
    corners = np.array([(t.x, t.y, t.x + t.width, t.y + t.height) for t, _ in known], dtype=np.float64)
    boxes = np.asarray(shapely.box(*corners.T), dtype=object)
    shapes = np.array([*(r.geometry for r in regions), None], dtype=object)[:-1]
    region, box = shapely.STRtree(boxes).query(shapes, predicate="intersects")
    x, y, right, bottom = corners[box].T
    # Clipping to a rectangle: many times as fast as an intersection, and exact.
    areas = np.array(
        [
            shapely.clip_by_rect(shapes[r], *b).area
            for r, b in zip(region, zip(x, y, right, bottom, strict=True), strict=True)
        ]
    )
    values = np.array([value for _, value in known], np.float64)
    whole = np.bincount(region, weights=areas, minlength=len(regions))
    total = np.bincount(region, weights=areas * values[box], minlength=len(regions))
    return [
        replace(r, measurements={**r.measurements, name: round(float(total[i] / whole[i]), 4)}) if whole[i] > 0 else r
        for i, r in enumerate(regions)
    ]
