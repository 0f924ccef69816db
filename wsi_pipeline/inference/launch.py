"""Workers that a batch system (SLURM) or Kubernetes starts for the time of one call.

dask-jobqueue and dask-kubernetes do the work, and are extras: most users have a scheduler already, or one machine.
What a site needs beyond the settings here goes to them as it is (`options`).
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from wsi_pipeline.config import ClusterSettings
from wsi_pipeline.errors import ClusterError

logger = logging.getLogger(__name__)

# Of the scheduler that lives in this process; workers and users reach it by its own port, the dashboard by a tunnel.
DASHBOARD = "127.0.0.1:0"
GPU_RESOURCE = "GPU=1"


@contextmanager
def launched(settings: ClusterSettings) -> Iterator[Any]:
    """A dask cluster with its workers ordered; they come when the site has room, and go when the block ends.

    Raises
    ------
    ClusterError
        The extra is not installed, or the batch system or Kubernetes cannot be asked.
    """
    make = _slurm if settings.kind == "slurm" else _kubernetes
    try:
        cluster = make(settings)
    except ImportError as error:
        raise ClusterError(
            f"`--cluster {settings.kind}` needs more packages ({error.name}); "
            f"pip install 'wsi-pipeline[{settings.kind}]'"
        ) from error
    except (OSError, RuntimeError, ValueError, TypeError) as error:
        raise ClusterError(_refused(settings, error)) from error
    with cluster:
        try:
            order(cluster, settings)
        except (OSError, RuntimeError) as error:
            raise ClusterError(_refused(settings, error)) from error
        logger.info("%s: %s ordered, dashboard %s", settings.kind, _in_words(settings), cluster.dashboard_link)
        yield cluster


def order(cluster: Any, settings: ClusterSettings) -> None:
    """Ask for a fixed number of workers, or for as many as there is work for."""
    if settings.fewest is None:
        cluster.scale(settings.workers)
    else:
        cluster.adapt(minimum=settings.fewest, maximum=settings.workers)


def slurm_options(settings: ClusterSettings) -> dict[str, Any]:
    """What `dask_jobqueue.SLURMCluster` is called with: one worker process a job, with all its cores as threads."""
    directives = [f"--gres=gpu:{settings.gpus}"] if settings.gpus else []
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
        "job_script_prologue": list(settings.prologue),
        "worker_extra_args": [*worker_arguments(settings), *more.pop("worker_extra_args", [])],
        "scheduler_options": {"dashboard_address": DASHBOARD, **more.pop("scheduler_options", {})},
        **more,
    }


def worker_arguments(settings: ClusterSettings) -> list[str]:
    """Arguments of `dask worker` beside its cores and memory."""
    gpu = ["--resources", GPU_RESOURCE] if settings.gpus else []
    return [*gpu, "--dashboard-address", DASHBOARD]


def kubernetes_spec(settings: ClusterSettings, name: str = "wsi-pipeline") -> dict[str, Any]:
    """The DaskCluster resource that the dask operator is given.

    A worker asks for its cores and memory and may not use more; `volumes` are mounted in the workers under the paths
    by which this machine knows them too.
    """
    from dask_kubernetes.operator import make_cluster_spec

    asked = {"cpu": str(settings.cores), "memory": settings.memory.removesuffix("B")}
    limits = {**asked, **({"nvidia.com/gpu": str(settings.gpus)} if settings.gpus else {})}
    spec: dict[str, Any] = make_cluster_spec(
        name=name,
        image=settings.image,
        n_workers=settings.workers if settings.fewest is None else settings.fewest,
        resources={"requests": asked, "limits": limits},
        worker_command=["dask", "worker", "--nthreads", str(settings.cores), *worker_arguments(settings)],
    )
    pod = spec["spec"]["worker"]["spec"]
    for number, (claim, path) in enumerate(sorted(settings.volumes.items())):
        pod.setdefault("volumes", []).append(
            {"name": f"volume-{number}", "persistentVolumeClaim": {"claimName": claim}}
        )
        pod["containers"][0].setdefault("volumeMounts", []).append({"name": f"volume-{number}", "mountPath": path})
    return spec


def _slurm(settings: ClusterSettings) -> Any:
    from dask_jobqueue.slurm import SLURMCluster

    # Asked in the background, a command that is not there would be asked for ever.
    if shutil.which("sbatch") is None:
        raise FileNotFoundError("sbatch is not found")
    return SLURMCluster(**slurm_options(settings))


def _kubernetes(settings: ClusterSettings) -> Any:
    from dask_kubernetes.operator import KubeCluster

    return KubeCluster(
        custom_cluster_spec=kubernetes_spec(settings), namespace=settings.namespace, quiet=True, **settings.options
    )


def _refused(settings: ClusterSettings, error: BaseException) -> str:
    what = "SLURM (is `sbatch` on the path?)" if settings.kind == "slurm" else "Kubernetes (does `kubectl` reach it?)"
    told = " ".join(str(error).split()) or type(error).__name__
    return f"no workers from {what}: {told}; or start workers yourself and give `--scheduler`"


def _in_words(settings: ClusterSettings) -> str:
    each = f"{settings.cores} cores, {settings.memory}" + (f", {settings.gpus} GPU" if settings.gpus else "")
    count = f"{settings.workers}" if settings.fewest is None else f"{settings.fewest} to {settings.workers}"
    return f"{count} workers of {each}"
