"""Workers that SLURM or Kubernetes starts: what they are asked for, and a batch system on the path that runs jobs here.

There is no SLURM here. Its two commands are stood in for by scripts that start and end the very job script that
dask-jobqueue wrote, so that everything but the queue is the real thing.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import dask
import psutil
import pytest
import yaml

from tests.inference.make import BASELINE, make_job, make_slide, tree
from wsi_pipeline.config import ClusterSettings
from wsi_pipeline.errors import ClusterError
from wsi_pipeline.inference import Engine, EngineSettings
from wsi_pipeline.inference.launch import SETTINGS, environment, kubernetes_spec, order, slurm_options

pytest.importorskip("dask_jobqueue")

SBATCH = """#!/bin/bash
cp "${@: -1}" "$JOBS/$$.sh"
setsid bash "$JOBS/$$.sh" >"$JOBS/$$.log" 2>&1 &
echo $! >>"$JOBS/started"
echo "Submitted batch job $!"
"""
SCANCEL = """#!/bin/bash
for job in "$@"; do kill -TERM -- "-$job" && echo "$job" >>"$JOBS/cancelled"; done
"""


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`sbatch` and `scancel` on the path; the folder says which jobs they started and ended."""
    commands, jobs = tmp_path / "bin", tmp_path / "jobs"
    commands.mkdir()
    jobs.mkdir()
    for name, text in (("sbatch", SBATCH), ("scancel", SCANCEL)):
        (commands / name).write_text(text)
        (commands / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("JOBS", str(jobs))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    return jobs


def job_script(settings: ClusterSettings) -> str:
    from dask_jobqueue.slurm import SLURMJob

    options = slurm_options(settings)
    del options["scheduler_options"]
    job: Any = SLURMJob
    return str(job("tcp://127.0.0.1:1", name="w", **options).job_script())


def test_a_job_asks_for_what_the_configuration_says() -> None:
    settings = ClusterSettings(
        workers=20,
        cores=12,
        memory="48GB",
        gpus=1,
        walltime="02:30:00",
        queue="long",
        account="lab",
        prologue=("module load python", "source /site/env"),
        options={"job_extra_directives": ["--exclude=node7"], "worker_extra_args": ["--lifetime", "2h"]},
    )
    lines = job_script(settings).splitlines()
    for wanted in ("-p long", "-A lab", "-t 02:30:00", "--cpus-per-task=12", "--gres=gpu:1", "--exclude=node7"):
        assert f"#SBATCH {wanted}" in lines
    assert any(line.startswith("#SBATCH --mem=4") for line in lines)
    assert lines.index("module load python") < lines.index("source /site/env") < len(lines) - 1
    command = lines[-1]
    assert "--nthreads 12" in command
    assert "--resources GPU=1" in command
    assert "--dashboard-address 127.0.0.1:0" in command
    assert "--lifetime 2h" in command


def test_a_job_without_gpu_does_not_speak_of_one() -> None:
    assert "gpu" not in job_script(ClusterSettings()).lower()


def test_a_number_of_workers_is_fixed_or_follows_the_work() -> None:
    class Told:
        def __init__(self) -> None:
            self.calls: list[object] = []

        def scale(self, n: int) -> None:
            self.calls.append(n)

        def adapt(self, *, minimum: int, maximum: int) -> None:
            self.calls.append((minimum, maximum))

    told = Told()
    order(told, ClusterSettings(workers=7))
    order(told, ClusterSettings(workers=7, fewest=3))
    # What there is to do is found out on a worker: with none at all nothing would ever begin.
    order(told, ClusterSettings(workers=7, fewest=0))
    assert told.calls == [7, (3, 7), (1, 7)]


def test_a_pod_asks_for_what_the_configuration_says() -> None:
    pytest.importorskip("dask_kubernetes")
    settings = ClusterSettings(
        kind="kubernetes",
        workers=5,
        cores=6,
        memory="24GB",
        gpus=1,
        image="registry/wsi:1",
        volumes={"slides-claim": "/slides", "run-claim": "/run"},
    )
    spec = kubernetes_spec(settings)
    assert spec["kind"] == "DaskCluster"
    worker = spec["spec"]["worker"]
    assert worker["replicas"] == 5
    (container,) = worker["spec"]["containers"]
    assert container["image"] == "registry/wsi:1"
    assert container["resources"]["limits"] == {"cpu": "6", "memory": "24000000000", "nvidia.com/gpu": "1"}
    assert container["resources"]["requests"] == {"cpu": "6", "memory": "24000000000"}
    command = " ".join(container.get("command", []) + container["args"])
    assert command.startswith("dask worker ")
    assert command.count("--dashboard-address") == 1
    assert "--nthreads 6" in command
    assert "--resources GPU=1" in command
    mounted = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    claims = {v["name"]: v["persistentVolumeClaim"]["claimName"] for v in worker["spec"]["volumes"]}
    assert {path: claims[name] for path, name in mounted.items()} == {"/slides": "slides-claim", "/run": "run-claim"}


@pytest.mark.parametrize(
    ("said", "count"),
    [("24GB", 24e9), ("24GiB", 24 * 2**30), ("1.5 TB", 1.5e12), ("500M", 5e8), ("800 Ki", 800 * 2**10)],
)
def test_memory_in_any_unit_is_bytes_for_kubernetes(said: str, count: float) -> None:
    pytest.importorskip("dask_kubernetes")
    spec = kubernetes_spec(ClusterSettings(kind="kubernetes", memory=said))
    (container,) = spec["spec"]["worker"]["spec"]["containers"]
    assert container["resources"]["limits"]["memory"] == str(int(count))


def test_the_scheduler_of_kubernetes_starts_and_takes_no_gpu() -> None:
    pytest.importorskip("dask_kubernetes")
    spec = kubernetes_spec(ClusterSettings(kind="kubernetes", gpus=1, cores=64, memory="500GB"))
    (container,) = spec["spec"]["scheduler"]["spec"]["containers"]
    assert container["args"][:2] == ["dask", "scheduler"]
    # It is the command that dask has: its options are read by dask itself.
    from distributed.cli.dask_scheduler import main

    main.make_context("scheduler", container["args"][2:])
    assert container["resources"]["requests"] == {"cpu": "1", "memory": "2Gi"}
    assert "gpu" not in str(container["resources"])
    variables = {entry["name"]: entry["value"] for entry in container["env"]}
    assert variables["DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES"] == "0"


def test_two_runs_at_once_have_clusters_of_their_own() -> None:
    pytest.importorskip("dask_kubernetes")
    names = {kubernetes_spec(ClusterSettings(kind="kubernetes"))["metadata"]["name"] for _ in range(9)}
    assert len(names) == 9
    from dask_kubernetes.operator.validation import validate_cluster_name

    for name in names:
        validate_cluster_name(name)


def test_the_resource_is_one_that_the_operator_knows() -> None:
    """Against the definition that dask-kubernetes brings with it."""
    pytest.importorskip("dask_kubernetes")
    jsonschema = pytest.importorskip("jsonschema")
    import dask_kubernetes.operator

    folder = Path(dask_kubernetes.operator.__file__).parent / "customresources"
    definition = yaml.safe_load((folder / "daskcluster.yaml").read_text())
    types = yaml.safe_load((folder / "templates.yaml").read_text())["definitions"]
    (version,) = definition["spec"]["versions"]
    schema = strict(version["schema"]["openAPIV3Schema"], types)
    made = kubernetes_spec(
        ClusterSettings(kind="kubernetes", gpus=1, image="registry/wsi:1", volumes={"slides-claim": "/slides"})
    )
    assert made["apiVersion"] == f"{definition['spec']['group']}/{version['name']}"
    jsonschema.validate(made, schema)
    made["spec"]["workers"] = made["spec"].pop("worker")
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(made, schema)


def strict(schema: Any, types: dict[str, Any]) -> Any:
    """With its own types in place, and no key but those that are named: Kubernetes drops others without a word.

    Kubernetes' own types (pods, services) are not at hand, and anything goes for them.
    """
    if isinstance(schema, list):
        return [strict(part, types) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return strict(types.get(schema["$ref"].rpartition("/")[2], {}), types)
    found = {key: strict(part, types) for key, part in schema.items()}
    if "type" in schema and "properties" in schema:
        whole: dict[str, Any] = (
            {"apiVersion": {}, "kind": {}, "metadata": {}} if "status" in schema["properties"] else {}
        )
        found["properties"] |= whole
        found["additionalProperties"] = False
    return found


def test_what_dask_is_told_here_it_is_told_in_a_job_too(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
        assert f"export {name}={value}" in job_script(ClusterSettings()).splitlines()
    read = dask.config.collect_env()
    assert {key: dask.config.get(key, config=read) for key in SETTINGS} == SETTINGS


def test_a_walltime_that_yaml_made_a_number_of_is_told() -> None:
    raw = yaml.safe_load("{walltime: 12:00:00}")
    with pytest.raises(ValueError, match="put it in quotes"):
        ClusterSettings.model_validate(raw)


def test_a_machine_without_the_batch_system_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    settings = EngineSettings(cluster=ClusterSettings(workers=1, cores=1, memory="1GB"))
    with (
        pytest.raises(ClusterError, match=r"no workers from SLURM .is `sbatch` on the path"),
        Engine(BASELINE, settings),
    ):
        pass


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "dask_jobqueue.slurm", None)
    with (
        pytest.raises(ClusterError, match=r"pip install 'wsi-pipeline\[slurm\]'"),
        Engine(BASELINE, EngineSettings(cluster=ClusterSettings())),
    ):
        pass


KUBECONFIG = """
apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "http://127.0.0.1:9"}}]
users: [{name: u, user: {token: x}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
"""
ASKS = """
from tests.inference.make import BASELINE
from wsi_pipeline.config import ClusterSettings
from wsi_pipeline.errors import ClusterError
from wsi_pipeline.inference import Engine, EngineSettings

try:
    with Engine(BASELINE, EngineSettings(cluster=ClusterSettings(kind="kubernetes"))):
        pass
except ClusterError as error:
    print(error)
"""


@pytest.mark.parametrize("reached", [True, False])
def test_kubernetes_that_cannot_be_asked_is_told_in_one_line(tmp_path: Path, reached: bool) -> None:
    pytest.importorskip("dask_kubernetes")
    (tmp_path / "config").write_text(KUBECONFIG if reached else "")
    root = Path(__file__).parents[2]
    env = {**os.environ, "PYTHONPATH": str(root), "KUBECONFIG": str(tmp_path / "config"), "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", ASKS], cwd=root, env=env, capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.startswith("no workers from Kubernetes (does `kubectl` reach it?): ")
    assert done.stdout.count("\n") == 1
    assert "Traceback" not in done.stderr


REFUSES = """#!/bin/bash
echo "sbatch: error: invalid partition specified: nosuch" >&2
exit 1
"""


@pytest.mark.parametrize("fewest", [None, 0, 1])
def test_a_job_that_is_refused_is_told_and_not_waited_for(
    queue: Path, tmp_path: Path, fewest: int | None, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bin" / "sbatch").write_text(REFUSES)
    options = {"scheduler_options": {"host": "127.0.0.1"}}
    jobs = ClusterSettings(workers=2, fewest=fewest, cores=1, memory="1GB", queue="nosuch", options=options)
    with (
        pytest.raises(ClusterError, match=r"no workers from SLURM.*invalid partition specified: nosuch"),
        Engine(BASELINE, EngineSettings(cluster=jobs)),
    ):
        pass
    assert "Traceback" not in capfd.readouterr().err
    assert not list(queue.iterdir())


@pytest.mark.slow
def test_workers_that_come_with_the_work_begin_with_one(queue: Path, tmp_path: Path) -> None:
    ref = make_slide(tmp_path / "slide.tif", 900, 700)
    options = {"scheduler_options": {"host": "127.0.0.1"}, "log_directory": str(queue)}
    jobs = ClusterSettings(workers=2, fewest=0, cores=1, memory="1GB", options=options)
    with Engine(BASELINE, EngineSettings(cluster=jobs, block=256, window=384)) as engine:
        assert next(engine.predict([make_job(ref, tmp_path / "jobs.zarr")])).complete
    assert (queue / "started").read_text().split()


@pytest.mark.slow
def test_jobs_give_the_bytes_of_one_process_and_are_ended(queue: Path, tmp_path: Path) -> None:
    ref = make_slide(tmp_path / "slide.tif", 1800, 1500)
    settings = {"block": 256, "window": 384}
    with Engine(BASELINE, EngineSettings(**settings)) as engine:  # type: ignore[arg-type]
        assert next(engine.predict([make_job(ref, tmp_path / "alone")])).complete
    jobs = ClusterSettings(
        workers=2,
        cores=1,
        memory="1GB",
        options={"scheduler_options": {"host": "127.0.0.1"}, "log_directory": str(queue)},
    )
    with Engine(BASELINE, EngineSettings(cluster=jobs, **settings)) as engine:  # type: ignore[arg-type]
        assert next(engine.predict([make_job(ref, tmp_path / "jobs.zarr")])).complete
    assert tree(tmp_path / "jobs.zarr") == tree(tmp_path / "alone")
    started = [int(word) for word in (queue / "started").read_text().split()]
    assert len(started) == 2
    deadline = time.monotonic() + 60
    while any(psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie" for pid in started):
        assert time.monotonic() < deadline
        time.sleep(0.1)
