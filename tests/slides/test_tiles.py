"""The cache of tiles: bounded, each tile made once, damage of one tile is not that of another."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsi_pipeline.slides.readers import RGBImage
from wsi_pipeline.slides.tiles import Key, TileCache


def tile(key: Key) -> RGBImage:
    return np.full((10, 10, 3), key[1] % 256, np.uint8)


def keys(*numbers: int) -> list[Key]:
    return [(0, number) for number in numbers]


class Maker:
    """Makes tiles, counts them, and fails at those that are damaged."""

    def __init__(self, damaged: frozenset[Key] = frozenset(), pause: float = 0.0) -> None:
        self.made: Counter[Key] = Counter()
        self._damaged = damaged
        self._pause = pause
        self._lock = threading.Lock()

    def __call__(self, wanted: Sequence[Key]) -> Iterator[RGBImage]:
        time.sleep(self._pause)
        for key in wanted:
            if key in self._damaged:
                raise ValueError(f"tile {key[1]} is damaged")
            with self._lock:
                self.made[key] += 1
            yield tile(key)


@given(st.lists(st.lists(st.integers(0, 30), min_size=1, max_size=8, unique=True), max_size=30))
def test_the_right_tiles_come_whatever_was_asked_before(requests: list[list[int]]) -> None:
    cache: TileCache[RGBImage] = TileCache(limit=10 * 300)
    make = Maker()
    for numbers in requests:
        found = cache.get(keys(*numbers), make)
        assert sorted(found) == sorted(keys(*numbers))
        assert all((found[key] == key[1]).all() for key in found)


def test_the_oldest_tiles_are_forgotten_first() -> None:
    cache: TileCache[RGBImage] = TileCache(limit=3 * 300)
    make = Maker()
    for number in range(5):
        cache.get(keys(number, 0), make)
    assert make.made[(0, 0)] == 1
    cache.get(keys(4), make)
    assert make.made[(0, 4)] == 1
    cache.get(keys(1), make)
    assert make.made[(0, 1)] == 2


def test_threads_that_want_the_same_tiles_wait_instead_of_making_them_again() -> None:
    cache: TileCache[RGBImage] = TileCache()
    make = Maker(pause=0.02)
    wanted = [keys(*range(first, first + 8)) for first in (0, 4, 2, 6, 0, 4)]
    with ThreadPoolExecutor(6) as pool:
        for request, found in zip(wanted, pool.map(lambda request: cache.get(request, make), wanted), strict=True):
            assert sorted(found) == request
    assert set(make.made.values()) == {1}


def test_a_damaged_tile_fails_who_needs_it_and_nobody_else() -> None:
    cache: TileCache[RGBImage] = TileCache()
    make = Maker(frozenset(keys(3)), pause=0.05)

    def ask(numbers: tuple[int, ...]) -> str:
        try:
            return str(len(cache.get(keys(*numbers), make)))
        except ValueError as error:
            return str(error)

    requests = [(1, 2, 3), (2, 4), (1, 5), (3, 6)]
    for _ in range(3):
        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(ask, requests)) == ["tile 3 is damaged", "2", "2", "tile 3 is damaged"]


def test_after_a_failure_the_tiles_can_be_asked_for_again() -> None:
    cache: TileCache[RGBImage] = TileCache()
    with pytest.raises(ValueError, match="tile 1 is damaged"):
        cache.get(keys(0, 1), Maker(frozenset(keys(1))))
    assert len(cache.get(keys(0, 1), Maker())) == 2
