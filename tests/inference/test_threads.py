"""Tasks in threads of this process: back as they end, errors as values; what has not begun is dropped."""

from __future__ import annotations

import threading

from wsi_pipeline.inference.cluster import SLOTS, connect
from wsi_pipeline.inference.threads import here


def halved(number: int) -> int:
    if number % 2:
        raise ValueError(f"{number} is odd")
    return number // 2


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
    goes_on = threading.Event()
    with here() as cluster:
        tasks = cluster.tasks(gpu=False)
        slow, quick = tasks.submit(goes_on.wait, 60.0), tasks.submit(halved, 4)
        assert tasks.next() is quick
        goes_on.set()
        assert tasks.next() is slow
        assert slow.outcome() is True


def test_tasks_that_have_not_begun_when_it_ends_are_dropped() -> None:
    goes_on, begun = threading.Event(), []

    def counted(number: int) -> None:
        begun.append(number)
        goes_on.wait(60)

    with here() as cluster:
        count = cluster.slots(gpu=False, parallel=True)
        tasks = cluster.tasks(gpu=False)
        for number in range(3 * count):
            tasks.submit(counted, number)
        threading.Timer(0.2, goes_on.set).start()
    assert count >= SLOTS
    assert len(begun) < 3 * count


def test_a_model_that_takes_all_cores_is_given_two_tasks_at_most() -> None:
    with here() as cluster:
        assert cluster.slots(gpu=False, parallel=False) == SLOTS
        assert cluster.slots(gpu=True, parallel=True) == SLOTS
        assert cluster.call(halved, 8, gpu=False) == 4
