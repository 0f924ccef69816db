"""Regions the plain way: one class after the other, all blocks at once, every step on all polygons together.

What `wsi_pipeline.regions.tracing` gives block by block, in whatever order, must be this to the last bit.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import shapely
from numpy.typing import NDArray

from wsi_pipeline.regions.contours import (
    Polygons,
    ProbabilityMap,
    block_contours,
    clipped,
    level_of,
    ordered,
    pooled,
)
from wsi_pipeline.regions.measurements import RegionValues, measure
from wsi_pipeline.regions.samples import Samples
from wsi_pipeline.regions.shapes import ShapeRules, tidy
from wsi_pipeline.tiling import BlockGrid, Bounds


def plain_regions(
    source: ProbabilityMap, channel: int, threshold: float, factor: int, rules: ShapeRules
) -> tuple[Polygons, list[RegionValues]]:
    """Polygons that are handed out, and their values."""
    polygons = tidy(class_polygons(source, channel, threshold, factor), rules)
    samples = Samples(source, channel, factor)
    return polygons, [measure(samples, polygon, level=level_of(threshold)) for polygon in polygons]


def class_polygons(source: ProbabilityMap, channel: int, threshold: float, factor: int) -> Polygons:
    """Raw polygons of a class in level-0 px: disjoint, valid, in a fixed order, clipped to the slide."""
    pieces: list[Polygons] = []
    on_seam: list[Polygons] = []
    for core, samples in _with_neighbours(source, channel, factor):
        polygons, touches = block_contours(samples, core, source, level=level_of(threshold), factor=factor)
        pieces.append(polygons[~touches])
        on_seam.append(polygons[touches])
    if sum(map(len, on_seam)):
        pieces.append(shapely.get_parts(shapely.union_all(np.concatenate(on_seam))))
    return ordered(clipped(np.concatenate(pieces), source.size))


def _with_neighbours(source: ProbabilityMap, channel: int, factor: int) -> Iterator[tuple[Bounds, NDArray[np.uint8]]]:
    """Each block with its samples and the first ones of its right, lower and diagonal neighbours."""
    _, height, width = source.shape
    whole = pooled(source.read(channel, Bounds(0, 0, width, height)), factor)
    grid = BlockGrid(width, height, source.block)
    for block in grid:
        core = grid.bounds(*block)
        y, x = core.y // factor, core.x // factor
        bottom, right = (-(-end // factor) + 1 for end in (core.bottom, core.right))
        yield core, whole[y:bottom, x:right]
