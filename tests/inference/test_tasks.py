"""Tasks in threads of this process, as by default: back as they end, errors as values."""

from __future__ import annotations

import threading

import distributed

from wsi_pipeline.inference.cluster import SLOTS, connect

GOES_ON = threading.Event()


def halved(number: int) -> int:
    if number % 2:
        raise ValueError(f"{number} is odd")
    return number // 2


def waited(seconds: float) -> bool:
    return GOES_ON.wait(seconds)


def worker_of_this_process(_: int) -> str:
    return str(distributed.get_worker().address)


def test_each_task_comes_back_once_with_its_result_or_its_error() -> None:
    with connect(None, None) as cluster:
        tasks = cluster.tasks(gpu=False)
        sent = {tasks.submit(halved, number): number for number in range(20)}
        back = {sent.pop(task): task.outcome() for task in (tasks.next() for _ in range(20))}
    assert not sent
    for number, outcome in back.items():
        if number % 2:
            assert isinstance(outcome, ValueError)
            assert str(outcome) == f"{number} is odd"
        else:
            assert outcome == number // 2


def test_what_ends_first_comes_back_first() -> None:
    GOES_ON.clear()
    with connect(None, None) as cluster:
        tasks = cluster.tasks(gpu=False)
        slow, quick = tasks.submit(waited, 60.0), tasks.submit(halved, 4)
        assert tasks.next() is quick
        GOES_ON.set()
        assert tasks.next() is slow
        assert slow.outcome() is True


def test_a_model_that_takes_all_cores_is_given_two_tasks_at_most() -> None:
    with connect(None, None) as cluster:
        assert cluster.slots(gpu=False, parallel=True) >= SLOTS
        assert cluster.slots(gpu=False, parallel=False) == SLOTS
        assert cluster.slots(gpu=True, parallel=True) >= SLOTS
        assert cluster.call(halved, 8, gpu=False) == 4
        assert cluster.threads is None
        assert not cluster.elsewhere


def test_the_tasks_run_in_this_process_by_a_dask_worker() -> None:
    with connect(None, None) as cluster:
        assert cluster.call(worker_of_this_process, 0, gpu=False).startswith("inproc://")
