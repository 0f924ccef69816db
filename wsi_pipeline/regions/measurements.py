"""What each region says about itself, read off the probability and uncertainty maps."""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely import Polygon

from wsi_pipeline.raster import fill
from wsi_pipeline.regions.contours import Polygons
from wsi_pipeline.regions.samples import Samples
from wsi_pipeline.tiling import Bounds

# Rows of samples looked at together, so that memory does not grow with the height of a region.
STRIPE = 2048
MARGIN: Final = 4
"""Samples around a region's rectangle that are looked at with it."""


class RegionValues(NamedTuple):
    """Values of one region; probabilities and entropy from 0 to 1.

    `confidence` is the soft Dice 2 Σpy / (Σp + Σy), y the region, p summed over the region and a margin
    around it without other regions of the class: low where much probability lies outside, or little inside
    (after Borges et al. 2024, soft Dice confidence, there over a whole image). `margin` is the mean of |2p − 1|, the
    class against all else. `mean_mutual_information` is None where each place was predicted once.
    """

    mean_probability: float
    min_probability: float
    mean_entropy: float
    confidence: float
    margin: float
    mean_mutual_information: float | None = None


def measure_all(samples: Samples, polygons: Polygons, *, level: float) -> list[RegionValues]:
    """`measure` for each polygon, in their order, visiting the map block by block."""
    if not len(polygons):
        return []
    corner = shapely.bounds(polygons)[:, :2] // (samples.scale * samples.grid.block)
    values: dict[int, RegionValues] = {}
    for i in np.lexsort((corner[:, 0], corner[:, 1])):
        values[int(i)] = measure(samples, polygons[i], level=level)
    return [values[i] for i in range(len(polygons))]


def measure(samples: Samples, polygon: Polygon, *, level: float) -> RegionValues:
    """Values at the contour samples whose centre lies inside of `polygon` (level-0 px).

    A region too slim to hold any centre is sampled at the one nearest to its representative point.
    """
    box = _samples_around(polygon, samples)
    inside, total, entropy, apart, lowest, count = 0.0, 0.0, 0.0, 0.0, 255, 0
    information: float | None = None
    for top in range(box.y, box.bottom, STRIPE):
        stripe = Bounds(box.x, top, box.right, min(top + STRIPE, box.bottom))
        p, h, disagreement = samples.read(stripe)
        y = fill(polygon, stripe, samples.scale)
        if box.height <= STRIPE and not y.any():
            y = _nearest(polygon, stripe, samples.scale)
        values = p[y]
        inside += float(values.sum(dtype=np.float64))
        entropy += float(h[y].sum(dtype=np.float64))
        apart += float(np.abs(2 * values.astype(np.int16) - 255).sum(dtype=np.float64))
        if disagreement is not None:
            information = (information or 0.0) + float(disagreement[y].sum(dtype=np.float64))
        count += int(y.sum())
        lowest = min(lowest, int(values.min(initial=255)))
        total += float(p[y | (p < level)].sum(dtype=np.float64))
    if count == 0:
        return RegionValues(math.nan, math.nan, math.nan, math.nan, math.nan)
    return RegionValues(
        mean_probability=inside / count / 255,
        min_probability=lowest / 255,
        mean_entropy=entropy / count / 255,
        confidence=2 * inside / (total + 255.0 * count),
        margin=apart / count / 255,
        mean_mutual_information=None if information is None else information / count / 255,
    )


def _samples_around(polygon: Polygon, samples: Samples) -> Bounds:
    """The sample grid's rectangle around the polygon, with `MARGIN` around it, inside of the map."""
    x, y, right, bottom = shapely.bounds(polygon) / samples.scale
    whole = Bounds(0, 0, samples.grid.width, samples.grid.height)
    box = Bounds(math.floor(x), math.floor(y), max(math.ceil(right), math.floor(x) + 1), math.ceil(bottom))
    return box.grown(MARGIN).within(whole)


def _nearest(polygon: Polygon, stripe: Bounds, scale: float) -> NDArray[np.bool_]:
    point = polygon.representative_point()
    mask = np.zeros((stripe.height, stripe.width), bool)
    row = min(max(int(point.y / scale) - stripe.y, 0), stripe.height - 1)
    column = min(max(int(point.x / scale) - stripe.x, 0), stripe.width - 1)
    mask[row, column] = True
    return mask
