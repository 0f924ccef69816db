"""A pyramidal, tiled JPEG TIFF written strip by strip: memory is bounded by the width, not by the slide.

Level 0 arrives from the top as strips one tile high. Every further level is halved on the way; its encoded tiles wait
in a temporary file until level 0 is complete, because TIFF wants the levels one after the other.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray

from wsi_pipeline.files import atomic

# The pyramid ends with the first level that is not larger than this.
SMALLEST_LEVEL = 1024

CENTIMETER_IN_UM = 10_000.0


@dataclass(frozen=True, slots=True)
class Encoding:
    """How the tiles of a slide are stored.

    Attributes
    ----------
    tile
        Side of a tile in pixels, a multiple of 16.
    quality
        JPEG quality, 1 to 100; chroma is subsampled 2x2, as scanners do.
    """

    tile: int = 512
    quality: int = 80

    def encode(self, tile: NDArray[np.uint8]) -> bytes:
        """JPEG of one RGB tile, uint8 (tile, tile, 3)."""
        data = imagecodecs.jpeg8_encode(
            np.ascontiguousarray(tile), level=self.quality, colorspace="RGB", outcolorspace="YCBCR", subsampling="420"
        )
        return bytes(data)

    def tiles(self, strip: NDArray[np.uint8]) -> Iterator[bytes]:
        """The encoded tiles of a strip of at most `tile` rows, from the left; edges are repeated to fill tiles."""
        height, width = strip.shape[:2]
        pad = ((0, self.tile - height), (0, -width % self.tile), (0, 0))
        full = np.pad(strip, pad, mode="edge") if pad[0][1] or pad[1][1] else strip
        for x in range(0, full.shape[1], self.tile):
            yield self.encode(full[:, x : x + self.tile])


def level_sizes(width: int, height: int, smallest: int = SMALLEST_LEVEL) -> list[tuple[int, int]]:
    """Sizes (width, height) of the levels: halved, rounded down, until one is at most `smallest` on both sides."""
    sizes = [(width, height)]
    while max(sizes[-1]) > smallest:
        sizes.append((max(1, sizes[-1][0] // 2), max(1, sizes[-1][1] // 2)))
    return sizes


def write_pyramid(
    path: Path,
    strips: Iterable[NDArray[np.uint8]],
    size: tuple[int, int],
    *,
    mpp: float | None,
    encoding: Encoding = Encoding(),
    smallest: int = SMALLEST_LEVEL,
) -> None:
    """Write a slide; the file appears whole or not at all.

    Parameters
    ----------
    path
        The TIFF file (BigTIFF).
    strips
        Level 0 from the top: uint8 (encoding.tile, width, 3) RGB, the last one as high as what is left.
    size
        Width and height of level 0 in px.
    mpp
        µm per level-0 px, stated in the resolution tags of every level (unit: centimetre); None states nothing.
    smallest
        The pyramid ends with the first level of at most this many px on both sides; `size` itself for one level.

    Raises
    ------
    ValueError
        A strip does not have the announced shape, or there are too few of them.
    """
    sizes = level_sizes(*size, smallest)
    with tempfile.TemporaryFile(dir=path.parent if path.parent.is_dir() else None) as spool, atomic(path) as file:
        reduced = [_Reduced(width, height, encoding, spool) for width, height in sizes[1:]]
        with tifffile.TiffWriter(file, bigtiff=True) as writer:
            tiles: Iterator[bytes] = _level_0(_checked(strips, size, encoding.tile), reduced, encoding)
            for index, (width, height) in enumerate(sizes):
                if index:
                    tiles = reduced[index - 1].encoded()
                writer.write(
                    tiles,
                    shape=(height, width, 3),
                    dtype=np.uint8,
                    tile=(encoding.tile, encoding.tile),
                    photometric="rgb",
                    compression="jpeg",
                    subsampling=(2, 2),
                    subfiletype=1 if index else 0,
                    metadata=None,
                    # 1 px per unit "none" states no size.
                    resolution=(1, 1) if mpp is None else (CENTIMETER_IN_UM / mpp * width / size[0],) * 2,
                    resolutionunit="NONE" if mpp is None else "CENTIMETER",
                )
                if not index:
                    _finish(reduced)


def _checked(strips: Iterable[NDArray[np.uint8]], size: tuple[int, int], tile: int) -> Iterator[NDArray[np.uint8]]:
    width, height = size
    source = iter(strips)
    for y in range(0, height, tile):
        strip = next(source, None)
        expected = (min(tile, height - y), width, 3)
        if strip is None or strip.shape != expected or strip.dtype != np.uint8:
            found = "missing" if strip is None else f"{strip.dtype} {strip.shape}"
            raise ValueError(f"strip at row {y} is {found}, expected uint8 {expected}")
        yield strip


def _level_0(strips: Iterator[NDArray[np.uint8]], reduced: list[_Reduced], encoding: Encoding) -> Iterator[bytes]:
    for strip in strips:
        rows = strip
        for level in reduced:
            rows = level.add(rows)
        # Last, because tifffile closes this generator as soon as it has the last tile.
        yield from encoding.tiles(strip)


def _finish(reduced: list[_Reduced]) -> None:
    for index, level in enumerate(reduced):
        rows = level.finish()
        for further in reduced[index + 1 :]:
            rows = further.add(rows)


def halved(rows: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Mean of 2x2 pixels, rounded; an odd last row or column is left out (repeated where it is the only one)."""
    for axis in (0, 1):
        if rows.shape[axis] == 1:
            rows = np.repeat(rows, 2, axis=axis)
    even = rows[: rows.shape[0] // 2 * 2, : rows.shape[1] // 2 * 2]
    total = even[0::2, 0::2].astype(np.uint16)
    for part in (even[0::2, 1::2], even[1::2, 0::2], even[1::2, 1::2]):
        total += part
    return ((total + 2) // 4).astype(np.uint8)


@dataclass(slots=True)
class _Reduced:
    """One further level on its way: rows that wait for a full tile row, and tiles that are in the spool file."""

    width: int
    height: int
    encoding: Encoding
    spool: IO[bytes]
    _waiting: list[NDArray[np.uint8]] = field(default_factory=list)
    _odd: NDArray[np.uint8] = field(default_factory=lambda: np.empty((0, 0, 3), np.uint8))
    _rows: int = 0
    _written: int = 0
    _places: list[tuple[int, int]] = field(default_factory=list)

    def add(self, rows: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Take rows of the level above; returns what they became, for the next level (perhaps no row yet)."""
        rows = np.concatenate([self._odd, rows]) if self._odd.size else rows
        pairs = rows.shape[0] // 2 * 2
        self._odd = rows[pairs:]
        half = halved(rows[:pairs])[:, : self.width]
        self._keep(half)
        return half

    def finish(self) -> NDArray[np.uint8]:
        """Write what still waits; returns rows for the next level: only where this level is a single row."""
        missing = self._written + self._rows < self.height
        last = halved(self._odd if missing else self._odd[:0])[:, : self.width]
        self._keep(last)
        if self._rows:
            self._write(self._rows)
        return last

    def _keep(self, rows: NDArray[np.uint8]) -> None:
        self._waiting.append(rows)
        self._rows += rows.shape[0]
        while self._rows >= self.encoding.tile:
            self._write(self.encoding.tile)

    def _write(self, count: int) -> None:
        rows = np.concatenate(self._waiting)
        self._waiting, self._rows = [rows[count:]], self._rows - count
        self._written += count
        self.spool.seek(0, 2)
        for data in self.encoding.tiles(rows[:count]):
            self._places.append((self.spool.tell(), len(data)))
            self.spool.write(data)

    def encoded(self) -> Iterator[bytes]:
        for place, length in self._places:
            self.spool.seek(place)
            yield self.spool.read(length)
