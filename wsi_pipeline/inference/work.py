"""What a worker does: a run of neighbouring blocks of one slide, read ahead, computed, written."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.cohort import SlideRef
from wsi_pipeline.errors import ModelError, SlideError
from wsi_pipeline.inference import registry
from wsi_pipeline.inference.blend import BlendComputer
from wsi_pipeline.inference.cluster import say, wanted
from wsi_pipeline.inference.compute import BlockArea, Computer, HaloComputer, Pixels
from wsi_pipeline.inference.doubt import DoubtComputer
from wsi_pipeline.inference.registry import LoadedModel, ModelSpec
from wsi_pipeline.inference.store import BlockState, PredictionStore
from wsi_pipeline.models import Segmenter
from wsi_pipeline.models.ensemble import Passes, check_passes
from wsi_pipeline.models.macenko import Stains
from wsi_pipeline.models.net_segmenter import stained
from wsi_pipeline.models.runtime import LARGEST_WINDOW
from wsi_pipeline.slides import Slide
from wsi_pipeline.tiling import Bounds

logger = logging.getLogger(__name__)

GPU_BATCH_PIXELS: Final = 16 * 2**20
"""Most pixels of a batch on a GPU; what its memory does not hold is halved by the model."""

BLOCKS_AHEAD: Final = 3
"""Blocks of a run beyond the one that is read whose bytes are asked for, where the slide lies elsewhere."""

# What reading, decoding and computing one block may raise without the rest of the slide being lost.
BLOCK_ERRORS: Final = (SlideError, ModelError, OSError, ValueError, RuntimeError, MemoryError)


@dataclass(frozen=True, slots=True, eq=False)
class BlockSpec:
    """One block: where it is, and which of its cells hold tissue.

    Kept as bits: a scheduler has many at a time, and remembers the last thousand runs that it sent to each worker.
    """

    row: int
    column: int
    _shape: tuple[int, int]
    _bits: bytes

    @classmethod
    def of(cls, row: int, column: int, cells: NDArray[np.bool_]) -> BlockSpec:
        """`cells`: bool (rows, columns)."""
        rows, columns = cells.shape
        return cls(row, column, (rows, columns), np.packbits(cells).tobytes())

    @property
    def cells(self) -> NDArray[np.bool_]:
        """bool (rows, columns), true where there is tissue."""
        rows, columns = self._shape
        bits = np.unpackbits(np.frombuffer(self._bits, np.uint8), count=rows * columns)
        return bits.view(np.bool_).reshape(rows, columns)


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
    passes
        Further predictions of places that are not sure; None: none.
    content
        `Slide.fingerprint`; None: whatever lies there.
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
    passes: Passes | None = None
    content: str | None = None


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


def run_blocks(run: BlockRun) -> RunOutcome:
    """Predict the blocks of a run and write them; the next block is read while one is computed.

    A block that cannot be read or computed is reported, and the others go on.

    Raises
    ------
    SlideError
        The slide cannot be opened, or became another file while it was read.
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
        registry.use_slide(run.session, run.ref, run.content) as slide,
        registry.use_model(run.session, run.model) as model,
        ThreadPoolExecutor(1, thread_name_prefix="read-ahead") as ahead,
    ):
        store = PredictionStore.open(run.store, read_only=False)
        worker = _Worker(run, slide, model, store, seconds)
        for block, reading in worker.read_ahead(ahead):
            if registry.is_stopped(run.session) or not wanted():
                break
            outcomes.append(worker.one(block, reading))
        # Its blocks are there, but nobody is told that they are done.
        slide.check_unchanged()
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
        self._computer = computer(self._segmenter, run)
        # By number of the block whose bytes are under way; only the thread that reads ahead touches it.
        self._plans: dict[int, Pixels] = {}

    def read_ahead(self, pool: ThreadPoolExecutor) -> Iterator[tuple[BlockSpec, Future[Pixels]]]:
        """Each block with its pixels on the way, the next one's already asked for."""
        reading = pool.submit(self._read_block, 0)
        for number, block in enumerate(self._run.blocks, 1):
            current = reading
            if number < len(self._run.blocks):
                reading = pool.submit(self._read_block, number)
            yield block, current
        # A run that was stopped leaves one read behind, which the pool waits for.

    def one(self, block: BlockSpec, reading: Future[Pixels]) -> BlockOutcome:
        try:
            with _clocked(self._seconds, "wait"):
                pixels = reading.result()
            with self._turn, _clocked(self._seconds, "model"):
                maps = self._computer.compute(self._area(block), pixels, self._read_pixels)
        except BLOCK_ERRORS as error:
            # With its remedy: a store that fails is no damage of the file.
            said = f"{error.cause}; {error.remedy}" if isinstance(error, SlideError) else str(error)
            cause = " ".join(said.split())
            logger.warning("%s: block %d,%d failed: %s", self._run.ref.slide_id, block.row, block.column, cause)
            # For who looks for a bug: most often it is the file, and said above.
            logger.debug("where block %d,%d failed", block.row, block.column, exc_info=True)
            return BlockOutcome(block.row, block.column, BlockState.FAILED, cause or type(error).__name__)
        if not wanted():
            # Whoever comes after a client that was killed may give this place another store.
            return BlockOutcome(block.row, block.column, BlockState.FAILED, "nobody waits for it any more")
        # Not a fault of this block: an error here ends the run.
        with _clocked(self._seconds, "write"):
            self._store.write_block(block.row, block.column, *maps)
        # A run is long; who goes on from the block need not wait for the others.
        say([self._run.session, self._run.store, block.row, block.column])
        return BlockOutcome(block.row, block.column, BlockState.DONE)

    def _area(self, block: BlockSpec) -> BlockArea:
        grid, card = self._store.grid, self._segmenter.card
        bounds = Bounds(*(side * card.output_downsample for side in grid.bounds(block.row, block.column)))
        step = card.cell if card.fixed_window else card.stride
        right, bottom = (-(-side * card.output_downsample // step) * step for side in (grid.width, grid.height))
        return BlockArea(bounds, block.cells, self._run.cell, (right, bottom))

    def _read_block(self, number: int) -> Pixels:
        with _clocked(self._seconds, "read"):
            for ahead, block in enumerate(self._run.blocks[number : number + 1 + BLOCKS_AHEAD], number):
                if ahead in self._plans:
                    continue
                # What goes wrong here fails the block that is read, and never gives it the pixels of another.
                plan = self._plans[ahead] = Pixels(self._computer.plan(self._area(block)))
                for region in plan.regions:
                    self._slide.prefetch(region.bounds, self._run.downsample)
            pixels = self._plans.pop(number)
            for region in pixels.regions:
                pixels.images.append(self._read_pixels(region.bounds))
        return pixels

    def _read_pixels(self, bounds: Bounds) -> NDArray[np.uint8]:
        return self._slide.read(bounds, self._run.downsample)


def computer(segmenter: Segmenter, run: BlockRun) -> Computer:
    """What makes the maps of a run, as the model's card and the run's passes ask for it.

    Raises
    ------
    ModelError
        The model cannot make these passes.
    """
    check_passes(segmenter, run.passes)
    if segmenter.card.fixed_window and run.passes is not None:
        raise ModelError(
            f"{segmenter.card.name}: a model of fixed windows cannot look again at single places; leave "
            "`inference.uncertainty` out"
        )
    # On a CPU, windows together have no more pixels than the largest one alone: so memory is that of one window.
    cpu, card = run.model.device == "cpu", segmenter.card
    largest = LARGEST_WINDOW if card.fixed_window or card.blend is not None else run.window
    batch, most = (largest**2, run.model.batch) if cpu else (GPU_BATCH_PIXELS, None)
    if card.blend is not None:
        return BlendComputer(segmenter, batch=batch, most=most, passes=run.passes)
    plain = HaloComputer(segmenter, window=run.window, batch=batch, most=most)
    return (
        plain if run.passes is None else DoubtComputer(segmenter, plain, batch=0 if cpu else batch, passes=run.passes)
    )


@contextmanager
def _clocked(seconds: Seconds, name: str) -> Iterator[None]:
    start = time.perf_counter()
    try:
        yield
    finally:
        setattr(seconds, name, getattr(seconds, name) + time.perf_counter() - start)
