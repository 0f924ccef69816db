"""How far one slide is: which blocks wait, which are under way, what went wrong. The client's side, no pixels."""

from __future__ import annotations

import hashlib
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.cohort import SlideRef
from wsi_pipeline.errors import SlideError, SlideUnreadable, StoreError
from wsi_pipeline.inference.blocks import cells_of, strip_order
from wsi_pipeline.inference.store import BlockState, MapInfo, PredictionStore
from wsi_pipeline.inference.work import BlockSpec, RunOutcome, Seconds
from wsi_pipeline.models import ModelCard
from wsi_pipeline.models.ensemble import Passes
from wsi_pipeline.models.macenko import Stains

Block = tuple[int, int]
"""Row and column."""

STRIP: Final = 2
"""Rows of blocks that are worked on together; see `strip_order`."""
LOSSES: Final = 2
"""A block that was lost with its worker as often as this is tried once more with nothing beside it."""


class Tissue(Protocol):
    """Where there is something to predict; see `wsi_pipeline.slides.TissueMask`."""

    def cells(self, cell: int, downsample: float, size: tuple[int, int]) -> NDArray[np.bool_]: ...


@dataclass(frozen=True, slots=True, eq=False)
class SlideJob:
    """One slide to predict.

    Attributes
    ----------
    ref
        The workers must reach its URI.
    store
        Local path or fsspec URL of the prediction store; the workers must reach it too.
    size
        Width and height in level-0 px.
    mpp
        µm per level-0 px.
    downsample
        Level-0 px to a pixel of the working level.
    tissue
        Outside of its cells nothing is read and the map is 0.
    stains
        Of the slide, for models whose card asks for them.
    content
        `Slide.fingerprint`: a worker that finds another one does not go on. None: not looked at.
    """

    ref: SlideRef
    store: str | Path
    size: tuple[int, int]
    mpp: float
    downsample: float
    tissue: Tissue
    stains: Stains | None = None
    content: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class SlideResult:
    """How one slide ended.

    Attributes
    ----------
    store
        The maps; None when they could not be opened.
    done, background, failed
        Numbers of blocks.
    causes
        Why blocks (row, column) failed; a later call tries them again.
    error
        Why the slide as a whole cannot be used: it or its store could not be opened or written, or not one of
        its blocks could be predicted.
    seconds
        Where the time went, added up over all workers; for the log only.
    """

    job: SlideJob
    store: PredictionStore | None
    done: int
    background: int
    failed: int
    causes: Mapping[Block, str]
    error: SlideError | StoreError | None
    seconds: Seconds

    @property
    def slide_id(self) -> str:
        return self.job.ref.slide_id

    @property
    def complete(self) -> bool:
        """Whether every block is there."""
        return self.error is None and not self.failed


def map_info(
    job: SlideJob, card: ModelCard, block: int, cells: NDArray[np.bool_], passes: Passes | None = None
) -> MapInfo:
    """What the store of a job is of; `block` in working px."""
    digest = hashlib.sha256(repr(cells.shape).encode() + np.packbits(cells).tobytes()).hexdigest()
    return MapInfo(
        slide_id=job.ref.slide_id,
        size=job.size,
        mpp=job.mpp,
        downsample=job.downsample * card.output_downsample,
        classes=tuple((spec.name, spec.color) for spec in card.foreground),
        model_id=card.model_id,
        temperature=card.temperature,
        block=block // card.output_downsample,
        tissue=digest[:16],
        stains=job.stains if card.preprocessing == "macenko" else None,
        passes=passes,
        blend=card.blend,
        content=job.content,
    )


@dataclass(slots=True, eq=False)
class SlideWork:
    """A slide under way. Only the client's thread touches it.

    A block waits in `_queue` (taken in runs), in `_singles` (after it, or its worker, went wrong once) or in
    `_suspects` (its worker died twice: it is to be alone).
    """

    job: SlideJob
    store: PredictionStore
    retries: int
    _cells: NDArray[np.bool_]
    _per_block: int
    _states: NDArray[np.uint8]
    total: int = 0
    under_way: int = 0
    error: SlideError | StoreError | None = None
    seconds: Seconds = field(default_factory=Seconds)
    causes: dict[Block, str] = field(default_factory=dict)
    _attempts: Counter[Block] = field(default_factory=Counter)
    _losses: Counter[Block] = field(default_factory=Counter)
    _queue: deque[Block] = field(default_factory=deque)
    _singles: deque[Block] = field(default_factory=deque)
    _suspects: deque[Block] = field(default_factory=deque)

    @classmethod
    def start(
        cls, job: SlideJob, card: ModelCard, *, block: int, retries: int, passes: Passes | None = None
    ) -> SlideWork:
        """Open or make the store, and queue what is not done yet.

        Parameters
        ----------
        block
            Side of a block in working px, for a new store.

        Raises
        ------
        StoreError
            See `PredictionStore.open_or_create`.
        """
        cell = card.cell
        cells = np.asarray(job.tissue.cells(cell, job.downsample, job.size), bool)
        store = PredictionStore.open_or_create(job.store, map_info(job, card, block, cells, passes))
        per_block = store.block * card.output_downsample // cell
        work = cls(job, store, retries, cells, per_block, store.blocks)
        work._plan()
        return work

    def _plan(self) -> None:
        tissue = [block for block in self.store.grid if self._cells_of(block).any()]
        self.total = len(tissue)
        before = self._states.copy()
        background = np.full(self._states.shape, BlockState.BACKGROUND, np.uint8)
        for block in tissue:
            background[block] = self._states[block]
        self._states = background
        if (before != self._states).any():
            self.store.set_blocks(self._states)
        open_blocks = [block for block in tissue if self._states[block] != BlockState.DONE]
        self._queue.extend(strip_order(open_blocks, STRIP))

    def _cells_of(self, block: Block) -> NDArray[np.bool_]:
        return cells_of(self._cells, *block, self._per_block)

    @property
    def waiting(self) -> int:
        """Blocks that can be taken with `take`."""
        return len(self._queue) + len(self._singles)

    @property
    def has_suspects(self) -> bool:
        return bool(self._suspects)

    @property
    def finished(self) -> bool:
        """Nothing waits and nothing is under way."""
        return not (self.waiting or self._suspects or self.under_way)

    @property
    def done(self) -> int:
        """Tissue blocks that are there."""
        return int((self._states == BlockState.DONE).sum())

    @property
    def settled(self) -> list[Block]:
        """Blocks that nobody writes any more in this call: done, without tissue, or given up."""
        there = np.isin(self._states, (BlockState.DONE, BlockState.BACKGROUND))
        return [*((int(row), int(column)) for row, column in np.argwhere(there)), *self.causes]

    def take(self, most: int) -> tuple[BlockSpec, ...]:
        """The next blocks that belong together, `most` at most; they count as under way."""
        if self._queue:
            blocks = [self._queue.popleft() for _ in range(min(most, len(self._queue)))]
        else:
            blocks = [self._singles.popleft()]
        return self._begin(blocks)

    def take_suspect(self) -> tuple[BlockSpec, ...]:
        """One block that is to be tried with nothing beside it."""
        return self._begin([self._suspects.popleft()])

    def _begin(self, blocks: Sequence[Block]) -> tuple[BlockSpec, ...]:
        self.under_way += 1
        return tuple(BlockSpec.of(*block, self._cells_of(block)) for block in blocks)

    def came_back(self) -> None:
        """A run that was taken is over, however it ended; to be called before the result is taken in."""
        self.under_way -= 1

    def settle(self, outcome: RunOutcome) -> None:
        """Keep what a run has done, queue again what failed, give up what failed too often.

        Raises
        ------
        StoreError
            The states cannot be written.
        """
        self.seconds.add(outcome.seconds)
        for block in outcome.blocks:
            where = (block.row, block.column)
            if block.state == BlockState.DONE:
                self._states[where] = BlockState.DONE
            else:
                self._try_again(where, block.cause or "unknown")
        self._save()

    def fault(self, blocks: Iterable[BlockSpec], cause: str) -> None:
        """A run ended in an error that names none of its blocks: each is tried by itself."""
        for block in blocks:
            self._try_again((block.row, block.column), cause)
        self._save()

    def lost(self, blocks: Sequence[BlockSpec], cause: str, *, alone: bool) -> None:
        """A run was lost with its worker. `alone`: nothing else can have been at fault."""
        for spec in blocks if self.error is None else ():
            block = (spec.row, spec.column)
            self._losses[block] += 1
            if alone:
                self._give_up(block, cause)
            elif self._losses[block] >= LOSSES:
                self._suspects.append(block)
            else:
                self._singles.append(block)
        self._save()

    def abandon(self, error: SlideError | StoreError) -> None:
        """The slide as a whole cannot go on; what is under way comes back and is ignored."""
        self.error = self.error or error
        for queue in (self._queue, self._singles, self._suspects):
            queue.clear()

    def _try_again(self, block: Block, cause: str) -> None:
        if self.error is not None:
            return
        self._attempts[block] += 1
        if self._attempts[block] > self.retries:
            self._give_up(block, cause)
        else:
            self._singles.append(block)

    def _give_up(self, block: Block, cause: str) -> None:
        self._states[block] = BlockState.FAILED
        self.causes[block] = cause

    def _save(self) -> None:
        if self.error is None:
            self.store.set_blocks(self._states)

    def result(self) -> SlideResult:
        """How it ended."""
        counts = Counter(int(state) for state in self._states.ravel())
        failed, done = counts[BlockState.FAILED], counts[BlockState.DONE]
        error = self.error
        if error is None and failed and not done:
            block, cause = next(iter(self.causes.items()))
            error = SlideUnreadable(
                self.job.ref.slide_id,
                f"none of its {failed} blocks with tissue could be predicted (block {block[0]},{block[1]}: {cause})",
                "mend that, or leave the slide out",
            )
        return SlideResult(
            self.job, self.store, done, counts[BlockState.BACKGROUND], failed, self.causes, error, self.seconds
        )


def failed_result(job: SlideJob, error: SlideError | StoreError) -> SlideResult:
    """The result of a slide whose store could not be opened."""
    return SlideResult(job, None, 0, 0, 0, {}, error, Seconds())
