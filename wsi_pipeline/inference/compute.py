"""One block from pixels to maps: which windows are read, what the model says of them, how that is put together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.inference.blocks import Region, batches, plan_block
from wsi_pipeline.models.segmenter import InsideSegmenter, Maps, Segmenter, inside
from wsi_pipeline.tiling import Bounds

Read = Callable[[Bounds], NDArray[np.uint8]]
"""Pixels uint8 (height, width, 3) of a rectangle of the working level; glass beyond the slide."""


class BlockMaps(NamedTuple):
    """Maps of a block, uint8 (C, h, w) and (h, w) in map px; `mutual_information` where there are several predictions.

    0 outside of the block's cells.
    """

    probability: NDArray[np.uint8]
    uncertainty: NDArray[np.uint8]
    mutual_information: NDArray[np.uint8] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class BlockArea:
    """Where a block is.

    Attributes
    ----------
    bounds
        In working px; it begins at a whole cell and is cut at the map's edge.
    cells
        bool (rows, columns): its cells, true where there is tissue.
    cell
        Side of a cell in working px.
    edge
        Right and bottom end of what is worth computing, in working px.
    """

    bounds: Bounds
    cells: NDArray[np.bool_]
    cell: int
    edge: tuple[int, int]


@dataclass(frozen=True, slots=True, eq=False)
class Pixels:
    """What was read of a block."""

    regions: list[Region]
    images: list[NDArray[np.uint8]] = field(default_factory=list)

    def within(self, bounds: Bounds) -> NDArray[np.uint8] | None:
        """The pixels of a rectangle, None where they were not read at once."""
        for region, image in zip(self.regions, self.images, strict=True):
            if bounds.within(region.bounds) == bounds:
                return cut(image, region.bounds, bounds)
        return None


class Computer(Protocol):
    """Makes the maps of blocks; one for each run, used by one thread for `plan` and one for `compute`."""

    def plan(self, area: BlockArea) -> list[Region]:
        """What to read."""
        ...

    def compute(self, area: BlockArea, pixels: Pixels, read: Read) -> BlockMaps:
        """The maps, from the pixels of `plan`; `read` is for what turns out to be needed beside them."""
        ...


class HaloComputer:
    """Windows with a halo: what is kept of each is what the model would say of the whole slide.

    Parameters
    ----------
    window
        Longest side of a window with its halo, in working px.
    batch, most
        Pixels and windows that the model gets at once, at most; one window at least.
    """

    def __init__(self, segmenter: Segmenter, *, window: int, batch: int, most: int | None = None) -> None:
        self._segmenter = segmenter
        self._window = window
        self._batch = batch
        self._most = most
        self._factor = segmenter.card.output_downsample

    def plan(self, area: BlockArea) -> list[Region]:
        halo = self._segmenter.card.halo
        return plan_block(area.bounds, area.cells, cell=area.cell, halo=halo, window=self._window, edge=area.edge)

    def compute(self, area: BlockArea, pixels: Pixels, read: Read) -> BlockMaps:
        bounds, factor = area.bounds, self._factor
        rows, columns = (-(-side // area.cell) for side in (bounds.height, bounds.width))
        # Windows may reach beyond the map's edge, by less than a stride: room for whole cells is room enough.
        height, width = (count * area.cell // factor for count in (rows, columns))
        probability = np.zeros((len(self._segmenter.card.foreground), height, width), np.uint8)
        uncertainty = np.zeros((height, width), np.uint8)
        windows = [(number, window) for number, region in enumerate(pixels.regions) for window in region.windows]
        for batch in batches(windows, self._batch, self._most):
            images = np.stack([cut(pixels.images[n], pixels.regions[n].bounds, w.bounds) for n, w in batch])
            maps = cores(self._segmenter, images, batch[0][1].halo)
            for index, (_, window) in enumerate(batch):
                core = window.core
                y, x = (core.y - bounds.y) // factor, (core.x - bounds.x) // factor
                h, w = core.height // factor, core.width // factor
                probability[:, y : y + h, x : x + w] = maps.probability[index]
                uncertainty[y : y + h, x : x + w] = maps.uncertainty[index]
        clear(area.cells, area.cell // factor, probability, uncertainty)
        map_height, map_width = bounds.height // factor, bounds.width // factor
        return BlockMaps(probability[:, :map_height, :map_width], uncertainty[:map_height, :map_width])


def cores(segmenter: Segmenter, images: NDArray[np.uint8], halo: int) -> Maps:
    """The maps of windows without their halos of `halo` working px."""
    if isinstance(segmenter, InsideSegmenter):
        return segmenter.predict_inside(images, halo)
    return inside(segmenter.predict(images), halo // segmenter.card.output_downsample)


def cut(image: NDArray[np.uint8], frame: Bounds, part: Bounds) -> NDArray[np.uint8]:
    """The pixels of `part` of an image that covers `frame`."""
    y, x = part.y - frame.y, part.x - frame.x
    return image[y : y + part.height, x : x + part.width]


def clear(cells: NDArray[np.bool_], side: int, *maps: NDArray[np.uint8]) -> None:
    """Set maps (..., h, w) to 0 outside of the cells, whose side is `side` map px."""
    for row, column in np.argwhere(~cells):
        for values in maps:
            values[..., row * side : (row + 1) * side, column * side : (column + 1) * side] = 0
