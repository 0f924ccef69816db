"""Overlapping windows, smoothly blended, for models whose map depends on where its window begins.

The windows lie on one grid, anchored at the slide's corner. A block computes every window that touches one of its
cells, and adds them up in integers: so the map does not depend on blocks, workers or order. Windows on the border of
two blocks are computed by both.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.inference.blocks import READ_MARGIN, Region, Window, batches
from wsi_pipeline.inference.compute import BlockArea, BlockMaps, Pixels, Read, clear, cut
from wsi_pipeline.models import ModelCard, Segmenter
from wsi_pipeline.models.ensemble import Mixture, Passes, predict_passes
from wsi_pipeline.tiling import Bounds, Rectangle, cover_cells


def step_of(card: ModelCard) -> int:
    """Working px from one window to the next: a multiple of the stride."""
    apart = int(card.window * (1 - (card.blend or 0)))
    return max(card.stride, apart // card.stride * card.stride)


def window_weights(side: int) -> NDArray[np.uint32]:
    """Weight of each pixel of a window, uint32 (side, side), 1 to 255²: a squared sine along each axis.

    Where windows overlap by half, the weights add up to the same everywhere, up to rounding.
    """
    along = np.maximum(1, np.rint(255 * np.sin(np.pi * (np.arange(side) + 0.5) / side) ** 2)).astype(np.uint32)
    weights: NDArray[np.uint32] = np.outer(along, along)
    return weights


class BlendComputer:
    """Makes the maps of blocks from overlapping windows; their disagreement is the mutual information.

    Parameters
    ----------
    batch, most
        Pixels and windows that the model gets at once, at most; one window at least.
    passes
        Also made of each window whose mean entropy lies above `passes.above`.
    """

    def __init__(
        self, segmenter: Segmenter, *, batch: int, most: int | None = None, passes: Passes | None = None
    ) -> None:
        card = segmenter.card
        self._segmenter = segmenter
        self._batch = batch
        self._most = most
        self._passes = passes
        self._side, self._step, self._factor = card.window, step_of(card), card.output_downsample
        self._weights = window_weights(card.window // card.output_downsample)

    def plan(self, area: BlockArea) -> list[Region]:
        taken: set[tuple[int, int]] = set()
        regions = []
        for part in cover_cells(area.cells, limit=max(area.cells.shape), margin=2 * READ_MARGIN / area.cell):
            found = sorted(self._touching(area, part) - taken)
            taken.update(found)
            boxes = [self._bounds(row, column) for row, column in found]
            if boxes:
                whole = Bounds(
                    min(b.x for b in boxes), min(b.y for b in boxes),
                    max(b.right for b in boxes), max(b.bottom for b in boxes),
                )  # fmt: skip
                regions.append(Region(whole, tuple(Window(box, 0) for box in boxes)))
        return regions

    def compute(self, area: BlockArea, pixels: Pixels, read: Read) -> BlockMaps:
        card, bounds = self._segmenter.card, area.bounds
        mixture = Mixture(card, bounds.height // self._factor, bounds.width // self._factor)
        windows = [(number, window) for number, region in enumerate(pixels.regions) for window in region.windows]
        for batch in batches(windows, self._batch, self._most):
            images = np.stack([cut(pixels.images[n], pixels.regions[n].bounds, w.bounds) for n, w in batch])
            self._add(mixture, bounds, [window.bounds for _, window in batch], images)
        maps = mixture.maps()
        clear(area.cells, area.cell // self._factor, *maps)
        return BlockMaps(*maps)

    def _add(self, mixture: Mixture, block: Bounds, windows: list[Bounds], images: NDArray[np.uint8]) -> None:
        maps = self._segmenter.predict(images)
        passes = self._passes
        # Every window weighs the same in the end, whether it was looked at once or several times.
        count = 1 if passes is None else passes.count
        above = 1.0 if passes is None else passes.above
        unsure = maps.uncertainty.mean(axis=(1, 2)) > 255 * above
        overlaps = [self._overlap(window, block) for window in windows]
        for i in np.flatnonzero(~unsure):
            area, part = overlaps[i]
            mixture.add(maps.probability[i][:, *part], self._weights[part] * np.uint32(count), area)
        if passes is None or not unsure.any():
            return
        again = np.flatnonzero(unsure)
        corners = [windows[i][:2] for i in again]
        for found in predict_passes(self._segmenter, images[again], passes, corners, maps.probability[again]):
            for i, probability in zip(again, found, strict=True):
                area, part = overlaps[i]
                mixture.add(probability[:, *part], self._weights[part], area)

    def _overlap(self, window: Bounds, block: Bounds) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        """What a window and a block share, in map px of the block and of the window."""
        shared = window.within(block)

        def seen_from(x: int, y: int) -> tuple[slice, slice]:
            f = self._factor
            return (
                slice((shared.y - y) // f, (shared.bottom - y) // f),
                slice((shared.x - x) // f, (shared.right - x) // f),
            )

        return seen_from(block.x, block.y), seen_from(window.x, window.y)

    def _touching(self, area: BlockArea, part: Rectangle) -> set[tuple[int, int]]:
        """Row and column of the windows that touch a true cell of a part of the block."""
        found = set()
        inside = area.cells[part.row : part.row + part.rows, part.column : part.column + part.columns]
        for row, column in np.argwhere(inside).tolist():
            y, x = area.bounds.y + (part.row + row) * area.cell, area.bounds.x + (part.column + column) * area.cell
            found |= {(i, j) for i in self._along(y, area.cell) for j in self._along(x, area.cell)}
        return found

    def _along(self, start: int, length: int) -> range:
        """Numbers of the windows that touch [start, start + length) of an axis; none begins before the slide."""
        first = max(0, (start - self._side) // self._step + 1)
        return range(first, (start + length - 1) // self._step + 1)

    def _bounds(self, row: int, column: int) -> Bounds:
        x, y = column * self._step, row * self._step
        return Bounds(x, y, x + self._side, y + self._side)
