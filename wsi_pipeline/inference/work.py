"""What a worker does: a run of neighbouring blocks of one slide, read ahead, computed, written."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.cohort import SlideRef
from wsi_pipeline.errors import ModelError, SlideError
from wsi_pipeline.inference import registry
from wsi_pipeline.inference.blocks import Region, batches, plan_block
from wsi_pipeline.inference.registry import LoadedModel, ModelSpec
from wsi_pipeline.inference.store import BlockState, PredictionStore
from wsi_pipeline.models.macenko import Stains
from wsi_pipeline.models.net_segmenter import stained
from wsi_pipeline.models.segmenter import InsideSegmenter, Maps, inside
from wsi_pipeline.slides import Slide
from wsi_pipeline.tiling import Bounds

logger = logging.getLogger(__name__)

GPU_BATCH_PIXELS: Final = 16 * 2**20
"""Most pixels of a batch on a GPU; what its memory does not hold is halved by the model. A CPU takes one window."""

# What reading, decoding and computing one block may raise without the rest of the slide being lost.
BLOCK_ERRORS: Final = (SlideError, ModelError, OSError, ValueError, RuntimeError, MemoryError)


@dataclass(frozen=True, slots=True, eq=False)
class BlockSpec:
    """One block: where it is, and which of its cells (bool, rows x columns) hold tissue."""

    row: int
    column: int
    cells: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class BlockRun:
    """Neighbouring blocks of one slide: what is sent to a worker.

    Attributes
    ----------
    session
        Names the engine that asks; what a worker has open belongs to it.
    store
        Path or URL of the prediction store, which is there.
    downsample
        Level-0 px to a pixel of the working level.
    cell, window
        In working px; `window` with its halo.
    stains
        Of the slide, where the model needs them.
    """

    session: str
    ref: SlideRef
    store: str
    downsample: float
    model: ModelSpec
    cell: int
    window: int
    blocks: tuple[BlockSpec, ...]
    stains: Stains | None = None


@dataclass(slots=True)
class Seconds:
    """Wall seconds by what they went into; `read` hides behind the rest, `wait` is what of it could not."""

    read: float = 0.0
    wait: float = 0.0
    model: float = 0.0
    write: float = 0.0
    whole: float = 0.0

    def add(self, other: Seconds) -> None:
        self.read += other.read
        self.wait += other.wait
        self.model += other.model
        self.write += other.write
        self.whole += other.whole


@dataclass(frozen=True, slots=True)
class BlockOutcome:
    """How one block ended: DONE, or FAILED with the cause."""

    row: int
    column: int
    state: BlockState
    cause: str | None = None


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """How a run ended; blocks that were not begun when it was stopped are missing."""

    blocks: tuple[BlockOutcome, ...]
    seconds: Seconds


@dataclass(frozen=True, slots=True, eq=False)
class _Pixels:
    """What was read of a block."""

    regions: list[Region]
    images: list[NDArray[np.uint8]] = field(default_factory=list)


def run_blocks(run: BlockRun) -> RunOutcome:
    """Predict the blocks of a run and write them; the next block is read while one is computed.

    A block that cannot be read or computed is reported, and the others go on.

    Raises
    ------
    SlideError
        The slide cannot be opened.
    ModelError
        The model cannot be loaded.
    StoreError
        The store cannot be opened or written.
    """
    seconds = Seconds()
    outcomes: list[BlockOutcome] = []
    if registry.is_stopped(run.session):
        return RunOutcome((), seconds)
    with (
        _clocked(seconds, "whole"),
        registry.use_slide(run.session, run.ref) as slide,
        registry.use_model(run.session, run.model) as model,
        ThreadPoolExecutor(1, thread_name_prefix="read-ahead") as ahead,
    ):
        store = PredictionStore.open(run.store, read_only=False)
        worker = _Worker(run, slide, model, store, seconds)
        for block, reading in worker.read_ahead(ahead):
            if registry.is_stopped(run.session):
                break
            outcomes.append(worker.one(block, reading))
    return RunOutcome(tuple(outcomes), seconds)


class _Worker:
    def __init__(
        self, run: BlockRun, slide: Slide, model: LoadedModel, store: PredictionStore, seconds: Seconds
    ) -> None:
        self._run = run
        self._slide = slide
        self._segmenter = stained(model.segmenter, run.stains)
        self._turn = model.turn
        self._store = store
        self._seconds = seconds
        self._factor = model.segmenter.card.output_downsample
        self._batch = 0 if run.model.device == "cpu" else GPU_BATCH_PIXELS

    def read_ahead(self, pool: ThreadPoolExecutor) -> Iterator[tuple[BlockSpec, Future[_Pixels]]]:
        """Each block with its pixels on the way, the next one's already asked for."""
        blocks = self._run.blocks
        reading = pool.submit(self._read, blocks[0])
        for block, following in zip(blocks, (*blocks[1:], None), strict=True):
            current = reading
            if following is not None:
                reading = pool.submit(self._read, following)
            yield block, current
        # A run that was stopped leaves one read behind, which the pool waits for.

    def one(self, block: BlockSpec, reading: Future[_Pixels]) -> BlockOutcome:
        try:
            with _clocked(self._seconds, "wait"):
                pixels = reading.result()
            with self._turn, _clocked(self._seconds, "model"):
                probability, uncertainty = self._compute(block, pixels)
        except BLOCK_ERRORS as error:
            cause = error.cause if isinstance(error, SlideError) else " ".join(str(error).split())
            logger.warning(
                "%s: block %d,%d failed: %s", self._run.ref.slide_id, block.row, block.column, cause, exc_info=True
            )
            return BlockOutcome(block.row, block.column, BlockState.FAILED, cause or type(error).__name__)
        # Not a fault of this block: an error here ends the run.
        with _clocked(self._seconds, "write"):
            self._store.write_block(block.row, block.column, probability, uncertainty)
        return BlockOutcome(block.row, block.column, BlockState.DONE)

    def _working(self, block: BlockSpec) -> Bounds:
        """The block in working px."""
        return Bounds(*(side * self._factor for side in self._store.grid.bounds(block.row, block.column)))

    def _read(self, block: BlockSpec) -> _Pixels:
        grid = self._store.grid
        card = self._segmenter.card
        step = card.cell if card.fixed_window else card.stride
        edge = tuple(-(-side * self._factor // step) * step for side in (grid.width, grid.height))
        with _clocked(self._seconds, "read"):
            pixels = _Pixels(
                plan_block(
                    self._working(block),
                    block.cells,
                    cell=self._run.cell,
                    halo=self._segmenter.card.halo,
                    window=self._run.window,
                    edge=(edge[0], edge[1]),
                )
            )
            for region in pixels.regions:
                pixels.images.append(self._slide.read(region.bounds, self._run.downsample))
        return pixels

    def _compute(self, block: BlockSpec, pixels: _Pixels) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """The block's maps, uint8 (C, h, w) and (h, w) in map pixels; 0 outside of its cells."""
        bounds = self._working(block)
        factor = self._factor
        rows, columns = (-(-side // self._run.cell) for side in (bounds.height, bounds.width))
        # Windows may reach beyond the map's edge, by less than a stride: room for whole cells is room enough.
        height, width = (count * self._run.cell // factor for count in (rows, columns))
        probability = np.zeros((len(self._segmenter.card.foreground), height, width), np.uint8)
        uncertainty = np.zeros((height, width), np.uint8)
        windows = [(number, window) for number, region in enumerate(pixels.regions) for window in region.windows]
        for batch in batches(windows, self._batch):
            images = np.stack([_cut(pixels.images[n], pixels.regions[n].bounds, w.bounds) for n, w in batch])
            maps = self._cores(images, batch[0][1].halo)
            for index, (_, window) in enumerate(batch):
                core = window.core
                y, x = (core.y - bounds.y) // factor, (core.x - bounds.x) // factor
                h, w = core.height // factor, core.width // factor
                probability[:, y : y + h, x : x + w] = maps.probability[index]
                uncertainty[y : y + h, x : x + w] = maps.uncertainty[index]
        _clear(block.cells, self._run.cell // factor, probability, uncertainty)
        map_height, map_width = bounds.height // factor, bounds.width // factor
        return probability[:, :map_height, :map_width], uncertainty[:map_height, :map_width]

    def _cores(self, images: NDArray[np.uint8], halo: int) -> Maps:
        """The maps of windows without their halos."""
        if isinstance(self._segmenter, InsideSegmenter):
            return self._segmenter.predict_inside(images, halo)
        return inside(self._segmenter.predict(images), halo // self._factor)


def _cut(image: NDArray[np.uint8], frame: Bounds, part: Bounds) -> NDArray[np.uint8]:
    y, x = part.y - frame.y, part.x - frame.x
    return image[y : y + part.height, x : x + part.width]


def _clear(cells: NDArray[np.bool_], side: int, probability: NDArray[np.uint8], uncertainty: NDArray[np.uint8]) -> None:
    """Set what was computed outside of the cells (to make larger windows) to 0; `side` in map pixels."""
    for row, column in np.argwhere(~cells):
        area = (slice(row * side, (row + 1) * side), slice(column * side, (column + 1) * side))
        probability[:, *area] = 0
        uncertainty[area] = 0


@contextmanager
def _clocked(seconds: Seconds, name: str) -> Iterator[None]:
    start = time.perf_counter()
    try:
        yield
    finally:
        setattr(seconds, name, getattr(seconds, name) + time.perf_counter() - start)
