"""Tiled TIFF and SVS levels straight from their tiles: each is fetched and decoded about once.

tiffslide asks tifffile's zarr view for every window anew, so that neighbouring windows decode the same JPEG tiles
again. Here the tiles of a rectangle come from their byte ranges, are decoded in threads, and stay in a bounded
cache for the halo of the next block. Damage that a decoder passes over in silence is looked for first.

From a store elsewhere the bytes are fetched before they are decoded, for several blocks ahead (`prefetch`), and kept
in a bounded cache of their own: they are a tenth of their pixels.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.slides.decoding import Decoder, decodable
from wsi_pipeline.slides.readers import NotAPicture, RGBImage, TiffSlideReader
from wsi_pipeline.slides.sources import ByteSource
from wsi_pipeline.slides.tiles import Key, TileCache
from wsi_pipeline.tiling import Bounds

DECODE_THREADS = max(1, min(8, os.cpu_count() or 1))
# Rows of tiles are read together up to this many pixels, so that a large rectangle does not need its memory twice.
BATCH_PIXELS = 8 * 2**20

# Encoded tiles of one slide on a store elsewhere.
FETCHED_BYTES = 64 * 2**20
# No single rectangle may push out what was fetched ahead for others.
MOST_AHEAD = FETCHED_BYTES // 8
FETCH_THREADS = 4

NOT_WHOLE = "copy the file again: it is not whole"

_threads = ThreadPoolExecutor(DECODE_THREADS, thread_name_prefix="decode")
_fetchers = ThreadPoolExecutor(FETCH_THREADS, thread_name_prefix="fetch")


class TiledLevel:
    """One level of a TIFF, tile by tile (or strip by strip); `page` is tifffile's, whose file may be closed by then."""

    def __init__(
        self,
        index: int,
        page: Any,
        source: ByteSource,
        cache: TileCache[RGBImage],
        fetched: TileCache[bytes] | None,
    ) -> None:
        self.index = index
        self._source = source
        self._cache = cache
        self._fetched = fetched
        # Damaged values may use all 64 bits.
        self._offsets = np.asarray(page.dataoffsets, np.uint64)
        self._counts = np.asarray(page.databytecounts, np.uint64)
        self._check(page)
        self._decode = Decoder(page)
        self.tile = self._decode.piece
        self.size = self._decode.size
        self._columns = self._decode.columns
        # What stands for a sparse tile: nothing was scanned there.
        self._glass = np.full((*self.tile, 3), 255, np.uint8)

    def _check(self, page: Any) -> None:
        """Raise `NotAPicture` unless all tiles can be there: a file that was cut off still opens as a slide."""
        wanted, found = math.prod(page.keyframe.chunked), min(len(self._offsets), len(self._counts))
        size = np.uint64(self._source.size)
        beyond = int(((self._counts > size) | (self._offsets > size - np.minimum(self._counts, size))).sum())
        if found < wanted:
            raise NotAPicture(f"level {self.index} has {found} of {wanted} tiles", NOT_WHOLE)
        if beyond:
            raise NotAPicture(
                f"is cut off: {beyond} of {wanted} tiles of level {self.index} lie beyond the end of the file",
                NOT_WHOLE,
            )

    @property
    def holes(self) -> NDArray[np.bool_]:
        """Tiles that the file does not hold, bool (rows, columns)."""
        rows = -(-self.size[1] // self.tile[0])
        counts = self._counts[: rows * self._columns].reshape(rows, self._columns)
        return np.asarray(counts == 0)

    def read(self, bounds: Bounds) -> RGBImage:
        """uint8 (height, width, 3) of a rectangle inside the level."""
        height, width = self.tile
        out = np.empty((bounds.height, bounds.width, 3), np.uint8)
        for rows in self._batches(bounds):
            wanted = self._keys(bounds, rows)
            for (_, number), tile in self._cache.get(wanted, self._make).items():
                y, x = number // self._columns * height, number % self._columns * width
                part = Bounds(x, y, x + width, y + height).within(bounds)
                out[part.y - bounds.y : part.bottom - bounds.y, part.x - bounds.x : part.right - bounds.x] = tile[
                    part.y - y : part.bottom - y, part.x - x : part.right - x
                ]
        return out

    def prefetch(self, bounds: Bounds) -> None:
        """Have the bytes of a rectangle inside the level come, if it lies elsewhere; what goes wrong, `read` tells."""
        if self._fetched is None:
            return
        keys = self._fetched.lacking(self._cache.lacking(self._keys(bounds, self._rows(bounds))))
        if keys and self._counts[[number for _, number in keys]].sum() <= MOST_AHEAD:
            _fetchers.submit(self._fetched.get, keys, self._fetch)

    def _rows(self, bounds: Bounds) -> range:
        return range(bounds.y // self.tile[0], -(-bounds.bottom // self.tile[0]))

    def _keys(self, bounds: Bounds, rows: range) -> list[Key]:
        columns = range(bounds.x // self.tile[1], -(-bounds.right // self.tile[1]))
        return [(self.index, row * self._columns + column) for row in rows for column in columns]

    def _batches(self, bounds: Bounds) -> Iterator[range]:
        rows = self._rows(bounds)
        columns = -(-bounds.right // self.tile[1]) - bounds.x // self.tile[1]
        step = max(1, BATCH_PIXELS // (columns * self.tile[0] * self.tile[1]))
        return (range(row, min(row + step, rows.stop)) for row in range(rows.start, rows.stop, step))

    def _make(self, keys: Sequence[Key]) -> Iterable[RGBImage]:
        if self._fetched is None:
            data = dict(zip(keys, self._fetch(keys), strict=True))
        else:
            data = self._fetched.get(keys, self._fetch)
        jobs = [(number, data[level, number]) for level, number in keys]
        return _threads.map(self._made, jobs) if len(jobs) > 1 else map(self._made, jobs)

    def _fetch(self, keys: Sequence[Key]) -> list[bytes]:
        """The bytes of tiles, nothing for a sparse one."""
        there = [number for _, number in keys if self._counts[number]]
        spans = [(int(self._offsets[number]), int(self._counts[number])) for number in there]
        data = dict(zip(there, self._source.ranges(spans), strict=True))
        return [data.get(number, b"") for _, number in keys]

    def _made(self, job: tuple[int, bytes]) -> RGBImage:
        number, data = job
        if not self._counts[number]:
            return self._glass
        if len(data) != self._counts[number]:
            raise ValueError(f"tile {self._where(number)} is cut off: {len(data)} of {self._counts[number]} bytes")
        try:
            return self._decode(data, number)
        except ValueError as error:
            raise ValueError(f"tile {self._where(number)} {error}") from error

    def _where(self, number: int) -> str:
        return f"{number % self._columns},{number // self._columns} of level {self.index}"


class TiledReader:
    """tiffslide's levels and metadata, pixels tile by tile."""

    def __init__(self, base: TiffSlideReader, levels: dict[int, TiledLevel]) -> None:
        self.name = base.name
        self.level_sizes = base.level_sizes
        self.mpp = base.mpp
        self.crop = base.crop
        self.torn = frozenset(_torn(levels))
        lacking = (
            f"level {level} lacks tiles that finer levels have: they are read in its place" for level in self.torn
        )
        self.notes = (*base.notes, *sorted(lacking))
        self._base = base
        self._levels = levels

    def read(self, level: int, bounds: Bounds) -> RGBImage:
        """As `Reader.read`."""
        tiles = self._levels.get(level)
        return self._base.read(level, bounds) if tiles is None else tiles.read(bounds)

    def prefetch(self, level: int, bounds: Bounds) -> None:
        """As `Reader.prefetch`."""
        if level in self._levels:
            self._levels[level].prefetch(bounds)

    def tile_size(self, level: int) -> tuple[int, int]:
        """As `Reader.tile_size`."""
        tiles = self._levels.get(level)
        return self._base.tile_size(level) if tiles is None else tiles.tile

    def fingerprint(self) -> str:
        """As `Reader.fingerprint`."""
        return self._base.fingerprint()

    def changed(self) -> bool:
        """As `Reader.changed`."""
        return self._base.changed()

    def close(self) -> None:
        self._base.close()


def tiled(base: TiffSlideReader) -> TiledReader:
    """A reader that takes tiles and strips itself, for every level that allows it."""
    cache: TileCache[RGBImage] = TileCache()
    fetched: TileCache[bytes] | None = None if base.source.is_local else TileCache(FETCHED_BYTES)
    levels: dict[int, TiledLevel] = {}
    for index, (size, pages) in enumerate(zip(base.level_sizes, base.level_pages(), strict=False)):
        if len(pages) == 1 and decodable(pages[0]) and size == (pages[0].imagewidth, pages[0].imagelength):
            levels[index] = TiledLevel(index, pages[0], base.source, cache, fetched)
    return TiledReader(base, levels)


def _torn(levels: Mapping[int, TiledLevel]) -> Iterator[int]:
    """Levels that lack tiles where the next finer level has some. What was not scanned is lacking in all of them."""
    finer: TiledLevel | None = None
    for index, level in sorted(levels.items(), key=lambda item: -item[1].size[0]):
        if finer is not None and level.holes.any() and (level.holes & _covered(level, finer)).any():
            yield index
        else:
            finer = level


def _covered(level: TiledLevel, finer: TiledLevel) -> NDArray[np.bool_]:
    """Which tiles of a level have a tile of a finer one at the same place, slivers at their edges left out."""
    there = ~finer.holes
    sums = np.zeros((there.shape[0] + 1, there.shape[1] + 1), np.int64)
    sums[1:, 1:] = there.cumsum(0, dtype=np.int64).cumsum(1)
    (top, bottom), (left, right) = (
        _overlaid(count, level.tile[axis], finer.tile[axis], finer.size[1 - axis] / level.size[1 - axis], length)
        for axis, (count, length) in enumerate(zip(level.holes.shape, there.shape, strict=True))
    )
    inside = sums[bottom][:, right] - sums[top][:, right] - sums[bottom][:, left] + sums[top][:, left]
    return np.asarray(inside > 0)


def _overlaid(
    count: int, side: int, finer_side: int, ratio: float, length: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """First and end tile of the finer level under each tile of the coarser, along one axis."""
    start = np.arange(count) * side
    first, end = (start + 1) * ratio // finer_side, -(-(start + side - 1) * ratio // finer_side)
    return np.clip(first, 0, length).astype(np.intp), np.clip(end, 0, length).astype(np.intp)
