"""Tasks in threads of this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any, Final

from wsi_pipeline.inference.cluster import SLOTS, A, R
from wsi_pipeline.models.machine import available_cores

MOST_THREADS: Final = 8
"""Tasks at the same time when the model is one that does not use all cores by itself."""


class ThreadTask:
    """See `Task`."""

    def __init__(self, future: Future[Any]) -> None:
        self._future = future

    def outcome(self) -> Any:
        return self._future.exception() or self._future.result()


class ThreadTasks:
    """See `Tasks`."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self._pool = pool
        self._back: SimpleQueue[ThreadTask] = SimpleQueue()

    def submit(self, function: Callable[[A], Any], argument: A) -> ThreadTask:
        future = self._pool.submit(function, argument)
        task = ThreadTask(future)
        future.add_done_callback(lambda _: self._back.put(task))
        return task

    def next(self) -> ThreadTask:
        return self._back.get()


class ThreadCluster:
    """See `Cluster`."""

    threads = None
    elsewhere = False
    has_gpus = False
    alive = True

    def __init__(self, pool: ThreadPoolExecutor, count: int) -> None:
        self._pool = pool
        self._count = count

    def slots(self, *, gpu: bool, parallel: bool) -> int:
        return self._count if parallel and not gpu else min(SLOTS, self._count)

    def tasks(self, *, gpu: bool) -> ThreadTasks:
        return ThreadTasks(self._pool)

    def call(self, function: Callable[..., R], *args: Any, gpu: bool, **kwargs: Any) -> R:
        return function(*args, **kwargs)

    def everywhere(self, function: Callable[..., Any], *args: Any) -> None:
        function(*args)


@contextmanager
def here() -> Iterator[ThreadCluster]:
    """Threads for the time of the block; tasks that have not begun when it ends are dropped."""
    count = max(SLOTS, min(MOST_THREADS, available_cores()))
    pool = ThreadPoolExecutor(count, thread_name_prefix="blocks")
    try:
        yield ThreadCluster(pool, count)
    finally:
        pool.shutdown(cancel_futures=True)
