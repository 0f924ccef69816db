"""Workers that a batch system (SLURM) or Kubernetes starts for the time of one call.

dask-jobqueue and dask-kubernetes do the work, and are extras: most users have a scheduler already, or one machine.
What a site needs beyond the settings here goes to them as it is (`options`).
"""

from __future__ import annotations

import atexit
import logging
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

from dask.utils import parse_bytes

from wsi_pipeline.config import ClusterSettings
from wsi_pipeline.errors import ClusterError

logger = logging.getLogger(__name__)

# Of the scheduler that lives in this process; workers and users reach it by its own port, the dashboard by a tunnel.
DASHBOARD = "127.0.0.1:0"
GPU_RESOURCE = "GPU=1"
# Of the schedulers and workers that are started for a call.
SETTINGS: Final = {
    # A worker that dies is told at once: the engine itself decides what to try again.
    "distributed.scheduler.allowed-failures": 0,
    # What dask keeps of the last messages, for its developers: runs of blocks, megabytes for each worker.
    "distributed.admin.low-level-log-length": 20,
    # dask samples the stacks of its threads a hundred times a second and notes how late its loop is fifty times; both
    # are for its developers, and took a thirtieth of a processor while the model ran.
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "500ms",
    "distributed.admin.system-monitor.interval": "2s",
}


@contextmanager
def launched(settings: ClusterSettings, on_refusal: Callable[[str], None]) -> Iterator[Any]:
    """A dask cluster with its workers ordered; they come when the site has room, and go when the block ends.

    Parameters
    ----------
    on_refusal
        Called, in another thread, with what a batch system says that does not take a job.

    Raises
    ------
    ClusterError
        The extra is not installed, or the batch system or Kubernetes cannot be asked.
    """
    try:
        cluster = _slurm(settings, on_refusal) if settings.kind == "slurm" else _kubernetes(settings)
    except ImportError as error:
        raise ClusterError(
            f"`--cluster {settings.kind}` needs more packages ({error.name}); "
            f"pip install 'wsi-pipeline[{settings.kind}]'"
        ) from error
    except (OSError, RuntimeError, ValueError, TypeError) as error:
        raise ClusterError(refused(settings, _said(error))) from error
    with cluster:
        try:
            order(cluster, settings)
        except (OSError, RuntimeError) as error:
            raise ClusterError(refused(settings, _said(error))) from error
        logger.info("%s: %s ordered, dashboard %s", settings.kind, _in_words(settings), cluster.dashboard_link)
        yield cluster


def order(cluster: Any, settings: ClusterSettings) -> None:
    """Ask for a fixed number of workers, or for as many as there is work for.

    One at least: which work there is, and in what way the model runs, is found out on the first worker.
    """
    if settings.fewest is None:
        cluster.scale(settings.workers)
    else:
        cluster.adapt(minimum=max(1, settings.fewest), maximum=settings.workers)


def slurm_options(settings: ClusterSettings) -> dict[str, Any]:
    """What `dask_jobqueue.SLURMCluster` is called with: one worker process a job, with all its cores as threads."""
    directives = [f"--gres=gpu:{settings.gpus}"] if settings.gpus else []
    gpu = ["--resources", GPU_RESOURCE] if settings.gpus else []
    more = dict(settings.options)
    return {
        "cores": settings.cores,
        "processes": 1,
        "memory": settings.memory,
        "walltime": settings.walltime,
        "queue": settings.queue,
        "account": settings.account,
        "job_name": "wsi-pipeline",
        "job_extra_directives": [*directives, *more.pop("job_extra_directives", [])],
        "job_script_prologue": [
            *(f"export {name}={value}" for name, value in environment().items()),
            *settings.prologue,
        ],
        "worker_extra_args": [*gpu, "--dashboard-address", DASHBOARD, *more.pop("worker_extra_args", [])],
        "scheduler_options": {"dashboard_address": DASHBOARD, **more.pop("scheduler_options", {})},
        **more,
    }


def environment() -> dict[str, str]:
    """`SETTINGS` as dask reads them from the environment of a scheduler or worker on another machine."""
    return {f"DASK_{key.upper().replace('.', '__').replace('-', '_')}": str(value) for key, value in SETTINGS.items()}


def kubernetes_spec(settings: ClusterSettings, name: str | None = None) -> dict[str, Any]:
    """The DaskCluster resource that the dask operator is given; `name` is its own unless told.

    A worker asks for its cores and memory and may not use more; `volumes` are mounted in the workers under the paths
    by which this machine knows them too. The scheduler computes nothing: it gets a core, and no GPU.
    """
    from dask_kubernetes.operator import make_cluster_spec

    # Of its own: two runs under one name would share a cluster, and the first to end would take it along.
    name = name or f"wsi-pipeline-{uuid.uuid4().hex[:8]}"
    asked = {"cpu": str(settings.cores), "memory": str(parse_bytes(settings.memory))}
    limits = {**asked, **({"nvidia.com/gpu": str(settings.gpus)} if settings.gpus else {})}
    gpu = ["--resources", GPU_RESOURCE] if settings.gpus else []
    spec: dict[str, Any] = make_cluster_spec(
        name=name,
        image=settings.image,
        n_workers=settings.workers if settings.fewest is None else max(1, settings.fewest),
        resources={"requests": asked, "limits": limits},
        env=environment(),
        worker_command=["dask", "worker", "--nthreads", str(settings.cores), *gpu],
    )
    scheduler = spec["spec"]["scheduler"]["spec"]["containers"][0]
    # dask has no command `dask-scheduler` any more.
    scheduler["args"] = ["dask", "scheduler", *scheduler["args"][1:]]
    scheduler["resources"] = {"requests": {"cpu": "1", "memory": "2Gi"}, "limits": {"memory": "2Gi"}}
    pod = spec["spec"]["worker"]["spec"]
    for number, (claim, path) in enumerate(sorted(settings.volumes.items())):
        pod.setdefault("volumes", []).append(
            {"name": f"volume-{number}", "persistentVolumeClaim": {"claimName": claim}}
        )
        pod["containers"][0].setdefault("volumeMounts", []).append({"name": f"volume-{number}", "mountPath": path})
    return spec


def _slurm(settings: ClusterSettings, on_refusal: Callable[[str], None]) -> Any:
    from dask_jobqueue.slurm import SLURMCluster, SLURMJob
    from distributed.core import Status

    class Told(SLURMJob):
        """A job that says why it is not taken: dask logs that somewhere, and goes on waiting for the worker."""

        async def start(self) -> None:
            try:
                await super().start()  # type: ignore[no-untyped-call]
            except (RuntimeError, ValueError, OSError) as error:
                on_refusal(_said(error))
                # Otherwise dask cannot close the cluster.
                self.status = Status.failed
                raise

    # Asked in the background, a command that is not there would be asked for ever.
    if shutil.which("sbatch") is None:
        raise FileNotFoundError("sbatch is not found")
    kind: Any = Told
    return SLURMCluster(job_cls=kind, **slurm_options(settings))


def _kubernetes(settings: ClusterSettings) -> Any:
    from dask_kubernetes.operator import KubeCluster
    from dask_kubernetes.operator.kubecluster.kubecluster import reap_clusters

    spec = kubernetes_spec(settings)
    try:
        return KubeCluster(custom_cluster_spec=spec, namespace=settings.namespace, quiet=True, **settings.options)
    except Exception as error:
        # It tries to remove what it made when the program ends, and fails as it did now, with a traceback.
        atexit.unregister(reap_clusters)
        atexit.register(_passed_over, reap_clusters)
        # Its clients have trees of errors of their own.
        raise RuntimeError(_said(error)) from error


def _passed_over(function: Callable[[], Any]) -> None:
    with suppress(Exception):
        function()


def refused(settings: ClusterSettings, told: str) -> str:
    """That there are no workers, and why."""
    what = "SLURM (is `sbatch` on the path?)" if settings.kind == "slurm" else "Kubernetes (does `kubectl` reach it?)"
    return f"no workers from {what}: {told}; or start workers yourself and give `--scheduler`"


def _said(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _in_words(settings: ClusterSettings) -> str:
    each = f"{settings.cores} cores, {settings.memory}" + (f", {settings.gpus} GPU" if settings.gpus else "")
    count = f"{settings.workers}" if settings.fewest is None else f"{max(1, settings.fewest)} to {settings.workers}"
    return f"{count} workers of {each}"
