"""Several predictions of the places where one is not sure: test-time augmentation and dropout, cell by cell.

What is computed again, and what is decided on it, lies on a grid of fixed squares of the slide. So the map does not
depend on the windows, blocks and workers of the first look, which may differ by rounding.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.inference.blocks import Region
from wsi_pipeline.inference.compute import BlockArea, BlockMaps, Computer, Pixels, Read
from wsi_pipeline.models.ensemble import Mixture, Passes, predict_passes
from wsi_pipeline.models.segmenter import Segmenter
from wsi_pipeline.tiling import Bounds

SQUARE_CELLS: Final = 2
"""Cells to the side of a square. Doubt is spotty: in larger ones most of what is computed again is thrown away."""
ROUNDING: Final = 1.0
"""Steps of 1/255 by which a cell's mean entropy may differ between windows."""


class DoubtComputer:
    """Looks again at the cells of a block whose mean entropy lies above `passes.above`.

    Cells that are unsure in the first look are predicted in their square, with a halo; those that are unsure there
    too get the mean of all passes.

    Parameters
    ----------
    plain
        Makes the first look.
    batch
        Pixels that the model gets at once; one square at least.
    """

    def __init__(self, segmenter: Segmenter, plain: Computer, *, batch: int, passes: Passes) -> None:
        self._segmenter = segmenter
        self._plain = plain
        self._batch = batch
        self._passes = passes

    def plan(self, area: BlockArea) -> list[Region]:
        return self._plain.plan(area)

    def compute(self, area: BlockArea, pixels: Pixels, read: Read) -> BlockMaps:
        first = self._plain.compute(area, pixels, read)
        # A cell's mean entropy is decided in its square; here it only must not be missed.
        side = area.cell // self._segmenter.card.output_downsample
        means = cell_means(first.uncertainty, side)
        candidates = np.zeros_like(area.cells)
        rows, columns = (min(a, b) for a, b in zip(means.shape, area.cells.shape, strict=True))
        candidates[:rows, :columns] = means[:rows, :columns] + ROUNDING > 255 * self._passes.above
        maps = BlockMaps(first.probability, first.uncertainty, np.zeros_like(first.uncertainty))
        halo = self._segmenter.card.halo
        squares = squares_of(area, candidates & area.cells)
        size = max(1, self._batch // ((SQUARE_CELLS * area.cell + 2 * halo) ** 2))
        for start in range(0, len(squares), size):
            part = squares[start : start + size]
            images = np.stack([_pixels_of(bounds.grown(halo), pixels, read) for bounds, _ in part])
            self._look_again(area, part, images, maps)
        return maps

    def _look_again(
        self,
        area: BlockArea,
        squares: list[tuple[Bounds, NDArray[np.intp]]],
        images: NDArray[np.uint8],
        maps: BlockMaps,
    ) -> None:
        card = self._segmenter.card
        factor, halo = card.output_downsample, card.halo // card.output_downsample
        plain = self._segmenter.predict(images)
        unsure = [
            [cell for cell, values in self._cells_of(area, bounds, cells, inside(plain.uncertainty[i], halo))
             if values.mean() > 255 * self._passes.above]
            for i, (bounds, cells) in enumerate(squares)
        ]  # fmt: skip
        chosen = [i for i, cells in enumerate(unsure) if cells]
        if not chosen:
            return
        corners = [(squares[i][0].x, squares[i][0].y) for i in chosen]
        side = SQUARE_CELLS * area.cell // factor
        mixtures = [Mixture(card, side, side) for _ in chosen]
        for found in predict_passes(self._segmenter, images[chosen], self._passes, corners, plain.probability[chosen]):
            for mixture, probability in zip(mixtures, found, strict=True):
                mixture.add(inside(probability, halo))
        for mixture, i in zip(mixtures, chosen, strict=True):
            for ours, values in zip(maps, mixture.maps(), strict=True):
                if ours is None:
                    continue
                for where, part in self._cells_of(area, squares[i][0], np.array(unsure[i]), values):
                    y, x = (int(v) * area.cell // factor for v in where)
                    ours[..., y : y + part.shape[-2], x : x + part.shape[-1]] = part

    def _cells_of(
        self, area: BlockArea, square: Bounds, cells: NDArray[np.intp], values: NDArray[np.uint8]
    ) -> Iterator[tuple[tuple[int, int], NDArray[np.uint8]]]:
        """Row and column of each cell in the block, and its part of a square's map (..., h, w), cut at the edge."""
        factor = self._segmenter.card.output_downsample
        for row, column in cells.tolist():
            x, y = area.bounds.x + column * area.cell, area.bounds.y + row * area.cell
            cell = Bounds(x, y, x + area.cell, y + area.cell).within(area.bounds)
            top, bottom = (cell.y - square.y) // factor, (cell.bottom - square.y) // factor
            left, right = (cell.x - square.x) // factor, (cell.right - square.x) // factor
            yield (row, column), values[..., top:bottom, left:right]


def squares_of(area: BlockArea, wanted: NDArray[np.bool_]) -> list[tuple[Bounds, NDArray[np.intp]]]:
    """The squares of the slide's grid that hold wanted cells of a block, and these cells, (n, 2) row and column."""
    cells = np.argwhere(wanted)
    corner = np.array([area.bounds.y, area.bounds.x]) // area.cell
    index, member = np.unique((cells + corner) // SQUARE_CELLS, axis=0, return_inverse=True)
    side = SQUARE_CELLS * area.cell
    return [
        (Bounds(x * side, y * side, (x + 1) * side, (y + 1) * side), cells[member.ravel() == i])
        for i, (y, x) in enumerate(index.tolist())
    ]


def cell_means(values: NDArray[np.uint8], side: int) -> NDArray[np.float64]:
    """Mean of each cell of `side` px of a map (h, w); cells at the right and lower edge may be smaller."""
    height, width = values.shape
    tops, lefts = np.arange(0, height, side), np.arange(0, width, side)
    sums = np.add.reduceat(np.add.reduceat(values, tops, axis=0, dtype=np.int64), lefts, axis=1)
    counts = np.outer(np.diff(tops, append=height), np.diff(lefts, append=width))
    means: NDArray[np.float64] = sums / counts
    return means


def inside(values: NDArray[np.uint8], halo: int) -> NDArray[np.uint8]:
    """A map (..., h, w) without `halo` px on each side."""
    height, width = values.shape[-2:]
    return values[..., halo : height - halo, halo : width - halo]


def _pixels_of(bounds: Bounds, pixels: Pixels, read: Read) -> NDArray[np.uint8]:
    there = pixels.within(bounds)
    return read(bounds) if there is None else there
