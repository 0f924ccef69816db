"""How one block is planned: which parts of it are read, which windows the model sees. Pure arithmetic."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.tiling import Bounds, cover_cells

READ_MARGIN: Final = 512
"""Working px that a separate read costs on each side, about a tile of the file."""
CALL_PIXELS: Final = 4096
"""Pixels that a model computes in the time that one more call takes."""


@dataclass(frozen=True, slots=True)
class Window:
    """A rectangle of the working level: `core` is kept, `core` grown by `halo` is computed."""

    core: Bounds
    halo: int

    @property
    def bounds(self) -> Bounds:
        return self.core.grown(self.halo)


@dataclass(frozen=True, slots=True)
class Region:
    """A part of a block that is read at once, in working px with its halo, and the windows inside it."""

    bounds: Bounds
    windows: tuple[Window, ...]


def plan_block(
    block: Bounds, cells: NDArray[np.bool_], *, cell: int, halo: int, window: int, edge: tuple[int, int]
) -> list[Region]:
    """What to read and to compute so that every tissue cell of a block is in exactly one core.

    Parameters
    ----------
    block
        The block in working px; begins at a multiple of `cell`.
    cells
        bool (rows, columns): the block's cells, true where there is tissue.
    cell, halo
        In working px; both multiples of the model's stride.
    window
        Longest side of a window with its halo, in working px; one cell is computed at once in any case.
    edge
        Right and bottom end of what is worth computing (the slide's size, rounded up to the model's stride).

    Returns
    -------
    Regions, each with one window or more, from top to bottom.
    """
    limit = max(1, (window - 2 * halo) // cell)
    grown, each = 2 * halo / cell, CALL_PIXELS / cell**2
    frame = Bounds(0, 0, *edge)
    regions = []
    for part in cover_cells(cells, limit=max(cells.shape), margin=2 * READ_MARGIN / cell):
        top, left, rows, columns = part
        inside = cells[top : top + rows, left : left + columns]
        x, y = block.x + left * cell, block.y + top * cell
        pieces = cover_cells(inside, limit=limit, margin=grown, each=each)
        windows = tuple(Window(piece.bounds(cell, x, y).within(frame), halo) for piece in pieces)
        regions.append(Region(part.bounds(cell, block.x, block.y).within(frame).grown(halo), windows))
    return regions


def batches(
    windows: Iterable[tuple[int, Window]], pixels: int, most: int | None = None
) -> Iterator[list[tuple[int, Window]]]:
    """Windows of one shape together, as many as have no more than `pixels` with their halos (one at least).

    Each comes with the number of its region. `most` windows at most; None: as many as fit.
    """

    def shape(item: tuple[int, Window]) -> tuple[int, int]:
        bounds = item[1].bounds
        return bounds.height, bounds.width

    for (height, width), group in groupby(sorted(windows, key=shape), key=shape):
        alike = list(group)
        size = max(1, min(pixels // (height * width), len(alike) if most is None else most))
        yield from (alike[start : start + size] for start in range(0, len(alike), size))


def strip_order(blocks: Sequence[tuple[int, int]], height: int) -> list[tuple[int, int]]:
    """(row, column) of blocks, in strips of `height` rows, column by column down and up.

    Neighbours share the file's tiles under their halos: in this order most are still in the reader's cache.
    """

    def key(block: tuple[int, int]) -> tuple[int, int, int]:
        row, column = block
        return row // height, column, -row if column % 2 else row

    return sorted(blocks, key=key)


def cells_of(cells: NDArray[np.bool_], row: int, column: int, per_block: int) -> NDArray[np.bool_]:
    """The cells of one block, cut at the slide's edge; `per_block` cells to its side."""
    y, x = row * per_block, column * per_block
    return cells[y : y + per_block, x : x + per_block]
