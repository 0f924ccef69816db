"""Worker processes, on this machine and of a cluster that is there: same maps, and deaths that cost one block."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import dask
import numpy as np
import psutil
import pytest
from distributed import Client, LocalCluster

from tests.inference.dying import Poison
from tests.inference.make import BASELINE, make_job, make_slide, make_unet, predict_here, tree
from wsi_pipeline.cohort import SlideRef
from wsi_pipeline.errors import ClusterError
from wsi_pipeline.inference import BlockState, Engine, EngineSettings, SlideResult, dask_cluster, patience
from wsi_pipeline.inference.cluster import SLOTS, connect
from wsi_pipeline.inference.dask_cluster import DaskCluster
from wsi_pipeline.models.ensemble import Passes
from wsi_pipeline.models.machine import available_cores

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def ref(tmp_path_factory: pytest.TempPathFactory) -> SlideRef:
    return make_slide(tmp_path_factory.mktemp("slide") / "slide.tif", 1800, 1500)


@pytest.fixture(scope="module")
def undisturbed(ref: SlideRef, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    store = tmp_path_factory.mktemp("undisturbed") / "p.zarr"
    assert predict(ref, store).complete
    return tree(store)


@pytest.fixture
def scheduler() -> Iterator[LocalCluster]:
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        LocalCluster(
            n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0", memory_limit=0
        ) as local,
    ):
        yield local


def predict(ref: SlideRef, store: Path, **settings: object) -> SlideResult:
    values = {"block": 256, "window": 384, **settings}
    with Engine(BASELINE, EngineSettings(**values)) as engine:  # type: ignore[arg-type]
        return next(engine.predict([make_job(ref, store)]))


def test_worker_processes_give_the_bytes_of_one_process(
    ref: SlideRef, undisturbed: dict[str, str], tmp_path: Path
) -> None:
    assert predict(ref, tmp_path / "p.zarr", workers=2).complete
    assert tree(tmp_path / "p.zarr") == undisturbed


@pytest.mark.parametrize("kind", ["tta", "dropout", "blend"])
def test_several_predictions_of_a_place_are_the_same_in_worker_processes(tmp_path: Path, kind: str) -> None:
    slide = make_slide(tmp_path / "slide.tif", 500, 400)
    passes = {"tta": Passes(4, 0, above=0.1), "dropout": Passes(0, 3, above=0.1), "blend": None}[kind]
    card = {"window": 128, "blend": 0.5} if kind == "blend" else {"dropout": 0.3} if kind == "dropout" else {}
    model = make_unet(tmp_path / "model", **card)  # type: ignore[arg-type]
    settings = EngineSettings(
        block=256, window=384, workers=2, device="cpu", runtime="torch", precision="fp32", passes=passes
    )
    with Engine(model, settings) as engine:
        assert next(engine.predict([make_job(slide, tmp_path / "processes")])).complete
    # With as many threads to the model as each of them has.
    here = predict_here(
        make_job(slide, tmp_path / "here"),
        model,
        block=256,
        window=384,
        passes=passes,
        threads=max(1, available_cores() // 2),
    )
    assert here.store is not None
    assert here.store.mutual_information_array is not None
    assert np.asarray(here.store.mutual_information_array[...]).max() > 0
    assert tree(tmp_path / "processes") == tree(tmp_path / "here")


def where(seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()


def test_all_processes_work() -> None:
    with connect(None, 2) as cluster:
        assert cluster.slots(gpu=False, parallel=False) == 2 * SLOTS
        tasks = cluster.tasks(gpu=False)
        pids: set[int] = set()
        end = time.monotonic() + 120
        while len(pids) < 2 and time.monotonic() < end:
            for _ in range(2 * SLOTS):
                tasks.submit(where, 0.2)
            pids |= {tasks.next().outcome() for _ in range(2 * SLOTS)}
        assert len(pids) == 2
        assert os.getpid() not in pids
        assert cluster.slots(gpu=False, parallel=False) == 2 * SLOTS
        assert cluster.units(gpu=False) == 1


def test_a_cluster_that_is_left_at_once_ends_its_processes() -> None:
    with connect(None, 2):
        pass
    assert not [p for p in psutil.Process().children(recursive=True) if "spawn_main" in " ".join(p.cmdline())]


def test_nothing_listens_beyond_this_machine() -> None:
    with Engine(BASELINE, EngineSettings(workers=1)) as engine:
        # The worker is there when it has answered.
        engine._cluster.call(sum, [1, 2], gpu=False)
        here = psutil.Process()
        processes = [here, *here.children(recursive=True)]
        listening = [c for p in processes for c in p.net_connections() if c.status == psutil.CONN_LISTEN]
    assert listening
    assert {connection.laddr.ip for connection in listening} == {"127.0.0.1"}


def test_a_scheduler_that_is_there_is_used_and_left_as_it_was(
    ref: SlideRef, undisturbed: dict[str, str], tmp_path: Path, scheduler: LocalCluster
) -> None:
    assert predict(ref, tmp_path / "p.zarr", scheduler=scheduler.scheduler_address).complete
    assert tree(tmp_path / "p.zarr") == undisturbed
    with Client(scheduler) as client:
        assert client.submit(sum, [1, 2]).result() == 3


def test_a_worker_that_is_killed_costs_nothing_but_time(
    ref: SlideRef, undisturbed: dict[str, str], tmp_path: Path
) -> None:
    killed: list[int] = []

    def kill(slide_id: str, done: int, total: int) -> None:
        if done and not killed:
            worker = next(p for p in psutil.Process().children(recursive=True) if "spawn_main" in " ".join(p.cmdline()))
            killed.append(worker.pid)
            os.kill(worker.pid, signal.SIGKILL)

    with Engine(BASELINE, EngineSettings(block=256, window=384, workers=2)) as engine:
        result = next(engine.predict([make_job(ref, tmp_path / "p.zarr")], kill))
    assert killed
    assert result.complete
    assert tree(tmp_path / "p.zarr") == undisturbed


def test_a_worker_that_is_killed_while_it_starts_is_told() -> None:
    over = threading.Event()

    def kill() -> None:
        while not over.wait(0.01):
            for process in psutil.Process().children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    if "spawn_main" in " ".join(process.cmdline()):
                        process.kill()

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        with pytest.raises(
            ClusterError, match=r"the worker processes did not start \(.*; the same command tries again"
        ):
            Engine(BASELINE, EngineSettings(workers=1)).__enter__()
    finally:
        over.set()
        killer.join()


@pytest.mark.parametrize("deaths", [2, 99])
def test_only_a_block_that_kills_its_worker_alone_fails(
    ref: SlideRef, undisturbed: dict[str, str], tmp_path: Path, scheduler: LocalCluster, deaths: int
) -> None:
    folder = tmp_path / "deaths"
    folder.mkdir()
    with Client(scheduler) as client:
        # The middle of block 2,3: no halo of a neighbour reaches it.
        client.register_plugin(Poison(3 * 256 + 128, 2 * 256 + 128, folder, deaths))
        result = predict(ref, tmp_path / "p.zarr", scheduler=scheduler.scheduler_address)
    if deaths == 2:
        assert result.complete
        assert tree(tmp_path / "p.zarr") == undisturbed
    else:
        assert set(result.causes) == {(2, 3)}
        assert result.causes[2, 3] == "the worker died, and died again with nothing but this block"
        assert result.store is not None
        assert (result.store.blocks == BlockState.DONE).sum() == result.store.blocks.size - 1
        assert len(list(folder.iterdir())) == 3


def test_a_scheduler_that_goes_away_is_told_and_the_rest_can_be_done_later(
    ref: SlideRef,
    undisturbed: dict[str, str],
    tmp_path: Path,
    scheduler: LocalCluster,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dask_cluster, "CONNECT_S", 2)

    def leave(slide_id: str, done: int, total: int) -> None:
        if done:
            scheduler.close()

    settings = EngineSettings(block=256, window=384, scheduler=scheduler.scheduler_address)
    with pytest.raises(ClusterError, match="went away"), Engine(BASELINE, settings) as engine:
        list(engine.predict([make_job(ref, tmp_path / "p.zarr")], leave))
    assert predict(ref, tmp_path / "p.zarr").complete
    assert tree(tmp_path / "p.zarr") == undisturbed


def test_workers_that_all_go_and_do_not_come_back_are_told_after_a_while(
    ref: SlideRef,
    undisturbed: dict[str, str],
    tmp_path: Path,
    scheduler: LocalCluster,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dask_cluster, "WORKERS_S", 3)
    monkeypatch.setattr(patience, "LOOK_S", 0.5)

    def leave(slide_id: str, done: int, total: int) -> None:
        if done and scheduler.workers:
            scheduler.scale(0)
            scheduler.sync(scheduler._correct_state)

    settings = EngineSettings(block=256, window=384, scheduler=scheduler.scheduler_address)
    told = "there has been no dask worker for 3 s.*what is done is kept"
    with pytest.raises(ClusterError, match=told), Engine(BASELINE, settings) as engine:
        list(engine.predict([make_job(ref, tmp_path / "p.zarr")], leave))
    assert predict(ref, tmp_path / "p.zarr").complete
    assert tree(tmp_path / "p.zarr") == undisturbed


def test_a_call_waits_for_a_worker_that_is_late_and_not_for_one_that_never_comes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(patience, "LOOK_S", 0.2)
    options = {"processes": False, "dashboard_address": "127.0.0.1:0", "worker_dashboard_address": "127.0.0.1:0"}
    with LocalCluster(n_workers=0, threads_per_worker=1, **options) as local, Client(local) as client:
        with pytest.raises(ClusterError, match="there has been no dask worker for 1 s"):
            DaskCluster(client, threads=None, patience_s=1.0).call(sum, [1, 2], gpu=False)
        tasks = DaskCluster(client, threads=None, patience_s=1.0).tasks(gpu=False)
        tasks.submit(sum, [1, 2])
        with pytest.raises(ClusterError, match="there has been no dask worker for 1 s"):
            tasks.next()
        timer = threading.Timer(2.0, local.scale, args=(1,))
        timer.start()
        assert DaskCluster(client, threads=None, patience_s=None).call(sum, [1, 2], gpu=False) == 3
        assert DaskCluster(client, threads=None, patience_s=60.0).call(sum, [3, 4], gpu=False) == 7
        timer.join()


def test_a_time_out_of_the_call_itself_is_its_own() -> None:
    options = {"processes": False, "dashboard_address": "127.0.0.1:0", "worker_dashboard_address": "127.0.0.1:0"}
    with LocalCluster(n_workers=1, threads_per_worker=1, **options) as local, Client(local) as client:
        with pytest.raises(TimeoutError, match="of its own"):
            DaskCluster(client, threads=None, patience_s=9.0).call(slow, gpu=False)
        tasks = DaskCluster(client, threads=None, patience_s=9.0).tasks(gpu=False)
        tasks.submit(slow, None)
        outcome = tasks.next().outcome()
        assert isinstance(outcome, TimeoutError)


def slow(argument: object = None) -> None:
    raise TimeoutError("of its own")


def test_a_gpu_worker_counts_as_it_says_and_others_do_not() -> None:
    options = {"processes": False, "dashboard_address": "127.0.0.1:0", "worker_dashboard_address": "127.0.0.1:0"}
    with (
        LocalCluster(n_workers=1, threads_per_worker=4, resources={"GPU": 1}, **options) as local,
        Client(local) as client,
    ):
        gpus = DaskCluster(client, threads=None)
        assert gpus.has_gpus
        assert gpus.slots(gpu=True, parallel=False) == 1
        assert gpus.slots(gpu=False, parallel=False) == 2
        assert gpus.slots(gpu=False, parallel=True) == 4


def test_what_is_paid_are_machines_or_the_gpus_that_workers_say_they_have() -> None:
    options = {"processes": False, "dashboard_address": "127.0.0.1:0", "worker_dashboard_address": "127.0.0.1:0"}
    with (
        LocalCluster(n_workers=3, threads_per_worker=1, resources={"GPU": 2}, **options) as local,
        Client(local) as client,
    ):
        elsewhere = DaskCluster(client, threads=None, elsewhere=True)
        assert elsewhere.units(gpu=False) == 1, "three workers of one machine"
        assert elsewhere.units(gpu=True) == 6
        assert not elsewhere.in_process
        assert DaskCluster(client, threads=None).units(gpu=True) == 1, "this machine"


@pytest.mark.parametrize(("workers", "in_process"), [(None, True), (1, False)])
def test_processor_time_is_told_where_threads_of_this_process_compute(workers: int | None, in_process: bool) -> None:
    with Engine(BASELINE, EngineSettings(block=256, window=384, workers=workers)) as engine:
        assert (engine.in_process, engine.units) == (in_process, 1)
