"""Blocks, cells and windows: how a slide is cut for the model. Pure arithmetic, no pixels.

The *working level* is the slide at the resolution of the model, `downsample` level-0 pixels to a pixel.
Every grid here is anchored at the slide's top-left corner, so that the map does not depend on how the
slide was cut.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Bounds(NamedTuple):
    """A half-open rectangle [x, right) x [y, bottom) of pixels; it may reach beyond the slide."""

    x: int
    y: int
    right: int
    bottom: int

    @property
    def width(self) -> int:
        return self.right - self.x

    @property
    def height(self) -> int:
        return self.bottom - self.y

    def grown(self, margin: int) -> Bounds:
        """The rectangle with `margin` more pixels on each side."""
        return Bounds(self.x - margin, self.y - margin, self.right + margin, self.bottom + margin)

    def within(self, other: Bounds) -> Bounds:
        """The part that lies in `other`; empty rectangles come out with zero width or height."""
        x, y = max(self.x, other.x), max(self.y, other.y)
        return Bounds(x, y, max(x, min(self.right, other.right)), max(y, min(self.bottom, other.bottom)))


def working_size(size: tuple[int, int], downsample: float) -> tuple[int, int]:
    """Width and height of the working level that covers a slide of `size` level-0 pixels (rounded up)."""
    return _ceil_div(size[0], downsample), _ceil_div(size[1], downsample)


def _ceil_div(length: int, downsample: float) -> int:
    # A hair below an integer is that integer: 1000 / (1000 / 3) must be 3, not 4.
    return max(1, math.ceil(length / downsample - 1e-6))


@dataclass(frozen=True, slots=True)
class BlockGrid:
    """The blocks of one slide: squares of `block` working-level pixels, the last ones cut at the edge.

    Attributes
    ----------
    width, height
        Size of the working level in pixels.
    block
        Side of a block in working-level pixels.
    """

    width: int
    height: int
    block: int

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of blocks."""
        return -(-self.height // self.block), -(-self.width // self.block)

    def bounds(self, row: int, column: int) -> Bounds:
        """The block's rectangle in working-level pixels, cut at the slide's edge."""
        x, y = column * self.block, row * self.block
        return Bounds(x, y, min(x + self.block, self.width), min(y + self.block, self.height))

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Row and column of every block, row by row."""
        rows, columns = self.shape
        return ((row, column) for row in range(rows) for column in range(columns))


def merge_cells(cells: NDArray[np.bool_], limit: int) -> Iterator[tuple[int, int, int, int]]:
    """Cover the true cells of a grid with disjoint rectangles that hold no false cell.

    Greedy from the top left: as wide as possible, then as tall as possible.

    Parameters
    ----------
    cells
        bool (rows, columns).
    limit
        Longest side of a rectangle, in cells.

    Yields
    ------
    row, column, rows, columns of each rectangle.
    """
    left = cells.copy()
    rows = left.shape[0]
    for row in range(rows):
        for column in np.flatnonzero(left[row]):
            if not left[row, column]:
                continue
            run = left[row, column : column + limit]
            width = int(run.size if run.all() else run.argmin())
            height = 1
            while height < limit and row + height < rows and left[row + height, column : column + width].all():
                height += 1
            left[row : row + height, column : column + width] = False
            yield row, int(column), height, width
