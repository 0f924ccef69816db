"""What each region says about itself, read off the probability and uncertainty maps."""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import NamedTuple

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely import Polygon

from wsi_pipeline.raster import fill
from wsi_pipeline.regions.contours import Polygons, ProbabilityMap, pooled
from wsi_pipeline.tiling import BlockGrid, Bounds

# Rows of samples looked at together, so that memory does not grow with the height of a region.
STRIPE = 2048


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


class Sampled(NamedTuple):
    """Values at a rectangle of contour samples, uint8 (height, width) each."""

    probability: NDArray[np.uint8]
    entropy: NDArray[np.uint8]
    mutual_information: NDArray[np.uint8] | None = None


class Samples:
    """Probability of one class, entropy and disagreement at the contour samples, with the blocks of late kept.

    Regions are many and small: without the blocks kept, every one of them would decode its chunks anew.
    """

    def __init__(self, source: ProbabilityMap, channel: int, factor: int, *, keep: int = 32) -> None:
        self._source = source
        self._channel = channel
        self._factor = factor
        self._keep = keep
        self._blocks: OrderedDict[tuple[int, int], Sampled] = OrderedDict()
        _, height, width = source.shape
        self.grid = BlockGrid(-(-width // factor), -(-height // factor), source.block // factor)
        self.scale = source.downsample * factor

    def read(self, bounds: Bounds) -> Sampled:
        """Values of a rectangle inside the sample grid."""
        p = np.zeros((bounds.height, bounds.width), np.uint8)
        h, apart = np.zeros_like(p), None
        side = self.grid.block
        for row in range(bounds.y // side, -(-bounds.bottom // side)):
            for column in range(bounds.x // side, -(-bounds.right // side)):
                block = self.grid.bounds(row, column)
                part = block.within(bounds)
                there = np.s_[part.y - block.y : part.bottom - block.y, part.x - block.x : part.right - block.x]
                here = np.s_[part.y - bounds.y : part.bottom - bounds.y, part.x - bounds.x : part.right - bounds.x]
                known = self._block(row, column)
                p[here], h[here] = known.probability[there], known.entropy[there]
                if known.mutual_information is not None:
                    apart = np.zeros_like(p) if apart is None else apart
                    apart[here] = known.mutual_information[there]
        return Sampled(p, h, apart)

    def _block(self, row: int, column: int) -> Sampled:
        key = (row, column)
        if key not in self._blocks:
            _, height, width = self._source.shape
            samples = self.grid.bounds(row, column)
            bounds = Bounds(*(v * self._factor for v in samples)).within(Bounds(0, 0, width, height))
            apart = self._source.mutual_information(bounds)
            self._blocks[key] = Sampled(
                pooled(self._source.read(self._channel, bounds), self._factor),
                pooled(self._source.uncertainty(bounds), self._factor),
                None if apart is None else pooled(apart, self._factor),
            )
            if len(self._blocks) > self._keep:
                self._blocks.popitem(last=False)
        self._blocks.move_to_end(key)
        return self._blocks[key]


def measure_all(
    source: ProbabilityMap, channel: int, polygons: Polygons, *, factor: int, level: float
) -> list[RegionValues]:
    """`measure` for each polygon, in their order, visiting the map block by block."""
    samples = Samples(source, channel, factor)
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
    """The sample grid's rectangle around the polygon, with a margin of four samples, inside of the map."""
    x, y, right, bottom = shapely.bounds(polygon) / samples.scale
    whole = Bounds(0, 0, samples.grid.width, samples.grid.height)
    box = Bounds(math.floor(x), math.floor(y), max(math.ceil(right), math.floor(x) + 1), math.ceil(bottom))
    return box.grown(4).within(whole)


def _nearest(polygon: Polygon, stripe: Bounds, scale: float) -> NDArray[np.bool_]:
    point = polygon.representative_point()
    mask = np.zeros((stripe.height, stripe.width), bool)
    row = min(max(int(point.y / scale) - stripe.y, 0), stripe.height - 1)
    column = min(max(int(point.x / scale) - stripe.x, 0), stripe.width - 1)
    mask[row, column] = True
    return mask
