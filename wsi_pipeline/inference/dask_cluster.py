"""Tasks by dask.distributed: in threads of this process, in processes here, or on a cluster that is there."""

from __future__ import annotations

import importlib.util
import logging
import pickle
import pkgutil
import time
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, cast
from urllib.parse import urlsplit

import dask
from distributed import Client, Future, KilledWorker, LocalCluster, as_completed, get_worker
from distributed.versions import VersionMismatchWarning

from wsi_pipeline.config import ClusterSettings
from wsi_pipeline.errors import ClusterError, WorkerUnfit
from wsi_pipeline.inference.cluster import SLOTS, A, R, SchedulerLostError, WorkerLostError
from wsi_pipeline.inference.launch import SETTINGS, launched, refused
from wsi_pipeline.inference.patience import Patience
from wsi_pipeline.inference.remote import PACKAGE, missing, packed
from wsi_pipeline.models.machine import available_cores

logger = logging.getLogger(__name__)

CONNECT_S: Final = 30
WORKERS_S: Final = 300
"""How long there may be no worker, at the beginning or later."""
WAKE_S: Final = 0.1
CLOSE_S: Final = 60
"""How long worker processes of this machine may take to end before they are killed."""
MOST_THREADS: Final = 8
"""Tasks at the same time in this process when the model is one that does not use all cores by itself."""
GPU: Final = "GPU"
"""Name of the dask resource by which a cluster says which workers have a GPU (`dask worker --resources GPU=1`)."""
LOOPBACK: Final = "127.0.0.1"
NEWS: Final = "wsi-pipeline"
"""The topic of what tasks say; one for all runs, since a scheduler never forgets a topic."""


class DaskTask:
    """See `Task`."""

    def __init__(self, client: Client, future: Future[Any], patience: Patience) -> None:
        self._client = client
        self._future = future
        self._patience = patience

    def outcome(self) -> Any:
        try:
            # The result lies on the worker still, which may have died since.
            error = self._patience.wait(self._future)
            found = self._future.result() if error is None else error
        except (CancelledError, KilledWorker) as gone:
            found = gone
        if isinstance(found, KilledWorker):
            return WorkerLostError(str(found))
        if isinstance(found, CancelledError):
            return SchedulerLostError(str(found))
        return unfit(self._client, found) or found if isinstance(found, Exception) else found


class DaskTasks:
    """See `Tasks`.

    Parameters
    ----------
    named
        See `remote.packed`.
    """

    def __init__(self, client: Client, resources: dict[str, int] | None, patience: Patience, *, named: bool) -> None:
        self._client = client
        self._resources = resources
        self._patience = patience
        self._named = named
        self._back = as_completed(loop=client.loop)
        self._sent: dict[Future[Any], DaskTask] = {}

    def submit(self, function: Callable[[A], Any], argument: A) -> DaskTask:
        key = f"predict-blocks-{uuid.uuid4().hex}"
        call = packed(function, argument, named=self._named)
        future = self._client.submit(pickle.loads, call, key=key, pure=False, resources=self._resources)
        task = self._sent[future] = DaskTask(self._client, future, self._patience)
        self._back.add(future)
        return task

    def next(self) -> DaskTask:
        while self._back.queue.empty():
            with self._back.thread_condition:
                self._back.thread_condition.wait(timeout=WAKE_S)
            self._patience.look()
        return self._sent.pop(next(self._back))


@dataclass(frozen=True, slots=True)
class DaskCluster:
    """See `Cluster`."""

    client: Client
    threads: int | None
    elsewhere: bool = False
    in_process: bool = False
    patience_s: float | None = None

    def units(self, *, gpu: bool) -> int:
        if not self.elsewhere:
            return 1
        workers = self._workers()
        if gpu and self.has_gpus:
            return max(1, int(sum(w["resources"].get(GPU, 0) for w in workers)))
        return max(1, len({w["host"] for w in workers}))

    def slots(self, *, gpu: bool, parallel: bool) -> int:
        workers = self._workers()
        if gpu and self.has_gpus:
            return max(1, int(sum(w["resources"].get(GPU, 0) for w in workers)))
        return max(1, sum(int(w["nthreads"]) if parallel else min(SLOTS, int(w["nthreads"])) for w in workers))

    @property
    def has_gpus(self) -> bool:
        return any(w["resources"].get(GPU) for w in self._workers())

    @property
    def alive(self) -> bool:
        return bool(self.client.status == "running")

    def tasks(self, *, gpu: bool) -> DaskTasks:
        resources = self._resources(gpu)
        return DaskTasks(self.client, resources, self._patience(resources), named=self.elsewhere)

    def call(self, function: Callable[..., R], *args: Any, gpu: bool, **kwargs: Any) -> R:
        call, resources = packed(function, *args, **kwargs, named=self.elsewhere), self._resources(gpu)
        future = self.client.submit(pickle.loads, call, pure=False, resources=resources)
        error = self._patience(resources).wait(future)
        if isinstance(error, KilledWorker):
            raise ClusterError(f"a worker died while the model was tried there ({error}); see its log") from error
        if isinstance(error, CancelledError):
            raise ClusterError("the dask scheduler went away; the same command begins anew") from error
        if error is not None and (said := unfit(self.client, error)) is not None:
            raise said from error
        found: R = future.result()
        return found

    def everywhere(self, function: Callable[..., Any], *args: Any) -> None:
        self.client.run(function, *args, on_error="ignore")

    @contextmanager
    def listen(self, on_news: Callable[[Any], None]) -> Iterator[None]:
        # An event comes with the time of the scheduler.
        self.client.subscribe_topic(NEWS, lambda event: on_news(event[1]))
        try:
            yield
        finally:
            if self.alive:
                self.client.unsubscribe_topic(NEWS)

    def _patience(self, resources: dict[str, int] | None) -> Patience:
        return Patience(self.client, self.patience_s, resource=next(iter(resources or ()), None))

    def _resources(self, gpu: bool) -> dict[str, int] | None:
        return {GPU: 1} if gpu and self.has_gpus else None

    def _workers(self) -> list[dict[str, Any]]:
        return list(self.client.scheduler_info(n_workers=-1)["workers"].values())


def unfit(client: Client, error: BaseException) -> WorkerUnfit | None:
    """What to say of an error that comes of workers without this package; None where it is another."""
    said = missing(error)
    if said is None:
        return None
    found = client.run(pkgutil.resolve_name, f"{PACKAGE}:__version__", on_error="return")
    without = sorted(address for address, version in found.items() if isinstance(version, Exception))
    return WorkerUnfit(
        f"{said}; {len(without)} of {len(found)} have none: {', '.join(without[:5])}" if without else said
    )


def say(news: Any) -> None:
    """See `cluster.say`."""
    try:
        worker = get_worker()
    except ValueError:  # not within a task
        return
    worker.log_event(NEWS, news)


def wanted() -> bool:
    """See `cluster.wanted`."""
    try:
        worker = get_worker()
        key = worker.get_current_task()
    except (ValueError, KeyError):  # not within a task
        return True
    task = worker.state.tasks.get(key)
    return task is not None and task.state != "cancelled"


def _elsewhere(client: Client, patience_s: float | None) -> DaskCluster:
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    threads = min((int(w["nthreads"]) for w in workers), default=1)
    return DaskCluster(client, threads=threads, elsewhere=True, patience_s=patience_s)


@contextmanager
def ordered(settings: ClusterSettings) -> Iterator[DaskCluster]:
    """Workers that SLURM or Kubernetes starts."""
    refusals: list[str] = []

    def on_refusal(told: str) -> None:
        # One of many jobs may be beyond a limit of the site: the others do its work.
        if told not in refusals:
            logger.warning("%s: a worker is refused: %s", settings.kind, told)
        refusals.append(told)

    with (
        dask.config.set(SETTINGS),
        _quiet(),
        launched(settings, on_refusal) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        _wait_for_first(client, settings, refusals)
        yield _elsewhere(client, patience_s=None)


def _wait_for_first(client: Client, settings: ClusterSettings, refusals: Sequence[str]) -> None:
    """Queues are long; the workers that come first begin."""
    begun = said = time.monotonic()
    while not client.scheduler_info(n_workers=-1)["workers"]:
        # As many as were to come at once: none of them will.
        if len(refusals) >= (settings.workers if settings.fewest is None else max(1, settings.fewest)):
            raise ClusterError(refused(settings, refusals[-1]))
        if time.monotonic() - said > WORKERS_S:
            said = time.monotonic()
            logger.info("%s: no worker has begun for %.0f s; waiting (interrupt to stop)", settings.kind, said - begun)
        time.sleep(WAKE_S)


@contextmanager
def existing(scheduler: str) -> Iterator[DaskCluster]:
    """The workers of a scheduler that is there, which stays as it is."""
    try:
        with warnings.catch_warnings():
            # A table of packages that differ, most of which do not matter; see `_check_versions`.
            warnings.simplefilter("ignore", VersionMismatchWarning)
            client = Client(scheduler, timeout=CONNECT_S, set_as_default=False)
    except (OSError, ValueError) as error:  # a time-out is an OSError; an address that is none a ValueError
        raise ClusterError(
            f"there is no dask scheduler at {scheduler} ({_first_line(error)}); start one, or leave "
            "`inference.scheduler` out to use this machine"
        ) from error
    with _quiet(), client:
        if not client.scheduler_info(n_workers=-1)["workers"]:
            logger.info("dask scheduler %s has no worker; waiting for one, %d s at most", scheduler, WORKERS_S)
        try:
            client.wait_for_workers(1, timeout=WORKERS_S)
        except TimeoutError as error:
            raise ClusterError(
                f"the dask scheduler at {scheduler} has had no worker for {WORKERS_S} s; start some with "
                f"`dask worker {scheduler}`"
            ) from error
        _check_versions(client, scheduler)
        logger.info("dask scheduler %s, dashboard %s", scheduler, client.dashboard_link)
        yield _elsewhere(client, patience_s=WORKERS_S)


@contextmanager
def local(workers: int | None) -> Iterator[DaskCluster]:
    """Worker processes of this machine, its cores shared among them; None: threads of this process."""
    settings: dict[str, Any] = {
        # Waited for: one that cannot start is told at once.
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
    with (
        dask.config.set(SETTINGS),
        _closing(_started(settings)) as cluster,
        # Not the default of this process: whoever calls may have a client, or a scheduler of dask, of their own.
        Client(cluster, set_as_default=False) as client,
    ):
        # Without bokeh there is nothing to see.
        if importlib.util.find_spec("bokeh") is not None:
            logger.info("dask dashboard at http://%s:%d/status", LOOPBACK, urlsplit(cluster.dashboard_link).port)
        threads = None if workers is None else max(1, available_cores() // workers)
        yield DaskCluster(client, threads, in_process=workers is None, patience_s=WORKERS_S)


def _started(settings: Mapping[str, Any]) -> LocalCluster:
    try:
        return LocalCluster(**settings)
    except (RuntimeError, OSError) as error:
        cause = _first_line(error.__cause__ or error)
        raise ClusterError(f"the worker processes did not start ({cause}); the same command tries again") from error


@contextmanager
def _closing(cluster: LocalCluster) -> Iterator[LocalCluster]:
    """As the cluster's own block, but it does not wait for ever for a process that cannot end."""
    try:
        yield cluster
    finally:
        try:
            cluster.close(timeout=CLOSE_S)
        except TimeoutError:
            logger.warning("worker processes have not ended in %d s; they are killed when this program ends", CLOSE_S)


def _check_versions(client: Client, scheduler: str) -> None:
    """Of two versions of dask, one cannot open what the other sends: workers would end one after the other."""
    found = cast("dict[str, Any]", client.get_versions(check=False))
    others = {f"the dask scheduler at {scheduler}": found["scheduler"]}
    others |= {f"the dask worker at {address}": of for address, of in found["workers"].items()}
    for name in ("dask", "distributed"):
        ours = found["client"]["packages"][name]
        for who, of in sorted(others.items()):
            if of["packages"][name] != ours:
                raise WorkerUnfit(
                    f"{who} has {name} {of['packages'][name]}, this command {ours}: they do not understand each other; "
                    "install the same version in the environments of the command, the scheduler and all workers"
                )


@contextmanager
def _quiet() -> Iterator[None]:
    """What goes wrong with a cluster is told by this package: others would add their tracebacks to it."""
    loggers = [
        logging.getLogger(name) for name in ("distributed", "distributed.client", "tornado.application", "asyncio")
    ]
    before = [told.level for told in loggers]
    for told in loggers:
        told.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for told, level in zip(loggers, before, strict=True):
            told.setLevel(level)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
