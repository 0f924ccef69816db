"""Where tasks run: threads of this process, worker processes of this machine, or a cluster that is there already."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from wsi_pipeline.config import ClusterSettings
from wsi_pipeline.errors import ClusterError
from wsi_pipeline.models.machine import available_cores

if TYPE_CHECKING:
    from distributed import Client

logger = logging.getLogger(__name__)

SLOTS: Final = 2
"""Tasks at the same time in one process: while one computes, the other reads and writes."""
MOST_THREADS: Final = 8
"""Tasks at the same time in this process when the model is one that does not use all cores by itself."""
CONNECT_S: Final = 30
WORKERS_S: Final = 300
GPU: Final = "GPU"
"""Name of the dask resource by which a cluster says which workers have a GPU (`dask worker --resources GPU=1`)."""
LOOPBACK: Final = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Cluster:
    """A connected client, and how its workers are to be used.

    Attributes
    ----------
    in_process
        The tasks run in threads of this process.
    threads
        Model threads of a worker process; None: all cores. Where workers are there already, the fewest threads
        that one of them was started with: a site says in this way how many cores a worker has.
    elsewhere
        The workers may be on other machines: what is measured here says nothing of them.
    """

    client: Client
    in_process: bool
    threads: int | None
    elsewhere: bool = False

    def slots(self, *, gpu: bool, parallel: bool) -> int:
        """How many tasks can be at work at once, 1 at least.

        Parameters
        ----------
        gpu
            Only workers with a GPU count, with what they say they have.
        parallel
            The model computes several blocks at once by itself; otherwise a process needs `SLOTS` tasks at most.
        """
        workers = self.client.scheduler_info(n_workers=-1)["workers"].values()
        if gpu and self.has_gpus:
            return max(1, int(sum(w["resources"].get(GPU, 0) for w in workers)))
        return max(1, sum(int(w["nthreads"]) if parallel else min(SLOTS, int(w["nthreads"])) for w in workers))

    @property
    def has_gpus(self) -> bool:
        """Whether some workers say that they have GPUs."""
        workers = self.client.scheduler_info(n_workers=-1)["workers"].values()
        return any(w["resources"].get(GPU) for w in workers)


@contextmanager
def connect(scheduler: str | None, workers: int | None, launch: ClusterSettings | None = None) -> Iterator[Cluster]:
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
        The scheduler does not answer, or has no workers.
    """
    if scheduler is not None:
        with _existing(scheduler) as client:
            yield _elsewhere(client)
    elif launch is not None:
        with _launched(launch) as client:
            yield _elsewhere(client)
    else:
        with _local(workers) as client:
            threads = None if workers is None else max(1, available_cores() // workers)
            yield Cluster(client, in_process=workers is None, threads=threads)


def _elsewhere(client: Client) -> Cluster:
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    return Cluster(client, in_process=False, threads=min(int(w["nthreads"]) for w in workers), elsewhere=True)


@contextmanager
def _launched(settings: ClusterSettings) -> Iterator[Client]:
    import dask
    from distributed import Client

    from wsi_pipeline.inference.launch import launched

    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        launched(settings) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        # Queues are long; the workers that come first begin.
        while not client.scheduler_info(n_workers=-1)["workers"]:
            try:
                client.wait_for_workers(1, timeout=WORKERS_S)
            except TimeoutError:
                logger.info("%s: no worker has begun so far; waiting (interrupt to stop)", settings.kind)
        yield client


@contextmanager
def _existing(scheduler: str) -> Iterator[Client]:
    from distributed import Client

    try:
        client = Client(scheduler, timeout=CONNECT_S, set_as_default=False)
    except (OSError, ValueError) as error:  # a time-out is an OSError; an address that is none a ValueError
        raise ClusterError(
            f"there is no dask scheduler at {scheduler} ({_first_line(error)}); start one, or leave "
            "`inference.scheduler` out to use this machine"
        ) from error
    with client:
        try:
            client.wait_for_workers(1, timeout=WORKERS_S)
        except TimeoutError as error:
            raise ClusterError(
                f"the dask scheduler at {scheduler} has had no worker for {WORKERS_S} s; start some with "
                f"`dask worker {scheduler}`"
            ) from error
        logger.info("dask scheduler %s, dashboard %s", scheduler, client.dashboard_link)
        yield client


@contextmanager
def _local(workers: int | None) -> Iterator[Client]:
    import dask
    from distributed import Client, LocalCluster

    settings: dict[str, Any] = {
        "n_workers": workers or 1,
        "threads_per_worker": max(SLOTS, min(MOST_THREADS, available_cores())) if workers is None else SLOTS,
        "processes": workers is not None,
        # Memory is bounded by blocks; dask's own limits would pause or kill workers for what other programs use.
        "memory_limit": 0,
        "dashboard_address": f"{LOOPBACK}:0",
        "worker_dashboard_address": f"{LOOPBACK}:0",
        # What goes wrong is told by this package, slide by slide.
        "silence_logs": logging.CRITICAL,
    }
    if workers is not None:
        settings |= {"host": LOOPBACK, "preload": "wsi_pipeline.inference.worker_setup"}
    # A worker that dies is told at once: the engine itself decides what to try again.
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        LocalCluster(**settings) as cluster,
        # Not the default of this process: whoever calls may have a client, or a scheduler of dask, of their own.
        Client(cluster, set_as_default=False) as client,
    ):
        # Without bokeh there is nothing to see.
        if importlib.util.find_spec("bokeh") is not None:
            logger.info("dask dashboard at http://%s:%d/status", LOOPBACK, urlsplit(cluster.dashboard_link).port)
        yield client


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
