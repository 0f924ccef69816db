"""Where tasks run: threads of this process, worker processes of this machine, or a cluster that is there already.

Here is what the engine needs of any of them; `dask_cluster` does it, and is loaded when an engine starts.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Final, Protocol, TypeVar

from wsi_pipeline.config import ClusterSettings
from wsi_pipeline.start import loading

A = TypeVar("A")
R = TypeVar("R")

SLOTS: Final = 2
"""Tasks at the same time in one process: while one computes, the other reads and writes."""


class WorkerLostError(Exception):
    """A task is gone with the worker that had it."""


class SchedulerLostError(Exception):
    """Nobody knows what became of a task: the scheduler went away."""


class Task(Protocol):
    """One call under way; hashable."""

    def outcome(self) -> Any:
        """What the call returned or, as a value, the error that it ended with; to be asked once the task is back.

        `WorkerLostError` and `SchedulerLostError` say that the call did not end at all.
        """


class Tasks(Protocol):
    """Calls under way, in the order in which they come back."""

    def submit(self, function: Callable[[A], Any], argument: A) -> Task:
        """Call a function somewhere; both must be known to all workers (picklable)."""

    def next(self) -> Task:
        """Wait for a task that has not come back before."""


class Cluster(Protocol):
    """Workers, and how they are to be used.

    Attributes
    ----------
    threads
        Model threads of a worker process; None: all cores. Where workers are there already, the fewest threads
        that one of them was started with: a site says in this way how many cores a worker has.
    elsewhere
        The workers may be on other machines: what is measured here says nothing of them.
    in_process
        They are threads of this process, whose processor time is theirs.
    """

    @property
    def threads(self) -> int | None: ...

    @property
    def elsewhere(self) -> bool: ...

    @property
    def in_process(self) -> bool: ...

    @property
    def has_gpus(self) -> bool:
        """Whether some workers say that they have GPUs."""

    def units(self, *, gpu: bool) -> int:
        """How many machines have workers now or, with `gpu`, how many GPUs they say they have; 1 at least."""

    @property
    def alive(self) -> bool:
        """Whether it can still be asked for anything."""

    def slots(self, *, gpu: bool, parallel: bool) -> int:
        """How many tasks can be at work at once, 1 at least.

        Parameters
        ----------
        gpu
            Only workers with a GPU count, with what they say they have.
        parallel
            The model computes several blocks at once by itself; otherwise a process needs `SLOTS` tasks at most.
        """

    def tasks(self, *, gpu: bool) -> Tasks:
        """A queue of its own; `gpu`: for workers with a GPU alone, where some have."""

    def call(self, function: Callable[..., R], *args: Any, gpu: bool, **kwargs: Any) -> R:
        """Call a function on one worker and wait for what it gives."""

    def everywhere(self, function: Callable[..., Any], *args: Any) -> None:
        """Call a function in each worker process; its errors are passed over."""

    def listen(self, on_news: Callable[[Any], None]) -> AbstractContextManager[None]:
        """Have `on_news` called with what tasks `say` while the block runs, also those of others; in another thread."""


def say(news: Any) -> None:
    """Tell who listens, from within a task and without waiting; `news` is plain data (msgpack). Elsewhere: nothing."""
    from wsi_pipeline.inference import dask_cluster

    dask_cluster.say(news)


def connect(
    scheduler: str | None, workers: int | None, launch: ClusterSettings | None = None
) -> AbstractContextManager[Cluster]:
    """A cluster for the time of the block.

    Parameters
    ----------
    scheduler
        Address of a dask scheduler that is there (`tcp://host:8786`); None for this machine.
    workers
        Worker processes to start on this machine, the cores shared among them; None: threads of this process.
    launch
        Workers to have started by SLURM or Kubernetes, where no `scheduler` is given.

    Raises
    ------
    ClusterError
        On entering: the scheduler does not answer, or has no workers.
    """
    with loading():
        from wsi_pipeline.inference import dask_cluster

    if scheduler is not None:
        return dask_cluster.existing(scheduler)
    if launch is not None:
        return dask_cluster.ordered(launch)
    return dask_cluster.local(workers)
