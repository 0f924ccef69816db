"""Tiles, each fetched or decoded about once: a bounded cache in which the threads of a slide wait for each other."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

CACHE_BYTES = 64 * 2**20

# Level and number within the level.
Key = tuple[int, int]

V = TypeVar("V", bytes, NDArray[np.uint8])


class TileCache(Generic[V]):
    """Pixels or bytes of tiles. The least recently used go first; what another thread is making is waited for.

    Parameters
    ----------
    limit
        Bytes of all values; the newest stays in any case.
    """

    def __init__(self, limit: int = CACHE_BYTES) -> None:
        self._limit = limit
        self._used = 0
        self._tiles: OrderedDict[Key, V] = OrderedDict()
        self._coming: dict[Key, Future[V]] = {}
        self._lock = threading.Lock()

    def get(self, keys: Sequence[Key], make: Callable[[Sequence[Key]], Iterable[V]]) -> dict[Key, V]:
        """The tiles of `keys`; `make` is called once for those that nobody has or makes, in their order.

        What `make` raises is raised here. A thread that waited for a tile which another one failed to make tries
        itself: the damage may have been in a tile that it does not need.
        """
        found: dict[Key, V] = {}
        others: dict[Key, Future[V]] = {}
        mine: dict[Key, Future[V]] = {}
        with self._lock:
            for key in keys:
                if key in self._tiles:
                    self._tiles.move_to_end(key)
                    found[key] = self._tiles[key]
                elif key in self._coming:
                    others[key] = self._coming[key]
                else:
                    mine[key] = self._coming[key] = Future()
        if mine:
            found.update(self._made(mine, make))
        # Own tiles come first, so that two threads never wait for each other.
        failed = [key for key, future in others.items() if future.exception() is not None]
        found.update((key, future.result()) for key, future in others.items() if future.exception() is None)
        if failed:
            found.update(self.get(failed, make))
        return found

    def lacking(self, keys: Iterable[Key]) -> list[Key]:
        """Those of `keys` that are neither here nor on their way."""
        with self._lock:
            return [key for key in keys if key not in self._tiles and key not in self._coming]

    def _made(self, mine: dict[Key, Future[V]], make: Callable[[Sequence[Key]], Iterable[V]]) -> dict[Key, V]:
        try:
            tiles = dict(zip(mine, make(list(mine)), strict=True))
        except BaseException as error:
            self._settle(mine)
            for future in mine.values():
                future.set_exception(error)
            raise
        for key, future in mine.items():
            future.set_result(tiles[key])
        self._settle(mine, tiles)
        return tiles

    def _settle(self, mine: Iterable[Key], tiles: dict[Key, V] | None = None) -> None:
        with self._lock:
            for key in mine:
                del self._coming[key]
                if tiles is not None:
                    self._tiles[key] = tiles[key]
                    self._used += _length(tiles[key])
            while self._used > self._limit and len(self._tiles) > 1:
                self._used -= _length(self._tiles.popitem(last=False)[1])


def _length(value: bytes | NDArray[np.uint8]) -> int:
    return len(value) if isinstance(value, bytes) else value.nbytes
