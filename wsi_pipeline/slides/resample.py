"""Averaging pixels down to a coarser grid, so that the result does not depend on how the slide was cut.

Pillow's BOX takes whole source pixels or leaves them out, decided in float32 relative to the crop: at ratios like
2.37 the same pixel came out up to 18/255 different from another rectangle. Here each target pixel is the mean over
its own area, with weights computed in float64 from its place in the slide.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wsi_pipeline.tiling import Bounds

# Target rows made together: so few that turning them around stays within the processor's cache.
STRIP = 48
# Values that are added up together, for the same reason.
CACHED = 2**17
# Pixels of a level that are read together for a thumbnail; bounds its memory.
PIECE_PIXELS = 4 * 2**20


def source_of(target: Bounds, ratio: float) -> Bounds:
    """The source pixels that `target` (pixels of the coarser grid, `ratio` source pixels each) touches."""
    low = (math.floor(v * ratio + 1e-9) for v in target[:2])
    high = (math.ceil(v * ratio - 1e-9) for v in target[2:])
    return Bounds(*low, *high)


def shrink(pixels: NDArray[np.uint8], target: Bounds, ratio: float) -> NDArray[np.uint8]:
    """Mean over the area of each target pixel.

    Parameters
    ----------
    pixels
        uint8 (h, w, 3): the pixels of `source_of(target, ratio)`.
    target
        In pixels of the coarser grid, anchored at the slide's corner.
    ratio
        Source pixels to a target pixel, above 1.

    Returns
    -------
    uint8 (target.height, target.width, 3)
    """
    whole = round(ratio)
    if abs(ratio - whole) < 1e-9 and whole.bit_count() == 1:
        # Blocks of whole pixels: with powers of two Pillow's fixed-point division is exact (by 3 or 5 it is not).
        return np.array(Image.fromarray(pixels).reduce(whole))
    source = source_of(target, ratio)
    across = _weights(target.x, target.right, source.x, source.right, ratio)
    out = np.empty((target.height, target.width, 3), np.uint8)
    for top in range(target.y, target.bottom, STRIP):
        bottom = min(top + STRIP, target.bottom)
        part = source_of(Bounds(0, top, 1, bottom), ratio)
        down = _weights(top, bottom, part.y, part.bottom, ratio)
        rows = pixels[part.y - source.y : part.bottom - source.y]
        out[top - target.y : bottom - target.y] = np.rint(_weighted(rows, down, across))
    return out


def reduced(
    size: tuple[int, int],
    target: tuple[int, int],
    tile: tuple[int, int],
    read: Callable[[Bounds], NDArray[np.uint8]],
) -> NDArray[np.uint8]:
    """A whole picture made small, read in pieces of whole tiles: each tile once, memory bounded.

    Parameters
    ----------
    size
        Width and height of the picture.
    target
        Width and height of the result; not larger.
    tile
        Height and width of the tiles in which the picture is best read.
    read
        Pixels of a rectangle, uint8 (h, w, 3).

    Returns
    -------
    uint8 (target height, target width, 3); each pixel the mean over its own area, whose border may be off by a
    quarter of a target pixel when the picture is made more than eight times smaller.
    """
    ratio = size[0] / target[0], size[1] / target[1]
    # Whole numbers of pixels are added up first, as far as their grid is the tiles' grid: that is several times faster.
    whole = _power_of_two(min(ratio) / 4, tile)
    sums = np.zeros((target[1], target[0], 3), np.float32)
    for piece in _pieces(size, tile):
        pixels = read(piece)
        if whole > 1:
            pixels = np.asarray(Image.fromarray(pixels).reduce(whole))
        x, y = piece.x // whole, piece.y // whole
        right, bottom = x + pixels.shape[1], y + pixels.shape[0]
        left, end = _touched(x, right, ratio[0] / whole, target[0])
        top, low = _touched(y, bottom, ratio[1] / whole, target[1])
        across = _weights(left, end, x, right, ratio[0] / whole)
        for first in range(top, low, STRIP):
            last = min(first + STRIP, low)
            sums[first:last, left:end] += _weighted(pixels, _weights(first, last, y, bottom, ratio[1] / whole), across)
    return np.rint(sums, out=sums).astype(np.uint8)


def _power_of_two(limit: float, tile: tuple[int, int]) -> int:
    """The largest power of two that is at most `limit` and divides both sides of a tile."""
    whole = 1
    while whole * 2 <= limit and tile[0] % (whole * 2) == 0 and tile[1] % (whole * 2) == 0:
        whole *= 2
    return whole


def _pieces(size: tuple[int, int], tile: tuple[int, int]) -> Iterator[Bounds]:
    columns = max(1, min(-(-size[0] // tile[1]), PIECE_PIXELS // (tile[0] * tile[1])))
    rows = max(1, PIECE_PIXELS // (tile[0] * tile[1] * columns))
    height, width = rows * tile[0], columns * tile[1]
    for y in range(0, size[1], height):
        for x in range(0, size[0], width):
            yield Bounds(x, y, min(x + width, size[0]), min(y + height, size[1]))


def _touched(first: int, end: int, ratio: float, length: int) -> tuple[int, int]:
    """First and end of the target pixels, of `length`, that source pixels `first` to `end` touch."""
    return math.floor(first / ratio), min(length, math.ceil(end / ratio))


def _weighted(pixels: NDArray[np.uint8], down: Weights, across: Weights) -> NDArray[np.float32]:
    """Sums over columns and rows of `pixels` with the weights of each target pixel: float32 (rows, columns, 3)."""
    height, width = pixels.shape[:2]
    squeezed = down.sums(pixels.reshape(height, -1))
    rows = squeezed.shape[0]
    turned = squeezed.reshape(rows, width, 3).transpose(1, 0, 2).reshape(width, -1)
    result: NDArray[np.float32] = across.sums(turned).reshape(-1, rows, 3).transpose(1, 0, 2)
    return result


class Weights(NamedTuple):
    """How much each source pixel counts in each target pixel, along one side.

    Attributes
    ----------
    source
        int64 (targets, most): the source pixels of each target; those that are none have weight 0.
    weight
        float32 (targets, most): share of the target's length.
    """

    source: NDArray[np.int64]
    weight: NDArray[np.float32]

    def sums(self, values: NDArray[np.uint8] | NDArray[np.float32]) -> NDArray[np.float32]:
        """Weighted sums of the rows of `values` (sources, n): float32 (targets, n), added up in the rows' order."""
        total = np.zeros((len(self.source), values.shape[1]), np.float32)
        rows = max(1, CACHED // max(1, values.shape[1]))
        part = np.empty((min(rows, len(total)), values.shape[1]), np.float32)
        for top in range(0, len(total), rows):
            some = total[top : top + rows]
            for source, weight in zip(self.source[top : top + rows].T, self.weight[top : top + rows].T, strict=True):
                some += np.multiply(values[source], weight[:, None], out=part[: len(some)])
        return total


def _weights(first: int, end: int, source_first: int, source_end: int, ratio: float) -> Weights:
    """Those of the target pixels `first` to `end`, on the source pixels `source_first` to `source_end`.

    What a target pixel has beyond the source pixels that are there is left out.
    """
    index = np.arange(first, end, dtype=np.float64)
    low, high = (index * ratio)[:, None], ((index + 1) * ratio)[:, None]
    start = np.maximum(np.floor(low + 1e-9).astype(np.int64), source_first)
    stop = np.minimum(np.ceil(high - 1e-9).astype(np.int64), source_end)
    source = start + np.arange(max(0, int((stop - start).max(initial=0))))
    overlap = np.minimum(high, source + 1.0) - np.maximum(low, source)
    weight = np.where(source < stop, overlap / ratio, 0).astype(np.float32)
    return Weights(np.minimum(source, source_end - 1) - source_first, weight)
