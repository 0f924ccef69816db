"""Decoded tiles, each made about once: a bounded cache in which the threads of a slide wait for each other."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future

from wsi_pipeline.slides.readers import RGBImage

CACHE_BYTES = 64 * 2**20

# Level and number within the level.
Key = tuple[int, int]
Maker = Callable[[Sequence[Key]], Iterable[RGBImage]]


class TileCache:
    """The least recently used tiles go first; a tile that another thread is making is waited for, not made again."""

    def __init__(self, limit: int = CACHE_BYTES) -> None:
        self._limit = limit
        self._used = 0
        self._tiles: OrderedDict[Key, RGBImage] = OrderedDict()
        self._coming: dict[Key, Future[RGBImage]] = {}
        self._lock = threading.Lock()

    def get(self, keys: Sequence[Key], make: Maker) -> dict[Key, RGBImage]:
        """The tiles of `keys`; `make` is called once for those that nobody has or makes, in their order.

        What `make` raises is raised here. A thread that waited for a tile which another one failed to make tries
        itself: the damage may have been in a tile that it does not need.
        """
        found: dict[Key, RGBImage] = {}
        others: dict[Key, Future[RGBImage]] = {}
        mine: dict[Key, Future[RGBImage]] = {}
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

    def _made(self, mine: dict[Key, Future[RGBImage]], make: Maker) -> dict[Key, RGBImage]:
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

    def _settle(self, mine: Iterable[Key], tiles: dict[Key, RGBImage] | None = None) -> None:
        with self._lock:
            for key in mine:
                del self._coming[key]
                if tiles is not None:
                    self._tiles[key] = tiles[key]
                    self._used += tiles[key].nbytes
            while self._used > self._limit and len(self._tiles) > 1:
                self._used -= self._tiles.popitem(last=False)[1].nbytes
