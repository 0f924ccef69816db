"""What a process keeps open: loaded once, closed when surplus, never while it is used."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from wsi_pipeline.inference.registry import Shared


class Opened:
    """Counts what is opened and closed."""

    def __init__(self) -> None:
        self.loaded: list[str] = []
        self.closed: list[str] = []

    def load(self, name: str) -> str:
        self.loaded.append(name)
        return name

    def shared(self, limit: int) -> Shared[str]:
        return Shared(limit, self.closed.append)


def test_a_value_is_loaded_once_and_stays() -> None:
    opened = Opened()
    shared = opened.shared(2)
    for _ in range(3):
        with shared.use("a", lambda: opened.load("a")) as value:
            assert value == "a"
    assert opened.loaded == ["a"]
    assert not opened.closed


def test_threads_that_ask_at_once_share_one_load() -> None:
    opened = Opened()
    shared = opened.shared(1)
    barrier = threading.Barrier(8)

    def slow() -> str:
        time.sleep(0.05)
        return opened.load("a")

    def use() -> str:
        barrier.wait()
        with shared.use("a", slow) as value:
            return value

    with ThreadPoolExecutor(8) as pool:
        assert {f.result() for f in [pool.submit(use) for _ in range(8)]} == {"a"}
    assert opened.loaded == ["a"]


def test_the_least_recently_used_is_closed_first() -> None:
    opened = Opened()
    shared = opened.shared(2)
    for name in ("a", "b", "a", "c"):
        with shared.use(name, lambda name=name: opened.load(name)):  # type: ignore[misc]
            pass
    assert opened.closed == ["b"]


def test_what_is_in_use_is_not_closed() -> None:
    opened = Opened()
    shared = opened.shared(1)
    with shared.use("a", lambda: opened.load("a")):
        with shared.use("b", lambda: opened.load("b")):
            shared.clear()
            assert not opened.closed
        assert opened.closed == ["b"]
    shared.clear()
    assert opened.closed == ["b", "a"]


def test_a_load_that_fails_is_tried_again() -> None:
    opened = Opened()
    shared = opened.shared(1)

    def fail() -> str:
        raise ValueError("damaged")

    with pytest.raises(ValueError, match="damaged"), shared.use("a", fail):
        pass
    with shared.use("a", lambda: opened.load("a")) as value:
        assert value == "a"


def test_an_error_of_the_user_leaves_the_value_open() -> None:
    opened = Opened()
    shared = opened.shared(1)
    with pytest.raises(RuntimeError), shared.use("a", lambda: opened.load("a")):
        raise RuntimeError
    assert not opened.closed
