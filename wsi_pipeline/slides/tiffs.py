"""Tiled TIFF and SVS levels straight from their tiles: each is fetched and decoded about once.

tiffslide asks tifffile's zarr view for every window anew, so that neighbouring windows decode the same JPEG tiles
again. Here the tiles of a rectangle come from their byte ranges, are decoded in threads, and stay in a bounded
cache for the halo of the next block. Damage that a decoder passes over in silence is looked for first.

From a store elsewhere the bytes are fetched before they are decoded, for several blocks ahead (`prefetch`), and kept
in a bounded cache of their own: they are a tenth of their pixels.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.slides.damage import JPEG, JPEG2000, fault
from wsi_pipeline.slides.readers import RGBImage, TiffSlideReader
from wsi_pipeline.slides.sources import ByteSource
from wsi_pipeline.slides.tiles import Key, TileCache
from wsi_pipeline.tiling import Bounds

DECODE_THREADS = max(1, min(8, os.cpu_count() or 1))
# Rows of tiles are read together up to this many pixels, so that a large rectangle does not need its memory twice.
BATCH_PIXELS = 8 * 2**20

# TIFF compression codes: none, LZW, Deflate (three), PackBits, Zstandard.
_SIMPLE = frozenset({1, 5, 8, 32773, 32946, 34926, 50000})

# Encoded tiles of one slide on a store elsewhere.
FETCHED_BYTES = 64 * 2**20
# No single rectangle may push out what was fetched ahead for others.
MOST_AHEAD = FETCHED_BYTES // 8
FETCH_THREADS = 4

_threads = ThreadPoolExecutor(DECODE_THREADS, thread_name_prefix="decode")
_fetchers = ThreadPoolExecutor(FETCH_THREADS, thread_name_prefix="fetch")


class TiledLevel:
    """One level of a tiled TIFF; `page` is tifffile's, whose file may be closed once this is made."""

    def __init__(
        self,
        index: int,
        page: Any,
        source: ByteSource,
        cache: TileCache[RGBImage],
        fetched: TileCache[bytes] | None,
    ) -> None:
        self.index = index
        frame = page.keyframe
        self._source = source
        self._cache = cache
        self._fetched = fetched
        self._offsets = np.asarray(page.dataoffsets, np.int64)
        self._counts = np.asarray(page.databytecounts, np.int64)
        self._compression = int(frame.compression)
        self._tables: bytes | None = frame.jpegtables
        self._header: bytes | None = frame.jpegheader
        # tifffile builds the decoder at first use, which is not safe from several threads at once.
        self._decode = frame.decode
        self.tile = (int(frame.tilelength), int(frame.tilewidth))
        self.size = (int(frame.imagewidth), int(frame.imagelength))
        self._columns = -(-self.size[0] // self.tile[1])
        # What stands for a sparse tile: nothing was scanned there.
        self._glass = np.full((*self.tile, 3), 255, np.uint8)

    def cut_off(self) -> str | None:
        """Why not all tiles can be there, or None: a file that was cut off still opens as a slide."""
        rows = -(-self.size[1] // self.tile[0])
        if len(self._offsets) < rows * self._columns or len(self._counts) < rows * self._columns:
            return f"level {self.index} has {len(self._offsets)} of {rows * self._columns} tiles"
        beyond = int((self._offsets + self._counts > self._source.size).sum())
        if beyond:
            return (
                f"is cut off: {beyond} of {len(self._offsets)} tiles of level {self.index} lie beyond the end of "
                "the file"
            )
        return None

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
        tables = self._tables if self._header is None else self._header
        wrong = fault(data, self._compression, tables, part=self._header is not None)
        if wrong is not None:
            raise ValueError(f"tile {self._where(number)} {wrong}")
        try:
            image, *_ = self._decode(data, number, jpegtables=self._tables, jpegheader=self._header)
        except Exception as error:
            raise ValueError(f"tile {self._where(number)} cannot be decoded: {error}") from error
        if image is None:
            raise ValueError(f"tile {self._where(number)} is empty")
        return self._whole(image[0] if image.ndim == 4 else image)

    def _whole(self, tile: NDArray[np.uint8]) -> RGBImage:
        if tile.shape[:2] == self.tile:
            return np.ascontiguousarray(tile)
        whole = np.full((*self.tile, 3), 255, np.uint8)
        whole[: tile.shape[0], : tile.shape[1]] = tile
        return whole

    def _where(self, number: int) -> str:
        return f"{number % self._columns},{number // self._columns} of level {self.index}"


def readable(page: Any) -> bool:
    """Whether a page can be read tile by tile here: tiled, 8-bit RGB, and a compression that is known to work."""
    frame = page.keyframe
    known = int(frame.compression) in JPEG | JPEG2000 | _SIMPLE
    eight_bit_rgb = frame.dtype == np.uint8 and int(frame.samplesperpixel) == 3 and int(frame.planarconfig) == 1
    plain = int(frame.photometric) in {2, 6} and int(frame.imagedepth) == 1
    return bool(frame.is_tiled and known and eight_bit_rgb and plain)


class TiledReader:
    """tiffslide's levels and metadata, pixels tile by tile."""

    def __init__(self, base: TiffSlideReader, levels: dict[int, TiledLevel]) -> None:
        self.name = base.name
        self.level_sizes = base.level_sizes
        self.mpp = base.mpp
        self.crop = base.crop
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

    def cut_off(self) -> str | None:
        """What says that the file is not whole, or None."""
        return next((cause for level in self._levels.values() if (cause := level.cut_off())), None)

    def fingerprint(self) -> str:
        """As `Reader.fingerprint`."""
        return self._base.fingerprint()

    def close(self) -> None:
        self._base.close()


def tiled(base: TiffSlideReader) -> TiledReader:
    """A reader that takes tiles itself, for every level that allows it."""
    cache: TileCache[RGBImage] = TileCache()
    fetched: TileCache[bytes] | None = None if base.source.is_local else TileCache(FETCHED_BYTES)
    levels: dict[int, TiledLevel] = {}
    for index, (size, pages) in enumerate(zip(base.level_sizes, base.level_pages(), strict=False)):
        if len(pages) == 1 and readable(pages[0]) and size == (pages[0].imagewidth, pages[0].imagelength):
            levels[index] = TiledLevel(index, pages[0], base.source, cache, fetched)
    return TiledReader(base, levels)
