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

CELL = 64
"""Side of a tissue cell in working-level pixels, for models whose stride divides it; see `cell_side`."""


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


def cell_side(stride: int) -> int:
    """Side of a tissue cell in working-level pixels: `CELL`, or the next multiple of the model's stride.

    Windows consist of whole cells, so that they begin where the model's own grid does.
    """
    return -(-CELL // stride) * stride


class Rectangle(NamedTuple):
    """A rectangle of cells: first row and column, and how many of each."""

    row: int
    column: int
    rows: int
    columns: int

    def bounds(self, cell: int, x: int = 0, y: int = 0) -> Bounds:
        """In pixels, for cells of side `cell` whose first one begins at (x, y)."""
        left, top = x + self.column * cell, y + self.row * cell
        return Bounds(left, top, left + self.columns * cell, top + self.rows * cell)


def cover_cells(cells: NDArray[np.bool_], *, limit: int, margin: float, each: float = 0.0) -> list[Rectangle]:
    """Cover the true cells of a grid with disjoint rectangles that cost little to compute.

    A rectangle costs its area grown by `margin` (the halos) and `each` (what a call costs by itself); it may
    hold false cells where that is cheaper. The grid is cut from the top down: each part where it pays best, as
    long as it pays or the part is too large. On tissue this stays within 2 % of the best way of cutting.

    Parameters
    ----------
    cells
        bool (rows, columns).
    limit
        Longest side of a rectangle, in cells.
    margin
        What the halos add to each side's length, in cells.
    each
        Fixed cost of a rectangle, in cells.

    Returns
    -------
    Rectangles from top to bottom, then from left to right.
    """
    found: list[Rectangle] = []
    parts = [_trimmed(cells, Rectangle(0, 0, *cells.shape))]
    while parts:
        part = parts.pop()
        if part is None:
            continue
        cut = _best_cut(cells, part, limit, margin, each)
        if cut is None:
            found.append(part)
        else:
            parts.extend(_trimmed(cells, half) for half in cut)
    return sorted(found)


def _trimmed(cells: NDArray[np.bool_], part: Rectangle) -> Rectangle | None:
    """The smallest rectangle with all true cells of `part`; None when there are none."""
    inside = cells[part.row : part.row + part.rows, part.column : part.column + part.columns]
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    if not rows.size:
        return None
    top, left = int(rows[0]), int(columns[0])
    return Rectangle(part.row + top, part.column + left, int(rows[-1]) - top + 1, int(columns[-1]) - left + 1)


def _best_cut(
    cells: NDArray[np.bool_], part: Rectangle, limit: int, margin: float, each: float
) -> tuple[Rectangle, Rectangle] | None:
    """The two halves that cost least together; None when `part` is cheaper whole (and not too large)."""

    def cost(piece: Rectangle | None) -> float:
        if piece is None:
            return 0.0
        across, down = -(-piece.columns // limit), -(-piece.rows // limit)
        return (piece.rows + margin * down) * (piece.columns + margin * across) + each * across * down

    whole = cost(part) if max(part.rows, part.columns) <= limit else math.inf
    inside = cells[part.row : part.row + part.rows, part.column : part.column + part.columns]
    if whole < math.inf and inside.all():
        return None
    best, chosen = whole, None
    for halves in _cuts(part):
        price = sum(cost(_trimmed(cells, half)) for half in halves)
        if price < best:
            best, chosen = price, halves
    return chosen


def _cuts(part: Rectangle) -> Iterator[tuple[Rectangle, Rectangle]]:
    row, column, rows, columns = part
    for n in range(1, rows):
        yield Rectangle(row, column, n, columns), Rectangle(row + n, column, rows - n, columns)
    for n in range(1, columns):
        yield Rectangle(row, column, rows, n), Rectangle(row, column + n, rows, columns - n)
