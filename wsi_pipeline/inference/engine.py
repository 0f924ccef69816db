"""The engine: slides in, maps out. Runs of blocks in a sliding window, slides as they come.

The caller's thread is the client: it pulls slides from an iterable as there is room, hands out runs of
blocks, and alone writes which blocks are done. Nothing of the cohort is kept but the slides under way.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Self

from wsi_pipeline.config import ClusterSettings, Config, Uncertainty
from wsi_pipeline.errors import ModelError
from wsi_pipeline.inference import registry
from wsi_pipeline.inference.cluster import Cluster, connect
from wsi_pipeline.inference.registry import ModelSpec
from wsi_pipeline.inference.rounds import Follower, Means, OnProgress, Pace, Round
from wsi_pipeline.inference.slide_work import SlideJob, SlideResult
from wsi_pipeline.models import ModelCard, RuntimeChoice, choose_runtime, load_card
from wsi_pipeline.models.ensemble import Passes

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """How to run; nothing here but `passes` can change a map by more than rounding.

    Attributes
    ----------
    block, window
        Working px; a block is rounded up to whole cells of the model. Halos count to the window.
    scheduler
        Address of a dask scheduler that is there; None: this machine.
    cluster
        Workers that SLURM or Kubernetes starts for the time of the engine; goes before `workers`.
    workers
        Worker processes on this machine; None: threads of this process.
    retries
        How often a block that failed is tried again.
    passes
        Further predictions where the model is not sure; they do change the map there. None: none.
    device, runtime, precision
        "auto", or what an earlier call chose, so that a resumed run goes on in the same way.
    batch
        Small windows that a CPU computes at once, as an earlier call chose; None: as measured with the runtime.
    """

    block: int = 2048
    window: int = 1024
    scheduler: str | None = None
    cluster: ClusterSettings | None = None
    workers: int | None = None
    retries: int = 2
    device: str = "auto"
    runtime: str = "auto"
    precision: str = "auto"
    batch: int | None = None
    passes: Passes | None = None

    @classmethod
    def of(cls, config: Config) -> EngineSettings:
        """What a configuration says."""
        inference, model = config.inference, config.model
        return cls(
            block=inference.block,
            window=inference.window,
            scheduler=inference.scheduler,
            cluster=inference.cluster if inference.scheduler is None else None,
            workers=inference.workers,
            retries=inference.retries,
            device=model.device,
            runtime=model.runtime,
            precision=model.precision,
            passes=passes_of(inference.uncertainty),
        )


def passes_of(uncertainty: Uncertainty) -> Passes | None:
    """The passes that a configuration asks for."""
    if not uncertainty.on:
        return None
    return Passes(uncertainty.tta, uncertainty.dropout, uncertainty.above)


class Engine:
    """Predicts slides with one model; a context manager.

    Parameters
    ----------
    model_path
        As `wsi_pipeline.models.load_segmenter`; every worker must be able to read it.

    Attributes
    ----------
    runtime
        How the model runs, chosen when the engine is entered (on a worker, where workers are elsewhere).

    Raises
    ------
    ModelError
        On entering: the model cannot be used.
    ClusterError
        On entering: the scheduler does not answer or has no workers.
    """

    runtime: RuntimeChoice

    def __init__(self, model_path: str, settings: EngineSettings | None = None) -> None:
        self.settings = settings or EngineSettings()
        self.model_path = model_path
        self.card: ModelCard = load_card(model_path)
        self._session = uuid.uuid4().hex
        self._stack = ExitStack()
        self._pace = Pace()
        self._round: Round | None = None
        self._cluster: Cluster
        self._model: ModelSpec

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._cluster = stack.enter_context(self._connect())
            stack.callback(self._forget)
            self.runtime = self._choose_runtime()
            if self.settings.batch is not None:
                self.runtime = replace(self.runtime, batch=self.settings.batch)
            self._model = ModelSpec(
                self.model_path,
                self.runtime.device,
                self.runtime.runtime,
                self.runtime.precision,
                self._cluster.threads or self._measured_threads(),
                self.runtime.batch,
            )
            logger.info("model %s: %s", self.card.model_id, self.runtime.reason)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            # An iterator that is kept in a frame of the error's traceback has not been closed.
            if self._round is not None:
                self._round.settle_down()
        finally:
            self._stack.close()

    def predict(
        self,
        jobs: Iterable[SlideJob],
        on_progress: OnProgress | None = None,
        follower: Follower | None = None,
    ) -> Iterator[SlideResult]:
        """Predict slides; each comes back as soon as it is through, in whatever order.

        `jobs` is asked for the next slide when there is room for it, in the caller's thread. A block that cannot
        be predicted, or a slide that cannot be opened, is in its result; the others go on. When the caller stops
        (an error, Ctrl-C, or closing the iterator), blocks that are at work are finished and kept. `on_progress` is
        called in the caller's thread; `follower` hears of each block as soon as it is stored, and of all of them
        before the slide's result comes.

        Raises
        ------
        ClusterError
            The scheduler went away. What is done is kept.
        ModelError
            A worker cannot load the model.
        """
        means = Means(
            session=self._session,
            cluster=self._cluster,
            card=self.card,
            model=self._model,
            window=self.card.window if self.card.fixed_window else self.settings.window,
            block=self.block,
            retries=self.settings.retries,
            passes=self.settings.passes,
        )
        self._round = Round(means, self._pace, on_progress, follower)
        try:
            yield from self._round.results(iter(jobs))
        finally:
            self._round.settle_down()

    @property
    def units(self) -> int:
        """How many machines are at work now or, where the model runs on GPUs, how many of these."""
        return self._cluster.units(gpu=self.runtime.device != "cpu") if self._cluster.alive else 1

    @property
    def in_process(self) -> bool:
        """Whether threads of this process do the work."""
        return self._cluster.in_process

    def _connect(self) -> AbstractContextManager[Cluster]:
        settings = self.settings
        return connect(settings.scheduler, settings.workers, settings.cluster)

    def _choose_runtime(self) -> RuntimeChoice:
        wish: dict[str, Any] = {
            "device": self.settings.device,
            "runtime": self._wished_runtime(),
            "precision": self.settings.precision,
            "threads": self._cluster.threads,
        }
        if not self._cluster.elsewhere:
            return choose_runtime(self.model_path, **wish)
        return self._cluster.call(choose_runtime, self.model_path, gpu=self.settings.device != "cpu", **wish)

    def _measured_threads(self) -> int | None:
        """Where the model has this process for itself: as many as were found to be the fastest."""
        return self.runtime.threads if self.runtime.device == "cpu" else None

    def _wished_runtime(self) -> str:
        """Only torch can leave dropout at work: nothing else is tried where it is asked for."""
        passes, runtime = self.settings.passes, self.settings.runtime
        if passes is None or not passes.dropout or self.card.architecture != "unet":
            return runtime
        if not self.card.architecture_args.get("dropout"):
            raise ModelError(
                f"model {self.card.name} has no dropout layers; set `inference.uncertainty.dropout: 0` "
                "(`tta` works with any model)"
            )
        if runtime not in ("auto", "torch"):
            raise ModelError(f"runtime {runtime} cannot leave dropout at work; set `model.runtime: torch`")
        return "torch"

    def _forget(self) -> None:
        if self._cluster.alive:
            self._cluster.everywhere(registry.forget, self._session)

    @property
    def block(self) -> int:
        """Side of a block of a new store in working px."""
        cell = self.card.cell
        return -(-self.settings.block // cell) * cell
