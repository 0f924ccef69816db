"""One call of `Engine.predict`: slides come in as there is room, runs of blocks go out through a sliding window."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Final, Protocol

from wsi_pipeline.errors import ClusterError, ModelError, SlideError, StoreError, WorkerUnfit
from wsi_pipeline.inference import registry
from wsi_pipeline.inference.cluster import Cluster, SchedulerLostError, Task, WorkerLostError
from wsi_pipeline.inference.registry import ModelSpec
from wsi_pipeline.inference.slide_work import Block, SlideJob, SlideResult, SlideWork, failed_result
from wsi_pipeline.inference.store import PredictionStore
from wsi_pipeline.inference.work import BlockRun, BlockSpec, RunOutcome, run_blocks
from wsi_pipeline.models import ModelCard
from wsi_pipeline.models.ensemble import Passes

logger = logging.getLogger(__name__)

RUN_SECONDS: Final = 10.0
"""Runs are made about this long: it is what a kill costs, and how often progress is seen."""
MOST_BLOCKS: Final = 32
FIRST_BLOCKS: Final = 4
"""Blocks of a run while it is not known how long one takes."""
AHEAD: Final = 2
"""Runs handed out for each that can be at work."""
LOOK_EVERY_S: Final = 5.0
"""How often the cluster is asked how many workers it has."""

OnProgress = Callable[[str, int, int], None]
"""Told slide id, blocks done, and blocks with tissue in all."""


class Follower(Protocol):
    """Who goes on from blocks while others are computed."""

    def settled(self, slide_id: str, store: PredictionStore, blocks: Iterable[Block]) -> None:
        """These blocks are as they stay: done, without tissue, or given up.

        Called from several threads, which it must not keep; a block may be told twice.
        """

    def unsettled(self, slide_id: str) -> None:
        """Some of the blocks told of are computed once more: nothing is settled but what is told from here on."""


@dataclass(frozen=True, slots=True, eq=False)
class Means:
    """What an engine works with; `window` and `block` in working px."""

    session: str
    cluster: Cluster
    card: ModelCard
    model: ModelSpec
    window: int
    block: int
    retries: int
    passes: Passes | None = None


@dataclass(slots=True)
class Pace:
    """How long blocks took of late."""

    seconds_per_block: float | None = None

    def learn(self, outcome: RunOutcome) -> None:
        """Half of what is known comes from the last run."""
        if outcome.blocks:
            new, old = outcome.seconds.whole / len(outcome.blocks), self.seconds_per_block
            self.seconds_per_block = new if old is None else (old + new) / 2

    def run_length(self, waiting: int, slots: int) -> int:
        """Blocks of the next run: about `RUN_SECONDS` long, and a share of what waits for each slot."""
        known = self.seconds_per_block
        wanted = FIRST_BLOCKS if known is None else int(RUN_SECONDS / max(known, 1e-3))
        return max(1, min(wanted, -(-waiting // slots), MOST_BLOCKS))


@dataclass(frozen=True, slots=True, eq=False)
class _Sent:
    """A run that was handed out."""

    work: SlideWork
    blocks: tuple[BlockSpec, ...]
    alone: bool


class Round:
    """Slides under way and runs handed out; used by one thread."""

    def __init__(
        self, means: Means, pace: Pace, on_progress: OnProgress | None, follower: Follower | None = None
    ) -> None:
        self._means = means
        self._pace = pace
        self._on_progress = on_progress
        self._follower = follower
        # By the path of the store; a thread of the cluster looks a slide up here.
        self._by_store: dict[str, SlideWork] = {}
        self._gpu = means.model.device != "cpu"
        self._tasks = means.cluster.tasks(gpu=self._gpu)
        self._sent: dict[Task, _Sent] = {}
        self._slides: list[SlideWork] = []
        self._results: list[SlideResult] = []
        self._more = True
        self._slots = (0, -LOOK_EVERY_S)

    def results(self, jobs: Iterator[SlideJob]) -> Iterator[SlideResult]:
        """See `Engine.predict`."""
        following = nullcontext() if self._follower is None else self._means.cluster.listen(self._hear)
        with following:
            yield from self._results_of(jobs)

    def _results_of(self, jobs: Iterator[SlideJob]) -> Iterator[SlideResult]:
        while True:
            self._fill(jobs)
            # Taken out before the caller sees them: it may stop at any.
            ready, self._results = self._results, []
            yield from ready
            if self._sent:
                self._collect_next()
            elif not (self._slides or self._results or self._more):
                return

    def settle_down(self) -> None:
        """Let the blocks that are at work end and keep them; what was not begun is left for another call."""
        cluster, session = self._means.cluster, self._means.session
        if not self._sent or not cluster.alive:
            return
        logger.info("stopping: blocks that are at work are finished first (interrupt again not to wait)")
        cluster.everywhere(registry.stop, session, True)
        try:
            while self._sent:
                task = self._tasks.next()
                sent, outcome = self._sent.pop(task), task.outcome()
                if isinstance(outcome, RunOutcome):
                    self._keep(sent.work, outcome)
        except ClusterError as error:
            logger.error("%s", error)
            self._sent.clear()
        finally:
            # Interrupted again: what is still at work is to stop all the same.
            if not self._sent:
                cluster.everywhere(registry.stop, session, False)

    def _keep(self, work: SlideWork, outcome: RunOutcome) -> None:
        try:
            work.settle(outcome)
        except StoreError as error:
            logger.error("%s", error)

    def _fill(self, jobs: Iterator[SlideJob]) -> None:
        """Hand out runs until there are enough, and ask for slides as long as there is room."""
        suspects = [work for work in self._slides if work.has_suspects]
        if suspects:
            if not self._sent:
                self._send(suspects[0], suspects[0].take_suspect(), alone=True)
            return
        slots = self._count_slots()
        while len(self._sent) < AHEAD * slots and not self._results:
            work = next((work for work in self._slides if work.waiting), None)
            if work is not None:
                self._send(work, work.take(self._pace.run_length(work.waiting, slots)))
            elif self._more:
                self._begin(jobs)
            else:
                return

    def _count_slots(self) -> int:
        count, when = self._slots
        if time.monotonic() - when < LOOK_EVERY_S:
            return count
        parallel = self._means.model.runtime == "numpy"
        self._slots = (self._means.cluster.slots(gpu=self._gpu, parallel=parallel), time.monotonic())
        return self._slots[0]

    def _begin(self, jobs: Iterator[SlideJob]) -> None:
        job = next(jobs, None)
        if job is None:
            self._more = False
            return
        means = self._means
        try:
            work = SlideWork.start(job, means.card, block=means.block, retries=means.retries, passes=means.passes)
        except StoreError as error:
            self._results.append(failed_result(job, error))
            return
        self._tell(work)
        if work.finished:
            self._results.append(work.result())
        else:
            self._slides.append(work)
            self._by_store[work.store.path] = work

    def _send(self, work: SlideWork, blocks: tuple[BlockSpec, ...], *, alone: bool = False) -> None:
        means = self._means
        run = BlockRun(
            session=means.session,
            ref=work.job.ref,
            store=work.store.path,
            downsample=work.job.downsample,
            model=means.model,
            cell=means.card.cell,
            window=means.window,
            blocks=blocks,
            stains=work.store.info.stains,
            content=work.job.content,
            passes=means.passes,
        )
        self._sent[self._tasks.submit(run_blocks, run)] = _Sent(work, blocks, alone)

    def _collect_next(self) -> None:
        try:
            self._collect(self._tasks.next())
        except WorkerUnfit:
            raise
        except ClusterError:
            # What was sent does not come back: nobody is to wait for it once more.
            self._sent.clear()
            raise

    def _collect(self, task: Task) -> None:
        """One run came back, well or not."""
        sent = self._sent.pop(task)
        work = sent.work
        work.came_back()
        try:
            self._take_in(sent, task.outcome())
            if work.finished:
                # A worker that was killed in the middle of writing leaves a file behind, which nobody looks at again.
                work.store.clean()
        except (SlideError, StoreError) as error:
            work.abandon(error)
        self._tell(work)
        if work.finished:
            self._slides.remove(work)
            self._by_store.pop(work.store.path, None)
            self._log(work)
            self._results.append(work.result())

    def _take_in(self, sent: _Sent, outcome: RunOutcome | BaseException) -> None:
        """Give the slide what became of its run; raises what the slide cannot go on from, or nobody."""
        work, name = sent.work, sent.work.job.ref.slide_id
        if isinstance(outcome, RunOutcome):
            self._pace.learn(outcome)
            work.settle(outcome)
        elif isinstance(outcome, WorkerLostError):
            logger.warning("%s: a worker died with %d blocks; they are tried again", name, len(sent.blocks))
            self._recompute(work)
            work.lost(sent.blocks, "the worker died, and died again with nothing but this block", alone=sent.alone)
        elif isinstance(outcome, SchedulerLostError):
            self._sent.clear()
            raise ClusterError("the dask scheduler went away; the same command goes on from here") from outcome
        elif isinstance(outcome, (SlideError, StoreError, ModelError, WorkerUnfit)):
            raise outcome
        else:
            logger.warning("%s: %d blocks failed: %s", name, len(sent.blocks), outcome)
            self._recompute(work)
            work.fault(sent.blocks, " ".join(str(outcome).split()) or type(outcome).__name__)

    def _tell(self, work: SlideWork) -> None:
        if self._on_progress is not None:
            self._on_progress(work.job.ref.slide_id, work.done, work.total)
        if self._follower is not None and work.error is None:
            self._follower.settled(work.job.ref.slide_id, work.store, work.settled)

    def _hear(self, news: Any) -> None:
        """A worker says that it has stored a block; its run goes on."""
        session, store, row, column = news
        work = self._by_store.get(store) if session == self._means.session else None
        if work is not None and self._follower is not None:
            self._follower.settled(work.job.ref.slide_id, work.store, [(row, column)])

    def _recompute(self, work: SlideWork) -> None:
        """Blocks of a run that nobody knows the end of may have been told of, and are computed again."""
        if self._follower is not None:
            self._follower.unsettled(work.job.ref.slide_id)

    def _log(self, work: SlideWork) -> None:
        s = work.seconds
        logger.info(
            "%s: %d of %d blocks; seconds of all workers: model %.1f, reading %.1f (waited for: %.1f), writing %.1f",
            work.job.ref.slide_id, work.done, work.total, s.model, s.read, s.wait, s.write,
        )  # fmt: skip
