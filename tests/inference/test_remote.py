"""Workers that are not as the client is: without the package, of another version, without what it can reach."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import distributed
import pytest
from distributed import Client, LocalCluster

from tests.inference.make import BASELINE, make_job, make_slide, predict_here
from wsi_pipeline import __version__
from wsi_pipeline.cohort import SlideRef
from wsi_pipeline.errors import ClusterError, ModelError, SlideError, SlideNotFound, StoreError, WorkerUnfit
from wsi_pipeline.inference import Engine, EngineSettings, PredictionStore, dask_cluster, patience, registry, work
from wsi_pipeline.inference.cluster import wanted
from wsi_pipeline.inference.dask_cluster import DaskCluster, DaskTasks
from wsi_pipeline.inference.registry import ModelSpec
from wsi_pipeline.inference.remote import made, missing, packed

HERE = {"processes": False, "dashboard_address": "127.0.0.1:0", "worker_dashboard_address": "127.0.0.1:0"}
WITHOUT = """
import sys
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "wsi_pipeline":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Hidden())
from distributed.cli.dask_worker import main
main()
"""


@contextmanager
def worker_at(address: str, code: str, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A worker process that was started by hand, in a folder of its own."""
    arguments = ["--no-nanny", "--nthreads", "1", "--host", "127.0.0.1", "--no-dashboard", "--name", "by-hand"]
    command = [sys.executable, "-c", code, address, *arguments]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def started(text: str, number: int = 1) -> int:
    return int(text) + number


def lost() -> None:
    raise SlideNotFound("s1", "there is no file /x/s1.svs", "look at the path, or remove the slide")


def damaged() -> None:
    raise StoreError("/x/p.zarr cannot be read: damaged")


def wrong() -> None:
    raise ModelError("there is no card.json")


def test_a_packed_call_gives_what_the_call_gives() -> None:
    assert pickle.loads(packed(started, "4", named=False, number=3)) == 7
    with pytest.raises(ValueError, match="invalid literal"):
        pickle.loads(packed(started, "four", named=True))


def nowhere(folder: str) -> None:
    PredictionStore.open(f"{folder}/none.zarr", read_only=False)


@pytest.mark.parametrize("elsewhere", [True, False])
def test_an_error_comes_back_as_it_is_whatever_led_to_it(tmp_path: Path, elsewhere: bool) -> None:
    """zarr's own errors, pickled with it, cannot be opened again."""
    with LocalCluster(n_workers=1, threads_per_worker=1, **HERE) as local, Client(local) as client:
        tasks = DaskCluster(client, threads=None, elsewhere=elsewhere, patience_s=9.0).tasks(gpu=False)
        tasks.submit(nowhere, str(tmp_path))
        outcome = tasks.next().outcome()
    assert isinstance(outcome, StoreError)
    assert str(outcome).startswith("there is no prediction at ")


def test_only_what_opening_a_call_lacks_is_laid_on_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    call = packed(started, "1", named=False)
    monkeypatch.delattr("wsi_pipeline.inference.remote.made")
    with pytest.raises(AttributeError) as older:
        pickle.loads(call)
    assert missing(older.value) is not None
    assert missing(ModuleNotFoundError("No module named 'wsi_pipeline'", name="wsi_pipeline")) is not None
    for other in (
        AttributeError("module 'wsi_pipeline.slides' has no attribute 'x'"),
        ModuleNotFoundError("No module named 'openvino'", name="openvino"),
        ValueError("wsi_pipeline"),
    ):
        assert missing(other) is None


def test_a_call_of_another_version_is_refused_by_both_versions() -> None:
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, **HERE) as local,
        Client(local) as client,
    ):
        future = client.submit(made, "99.0", pickle.dumps((started, ("1",), {})), False)
        with pytest.raises(WorkerUnfit, match=rf"dask worker .* has wsi_pipeline {__version__}, this command 99\.0"):
            future.result()


@pytest.mark.parametrize(("function", "kind"), [(lost, SlideNotFound), (damaged, StoreError), (wrong, ModelError)])
def test_what_a_worker_elsewhere_cannot_reach_names_the_worker(function: object, kind: type[Exception]) -> None:
    with LocalCluster(n_workers=1, threads_per_worker=1, **HERE) as local, Client(local) as client:
        for elsewhere in (True, False):
            cluster = DaskCluster(client, threads=None, elsewhere=elsewhere, patience_s=9.0)
            with pytest.raises(kind) as caught:
                cluster.call(function, gpu=False)  # type: ignore[arg-type]
            assert ("dask worker 0 at inproc://" in str(caught.value)) == elsewhere
            assert ("every worker must reach slides, model and output" in str(caught.value)) == elsewhere
            assert isinstance(pickle.loads(pickle.dumps(caught.value)), kind)
            if isinstance(caught.value, SlideError):
                assert caught.value.slide == "s1"


@pytest.mark.slow
def test_a_worker_without_the_package_is_told_and_lives(tmp_path: Path) -> None:
    ref = make_slide(tmp_path / "slide.tif", 600, 500)
    with (
        LocalCluster(n_workers=0, host="127.0.0.1", dashboard_address="127.0.0.1:0") as local,
        worker_at(local.scheduler_address, WITHOUT, tmp_path) as process,
    ):
        settings = EngineSettings(block=256, window=384, scheduler=local.scheduler_address)
        told = rf"No module named 'wsi_pipeline'.*install version {__version__}.*1 of 1 have none: tcp://127.0.0.1"
        with pytest.raises(WorkerUnfit, match=told), Engine(BASELINE, settings) as engine:
            list(engine.predict([make_job(ref, tmp_path / "p.zarr")]))
        assert process.poll() is None


@pytest.mark.slow
def test_one_worker_of_several_without_the_package_ends_the_run_with_a_clear_word(tmp_path: Path) -> None:
    ref = make_slide(tmp_path / "slide.tif", 1800, 1500)
    with (
        LocalCluster(
            n_workers=1, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0", memory_limit=0
        ) as local,
        Client(local) as client,
    ):
        settings = EngineSettings(block=256, window=384, scheduler=local.scheduler_address)
        with Engine(BASELINE, settings) as engine, worker_at(local.scheduler_address, WITHOUT, tmp_path):
            client.wait_for_workers(2, timeout=60)
            with pytest.raises(WorkerUnfit, match="1 of 2 have none"):
                list(engine.predict([make_job(ref, tmp_path / "p.zarr")]))


def test_a_scheduler_or_worker_of_another_dask_is_refused_before_anything_is_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with LocalCluster(n_workers=1, threads_per_worker=1, host="127.0.0.1", **HERE, protocol="tcp") as local:
        versions = distributed.Client.get_versions

        def older(client: Client, *, check: bool) -> object:
            found = versions(client, check=check)
            next(iter(found["workers"].values()))["packages"]["distributed"] = "2025.1.0"  # type: ignore[index]
            return found

        monkeypatch.setattr(distributed.Client, "get_versions", older)
        told = r"the dask worker at tcp://\S+ has distributed 2025\.1\.0, this command"
        with pytest.raises(WorkerUnfit, match=told), dask_cluster.existing(local.scheduler_address):
            pass


def test_gpu_tasks_are_not_waited_for_once_only_workers_without_gpu_are_left(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(patience, "LOOK_S", 0.2)
    monkeypatch.setattr(patience, "QUIET_S", 0.5)
    with LocalCluster(n_workers=1, threads_per_worker=1, **HERE) as local, Client(local) as client:
        # As `DaskCluster.tasks` makes them while a worker says that it has a GPU; that worker has gone since.
        waiting = patience.Patience(client, 1.0, resource=dask_cluster.GPU)
        tasks = DaskTasks(client, {dask_cluster.GPU: 1}, waiting, named=True)
        tasks.submit(started, "1")
        with pytest.raises(ClusterError, match="no dask worker with a GPU for 1 s"):
            tasks.next()
    assert "there is no dask worker with a GPU; waiting for one, 1 s at most" in caplog.text


def until_nobody_waits(folder: str) -> None:
    Path(folder, "begun").touch()
    end = time.monotonic() + 60
    while wanted() and time.monotonic() < end:
        time.sleep(0.02)
    Path(folder, "ended" if time.monotonic() < end else "forgotten").touch()


def test_a_task_learns_that_its_client_is_gone(tmp_path: Path) -> None:
    assert wanted(), "outside of a task"
    with LocalCluster(n_workers=1, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0") as local:
        with Client(local, set_as_default=False) as client:
            tasks = DaskCluster(client, threads=None, patience_s=60.0).tasks(gpu=False)
            tasks.submit(until_nobody_waits, str(tmp_path))
            wait_for(tmp_path / "begun")
        wait_for(tmp_path / "ended")


def wait_for(path: Path) -> None:
    end = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_block_that_nobody_waits_for_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ref = make_slide(tmp_path / "slide.tif", 600, 500)
    # Before and after the first block, before and after the second, whose client went away meanwhile.
    asked = iter([True, True, True, False, False])
    monkeypatch.setattr(work, "wanted", lambda: next(asked))
    predict_here(make_job(ref, tmp_path / "p.zarr"), BASELINE, block=256, window=384, runs=(9,))
    assert len(list((tmp_path / "p.zarr").glob("probability/c/0/*/*"))) == 1


def test_a_runtime_that_is_not_there_is_no_fault_of_a_slide(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ImportError("libopenvino.so: cannot open shared object file")

    monkeypatch.setattr(registry, "load_segmenter", broken)
    with (
        pytest.raises(ModelError, match=r"run with openvino, which cannot be loaded: libopenvino\.so.*install it"),
        registry.use_model("session", ModelSpec("m", "cpu", "openvino", "fp32", 1)),
    ):
        pass


def test_a_slide_that_only_the_client_sees_is_told_by_worker(tmp_path: Path) -> None:
    """Opening fails on the worker: the slide fails by name, and says who did not find it."""
    ref = make_slide(tmp_path / "slide.tif", 600, 500)
    job = make_job(ref, tmp_path / "p.zarr")
    (tmp_path / "slide.tif").unlink()
    with LocalCluster(n_workers=1, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0") as local:
        settings = EngineSettings(block=256, window=384, scheduler=local.scheduler_address)
        with Engine(BASELINE, settings) as engine:
            (result,) = engine.predict([job])
    assert isinstance(result.error, SlideNotFound)
    assert "(the dask worker 0 at tcp://127.0.0.1" in str(result.error)
    assert "every worker must reach slides" in result.error.remedy
    assert result.job.ref == SlideRef("slide", ref.uri, "slide.tif")
