"""Averaging pixels down to a coarser grid, so that the result does not depend on how the slide was cut.

Pillow's BOX takes whole source pixels or leaves them out, decided in float32 relative to the crop: at ratios like
2.37 the same pixel came out up to 18/255 different from another rectangle. Here each target pixel is the mean over
its own area, with weights computed in float64 from its place in the slide.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from wsi_pipeline.tiling import Bounds

# Target rows made together; bounds the floating-point copies.
STRIP = 256


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
    if abs(ratio - whole) < 1e-9:
        return _by_whole(pixels, whole)
    source = source_of(target, ratio)
    across = _weights(target.x, target.right, source.x, source.right, ratio)
    out = np.empty((target.height, target.width, 3), np.uint8)
    for top in range(target.y, target.bottom, STRIP):
        bottom = min(top + STRIP, target.bottom)
        part = source_of(Bounds(0, top, 1, bottom), ratio)
        down = _weights(top, bottom, part.y, part.bottom, ratio)
        rows = pixels[part.y - source.y : part.bottom - source.y].reshape(part.height, -1).astype(np.float32)
        squeezed = (down @ rows).reshape(bottom - top, source.width, 3).transpose(1, 0, 2).reshape(source.width, -1)
        mean = (across @ squeezed).reshape(target.width, bottom - top, 3).transpose(1, 0, 2)
        out[top - target.y : bottom - target.y] = np.rint(mean)
    return out


def _by_whole(pixels: NDArray[np.uint8], ratio: int) -> NDArray[np.uint8]:
    height, width = pixels.shape[0] // ratio, pixels.shape[1] // ratio
    sums = np.zeros((height, width, 3), np.uint32)
    for y in range(ratio):
        for x in range(ratio):
            sums += pixels[y::ratio, x::ratio]
    n = ratio * ratio
    return ((sums + n // 2) // n).astype(np.uint8)


def _weights(first: int, end: int, source_first: int, source_end: int, ratio: float) -> csr_array:
    """Rows: target pixels `first` to `end`; columns: source pixels; entries: share of the target's length."""
    index = np.arange(first, end, dtype=np.float64)
    low, high = index * ratio, (index + 1) * ratio
    start = np.floor(low + 1e-9).astype(np.int64)
    count = np.ceil(high - 1e-9).astype(np.int64) - start
    row = np.repeat(np.arange(len(index)), count)
    column = start[row] + np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)
    overlap = np.minimum(high[row], column + 1.0) - np.maximum(low[row], column)
    weight = (overlap / ratio).astype(np.float32)
    return csr_array((weight, (row, column - source_first)), shape=(end - first, source_end - source_first))
