"""Tiled TIFF and SVS levels straight from their tiles: each is fetched and decoded about once.

tiffslide asks tifffile's zarr view for every window anew, so that neighbouring windows decode the same JPEG tiles
again. Here the tiles of a rectangle come from their byte ranges, are decoded in threads, and stay in a bounded
cache for the halo of the next block. Damage that a JPEG decoder passes over in silence is looked for first.
"""

from __future__ import annotations

import logging
import os
import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from wsi_pipeline.slides.readers import RGBImage, TiffSlideReader
from wsi_pipeline.tiling import Bounds

CACHE_BYTES = 64 * 2**20
# One request is dearer than the bytes of a gap like this.
GAP = 16 * 1024
DECODE_THREADS = max(1, min(8, os.cpu_count() or 1))

# TIFF compression codes.
_JPEG = {6, 7, 34892}
_JPEG2000 = {33003, 33004, 33005, 34712}
_SIMPLE = {1, 5, 8, 32773, 32946, 34926, 50000}

_threads = ThreadPoolExecutor(DECODE_THREADS, thread_name_prefix="decode")


class TileCache:
    """Decoded tiles, the least recently used go first; shared by the threads of a slide."""

    def __init__(self, limit: int = CACHE_BYTES) -> None:
        self._limit = limit
        self._used = 0
        self._tiles: OrderedDict[tuple[int, int], RGBImage] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: tuple[int, int]) -> RGBImage | None:
        with self._lock:
            if key in self._tiles:
                self._tiles.move_to_end(key)
            return self._tiles.get(key)

    def put(self, key: tuple[int, int], tile: RGBImage) -> None:
        with self._lock:
            if key in self._tiles:
                return
            self._tiles[key] = tile
            self._used += tile.nbytes
            while self._used > self._limit and len(self._tiles) > 1:
                self._used -= self._tiles.popitem(last=False)[1].nbytes


class ByteSource:
    """Byte ranges of a local file or of an object behind fsspec; many ranges in one call, from any thread."""

    def __init__(self, uri: str) -> None:
        self._descriptor: int | None = None
        self._path = uri
        if "://" in uri or "::" in uri:
            import fsspec

            self._fs, self._path = fsspec.core.url_to_fs(uri)
            self.size = int(self._fs.size(self._path))
        else:
            self._descriptor = os.open(uri, os.O_RDONLY)
            self.size = os.fstat(self._descriptor).st_size

    def open(self) -> Any:
        """A file object for what reads headers."""
        if self._descriptor is not None:
            return open(self._path, "rb")
        return self._fs.open(self._path, "rb")

    def ranges(self, spans: Sequence[tuple[int, int]]) -> list[bytes]:
        """The bytes of each (offset, count); remote ones are coalesced by fsspec and fetched together."""
        if self._descriptor is not None:
            return [os.pread(self._descriptor, count, offset) for offset, count in spans]
        joined = coalesced(spans)
        starts, ends = [start for start, _ in joined], [end for _, end in joined]
        parts: list[bytes] = self._fs.cat_ranges([self._path] * len(joined), starts, ends)
        found = []
        for offset, count in spans:
            part = bisect_right(starts, offset) - 1
            found.append(parts[part][offset - starts[part] : offset - starts[part] + count])
        return found

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def coalesced(spans: Sequence[tuple[int, int]], gap: int = GAP) -> list[tuple[int, int]]:
    """(start, end) of the fewest ranges that hold all (offset, count), sorted; gaps up to `gap` bytes are bridged."""
    found: list[tuple[int, int]] = []
    for offset, count in sorted(spans):
        if found and offset <= found[-1][1] + gap:
            found[-1] = (found[-1][0], max(found[-1][1], offset + count))
        else:
            found.append((offset, offset + count))
    return found


class TiledLevel:
    """One level of a tiled TIFF."""

    def __init__(self, index: int, page: Any, source: ByteSource, cache: TileCache) -> None:
        self.index = index
        self._page = page.keyframe if hasattr(page, "keyframe") else page
        self._offsets = page.dataoffsets
        self._counts = page.databytecounts
        self._source = source
        self._cache = cache
        self.tile = (int(self._page.tilelength), int(self._page.tilewidth))
        self.size = (int(self._page.imagewidth), int(self._page.imagelength))
        self._columns = -(-self.size[0] // self.tile[1])
        # tifffile builds the decoder at first use, which is not safe from several threads at once.
        self._decode = self._page.decode

    def check(self) -> str | None:
        """Why not all tiles can be there, or None: a file that was cut off still opens as a slide."""
        rows = -(-self.size[1] // self.tile[0])
        if len(self._offsets) < rows * self._columns:
            return f"level {self.index} has {len(self._offsets)} of {rows * self._columns} tiles"
        ends = np.asarray(self._offsets, np.int64) + np.asarray(self._counts, np.int64)
        beyond = int((ends > self._source.size).sum())
        if beyond:
            return f"is cut off: {beyond} of {len(ends)} tiles of level {self.index} lie beyond the end of the file"
        return None

    def read(self, bounds: Bounds) -> RGBImage:
        """uint8 (height, width, 3) of a rectangle inside the level."""
        height, width = self.tile
        out = np.empty((bounds.height, bounds.width, 3), np.uint8)
        rows = range(bounds.y // height, -(-bounds.bottom // height))
        columns = range(bounds.x // width, -(-bounds.right // width))
        wanted = [row * self._columns + column for row in rows for column in columns]
        for number, tile in self._tiles(wanted).items():
            y, x = number // self._columns * height, number % self._columns * width
            part = Bounds(x, y, x + width, y + height).within(bounds)
            out[part.y - bounds.y : part.bottom - bounds.y, part.x - bounds.x : part.right - bounds.x] = tile[
                part.y - y : part.bottom - y, part.x - x : part.right - x
            ]
        return out

    def _tiles(self, numbers: Sequence[int]) -> dict[int, RGBImage]:
        found: dict[int, RGBImage] = {}
        missing = []
        for number in numbers:
            tile = self._cache.get((self.index, number))
            if tile is None:
                missing.append(number)
            else:
                found[number] = tile
        if missing:
            spans = [(int(self._offsets[n]), int(self._counts[n])) for n in missing]
            there = [i for i, (_, count) in enumerate(spans) if count]
            data = dict(zip(there, self._source.ranges([spans[i] for i in there]), strict=True))
            jobs = [(n, data.get(i, b""), spans[i][1]) for i, n in enumerate(missing)]
            tiles = _threads.map(self._decoded, jobs) if len(jobs) > 1 else map(self._decoded, jobs)
            for number, tile in zip(missing, tiles, strict=True):
                self._cache.put((self.index, number), tile)
                found[number] = tile
        return found

    def _decoded(self, job: tuple[int, bytes, int]) -> RGBImage:
        number, data, count = job
        if count == 0:
            # A sparse tile: nothing was scanned there.
            return np.full((*self.tile, 3), 255, np.uint8)
        self._check(number, data, count)
        try:
            image, *_ = self._decode(data, number, jpegtables=self._page.jpegtables, jpegheader=self._page.jpegheader)
        except Exception as error:
            raise ValueError(f"tile {self._where(number)} cannot be decoded: {error}") from error
        if image is None:
            raise ValueError(f"tile {self._where(number)} is empty")
        tile: NDArray[np.uint8] = image[0] if image.ndim == 4 else image
        if tile.shape[:2] != self.tile:
            whole = np.full((*self.tile, 3), 255, np.uint8)
            whole[: tile.shape[0], : tile.shape[1]] = tile
            return whole
        return np.ascontiguousarray(tile)

    def _check(self, number: int, data: bytes, count: int) -> None:
        if len(data) != count:
            raise ValueError(f"tile {self._where(number)} is cut off: {len(data)} of {count} bytes")
        if int(self._page.compression) in _JPEG:
            if not data.startswith(b"\xff\xd8"):
                raise ValueError(f"tile {self._where(number)} does not begin as JPEG")
            if not data.rstrip(b"\x00").endswith(b"\xff\xd9"):
                raise ValueError(f"tile {self._where(number)} does not end as JPEG: its data are damaged")

    def _where(self, number: int) -> str:
        return f"{number % self._columns},{number // self._columns} of level {self.index}"


def readable(page: Any) -> bool:
    """Whether a page can be read tile by tile here: tiled, 8-bit RGB, and a compression that is known to work."""
    frame = page.keyframe if hasattr(page, "keyframe") else page
    known = int(frame.compression) in _JPEG | _JPEG2000 | _SIMPLE
    eight_bit_rgb = frame.dtype == np.uint8 and int(frame.samplesperpixel) == 3 and int(frame.planarconfig) == 1
    plain = int(frame.photometric) in {2, 6} and int(getattr(frame, "imagedepth", 1)) == 1
    return bool(frame.is_tiled and known and eight_bit_rgb and plain)


class TiledReader:
    """tiffslide's levels and metadata, pixels tile by tile."""

    def __init__(self, base: TiffSlideReader, levels: dict[int, TiledLevel], source: ByteSource) -> None:
        self.name = base.name
        self.level_sizes = base.level_sizes
        self.mpp = base.mpp
        self.crop = base.crop
        self._base = base
        self._levels = levels
        self._source = source

    def check(self) -> str | None:
        """What says that the file is not whole, or None."""
        return next((cause for level in self._levels.values() if (cause := level.check())), None)

    def read(self, level: int, bounds: Bounds) -> RGBImage:
        """As `Reader.read`."""
        tiles = self._levels.get(level)
        return self._base.read(level, bounds) if tiles is None else tiles.read(bounds)

    def close(self) -> None:
        self._source.close()
        self._base.close()


def tiled(base: TiffSlideReader, uri: str) -> TiledReader | TiffSlideReader:
    """A reader that takes tiles itself for every level that allows it, or `base` when none does."""
    source = ByteSource(uri)
    levels: dict[int, TiledLevel] = {}
    with source.open() as file, tifffile.TiffFile(file) as tiff:
        cache = TileCache()
        found = tiff.series[0].levels if tiff.series else []
        for index, (size, series) in enumerate(zip(base.level_sizes, found, strict=False)):
            page = series.keyframe
            if len(series.pages) == 1 and readable(page) and size == (page.imagewidth, page.imagelength):
                levels[index] = TiledLevel(index, page, source, cache)
    if not levels:
        source.close()
        return base
    return TiledReader(base, levels, source)


class _Listener(logging.Filter):
    """Keeps to itself what tifffile logs in a thread that listens. Slides are opened in many threads at once."""

    def __init__(self) -> None:
        super().__init__()
        self.here = threading.local()

    def filter(self, record: logging.LogRecord) -> bool:
        found: list[str] | None = getattr(self.here, "found", None)
        if found is None:
            return True
        text = record.getMessage()
        if "invalid page offset" in text or "invalid offset to" in text:
            found.append("is cut off: a level of its pyramid is missing (" + text.rsplit("> ", 1)[-1] + ")")
        return False


_listener = _Listener()
# For good: taken on and off it could be missed by another thread that logs meanwhile.
logging.getLogger("tifffile").addFilter(_listener)


@contextmanager
def damage_reports() -> Iterator[list[str]]:
    """What tifffile only logs while the block runs in this thread: links to parts of the file that are not there."""
    found: list[str] = []
    _listener.here.found = found
    try:
        yield found
    finally:
        _listener.here.found = None
