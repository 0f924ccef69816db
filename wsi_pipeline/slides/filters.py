"""Filters of pictures: what lies beyond the edge is taken to be the picture's mirror image.

They give what the filters of scipy.ndimage give (the tests compare), without the third of a second
that loading it takes at every start, and work on few rows at a time: what is computed stays in the processor's cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Image = TypeVar("Image", NDArray[np.float32], NDArray[np.uint8])

ROWS = 32
"""Rows that are filtered together."""


def gaussian(image: Floats, sigma: float) -> Floats:
    """Gaussian smoothing, cut off at 4 sigma; float32 (h, w)."""
    radius = int(4 * sigma + 0.5)
    bell = np.exp(-0.5 * (np.arange(radius + 1) / sigma) ** 2)
    weights = bell / (2 * bell[1:].sum() + bell[0])

    def along(padded: Doubles) -> Doubles:
        """Along the first axis, from pictures that have `radius` more on each side."""
        length = len(padded) - 2 * radius
        total: Doubles = padded[radius : radius + length] * weights[0]
        for step in range(radius, 0, -1):
            before, after = padded[radius - step :][:length], padded[radius + step :][:length]
            total += (before + after) * weights[step]
        return total

    return _separable(image, radius, along)


def mean(image: Floats, radius: int) -> Floats:
    """Mean of the (2 radius + 1)² pixels around each; float32 (h, w)."""
    side = 2 * radius + 1

    def along(padded: Doubles) -> Doubles:
        length = len(padded) - 2 * radius
        total = padded[:length].copy()
        for step in range(1, side):
            total += padded[step : step + length]
        return total / side

    return _separable(image, radius, along)


def mean_of_bytes(image: NDArray[np.uint8], radius: int) -> NDArray[np.uint8]:
    """As `mean`, uint8 (h, w), rounded down after columns and after rows."""
    side = 2 * radius + 1

    def along(padded: NDArray[np.uint8]) -> NDArray[np.uint8]:
        sums = np.cumsum(padded, axis=0, dtype=np.uint32)
        inside = sums[side - 1 :].copy()
        inside[1:] -= sums[:-side]
        return (inside // side).astype(np.uint8)

    out = np.empty_like(image)
    for rows, around in _strips(image, radius, ROWS * 8):
        sideways = np.pad(along(around).T, ((radius, radius), (0, 0)), mode="symmetric")
        out[rows] = along(sideways).T
    return out


def _separable(image: Floats, radius: int, along: Callable[[Doubles], Doubles]) -> Floats:
    """Filter along columns, round to float32, then along rows; computed in float64."""
    out = np.empty_like(image)
    for rows, around in _strips(image, radius, ROWS):
        down = along(around.astype(np.float64)).astype(np.float32)
        sideways = np.pad(down.astype(np.float64), ((0, 0), (radius, radius)), mode="symmetric")
        out[rows] = along(sideways.T).T
    return out


def _strips(image: Image, radius: int, length: int) -> Iterator[tuple[slice, Image]]:
    """`length` rows after the other: which they are, and their pixels with `radius` rows more above and below."""
    height = len(image)
    mirrored = np.pad(np.arange(height), radius, mode="symmetric")
    for top in range(0, height, length):
        bottom = min(top + length, height)
        yield slice(top, bottom), image[mirrored[top : bottom + 2 * radius]]
