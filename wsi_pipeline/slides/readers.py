"""Readers: who opens a file, and how pixels of one level come out. All agree on one small protocol."""

from __future__ import annotations

import math
import os
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.slides.damage import JPEG, JPEG2000
from wsi_pipeline.slides.ome import ome_mpp
from wsi_pipeline.slides.sources import ByteSource, file_changed
from wsi_pipeline.tiling import Bounds

RGBImage = NDArray[np.uint8]

# TIFF's photometric interpretations of colour, and the orders of axes that tiffslide reads.
RGB, YCBCR = 2, 6
READABLE_AXES = ("YXS", "CYX")
# Bytes of a strip or tile that is decoded in one go.
LARGEST_PIECE = 2**30
# Side of the pieces that are read where the file's own are not known, and from openslide's levels of uneven size.
PIECE = 512


class NotAPicture(ValueError):
    """The file opens, but no reader gets a whole colour picture from it: says why, and what to do."""

    def __init__(self, cause: str, remedy: str) -> None:
        super().__init__(cause)
        self.cause = cause
        self.remedy = remedy


@dataclass(frozen=True, slots=True)
class Level:
    """One level of the pyramid; sizes in its own pixels, `downsample` level-0 px to one of them."""

    index: int
    width: int
    height: int
    downsample: float


class Reader(Protocol):
    """Pixels and facts of one open file. `read` may be called from several threads.

    Attributes
    ----------
    torn
        Levels that lack a part of what finer ones hold, and are not to be read.
    notes
        What is odd about the file, but no reason to refuse it.
    """

    name: str
    level_sizes: tuple[tuple[int, int], ...]
    mpp: tuple[float, float] | None
    crop: Bounds | None
    torn: frozenset[int]
    notes: tuple[str, ...]

    def read(self, level: int, bounds: Bounds) -> RGBImage:
        """uint8 (bounds.height, bounds.width, 3) of a rectangle inside the level, in pixels of the level.

        Raises when it cannot be decoded; what, depends on the library.
        """

    def prefetch(self, level: int, bounds: Bounds) -> None:
        """Have what `read` will need of a rectangle inside the level come in the background, where that helps."""

    def tile_size(self, level: int) -> tuple[int, int]:
        """Height and width of the pieces in which a level is best read."""

    def fingerprint(self) -> str:
        """The same for copies of one slide under other names; different slides have different ones."""

    def changed(self) -> bool:
        """Whether something else lies there now than what was opened."""

    def close(self) -> None:
        """Let go of the file."""


def on_white(image: NDArray[np.uint8]) -> RGBImage:
    """RGB of an RGB or RGBA image; where it is transparent the slide has no pixels, which is shown as glass."""
    if image.shape[2] == 3:
        return image
    alpha = image[..., 3:4].astype(np.uint16)
    mixed = (image[..., :3].astype(np.uint16) * alpha + 255 * (255 - alpha) + 127) // 255
    return mixed.astype(np.uint8)


def stated_mpp(properties: Mapping[str, Any], prefix: str) -> tuple[float, float] | None:
    """`<prefix>.mpp-x` and `-y` as numbers, None when one is not there."""
    values = (properties.get(f"{prefix}.mpp-x"), properties.get(f"{prefix}.mpp-y"))
    try:
        x, y = (float(value) for value in values if value is not None)
    except ValueError:
        return None
    return x, y


def stated_crop(properties: Mapping[str, Any], size: tuple[int, int]) -> Bounds | None:
    """The rectangle `openslide.bounds-*` in level-0 px: the scanned part of the slide, None when it is the whole."""
    names = ("x", "y", "width", "height")
    values = [properties.get(f"openslide.bounds-{name}") for name in names]
    if any(value is None for value in values):
        return None
    x, y, width, height = (int(float(str(value))) for value in values)
    return None if (x, y, width, height) == (0, 0, *size) else Bounds(x, y, x + width, y + height)


_warnings_lock = threading.Lock()


@contextmanager
def _quiet_tiffslide() -> Iterator[None]:
    """tiffslide warns of metadata that it does not parse for some vendors; sizes and mpp are checked here anyway.

    The filters of Python's warnings are one for all threads, so only one at a time may change and restore them.
    """
    with _warnings_lock, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*metadata parsing.*")
        yield


class TiffSlideReader:
    """tiffslide: most TIFF-like formats, local or through fsspec."""

    name = "tiffslide"
    torn: frozenset[int] = frozenset()

    def __init__(self, uri: str) -> None:
        from tiffslide import TiffSlide

        self.source = ByteSource(uri)
        self.notes = self.source.notes
        self._file: Any = None
        try:
            # A remote file is opened here, because its header should come in small blocks; so is a part of a file.
            self._file = None if self.source.path is not None else self.source.open()
            # tifffile knows some formats by the name of their files.
            named = {} if self._file is None else {"tifffile_options": {"name": self.source.name}}
            self._slide: Any = TiffSlide(uri if self._file is None else self._file, **named)
            with _quiet_tiffslide():
                self._check_pixels()
                self.level_sizes = tuple((int(w), int(h)) for w, h in self._slide.level_dimensions)
                self.mpp = stated_mpp(self._slide.properties, "tiffslide") or self._ome_mpp()
                self.crop = stated_crop(self._slide.properties, self.level_sizes[0])
        except BaseException:
            self.close()
            raise
        self._lock = threading.Lock()

    def _check_pixels(self) -> None:
        """Refuse what is no 8-bit colour picture, and what cannot be read in parts."""
        # Of the first page without tiffslide's help, which knows fewer kinds of files than openslide.
        _check_colour(self._slide.ts_tifffile.pages.first)
        for pages in self.level_pages():
            _check_colour(pages[0])
            piece = math.prod(pages[0].chunks)
            if piece > LARGEST_PIECE:
                raise NotAPicture(
                    f"stores {piece / 2**30:.1f} GiB in one piece", "convert it to a tiled pyramid, or leave it out"
                )
        axes = self._slide.properties["tiffslide.series-axes"]
        if axes not in READABLE_AXES:
            raise ValueError(f"has the axes {axes}")

    def _ome_mpp(self) -> tuple[float, float] | None:
        """What OME's metadata say, which tiffslide does not read."""
        xml = self._slide.ts_tifffile.ome_metadata
        return None if xml is None else ome_mpp(xml, int(self._slide.properties.get("tiffslide.series-index") or 0))

    def level_pages(self) -> list[list[Any]]:
        """tifffile's pages of each level; empty where the picture is put together from several series."""
        properties = self._slide.properties
        if properties.get("tiffslide.series-composition"):
            return []
        series = self._slide.ts_tifffile.series[properties["tiffslide.series-index"]]
        return [[page for page in level.pages if page is not None] for level in series.levels]

    def read(self, level: int, bounds: Bounds) -> RGBImage:
        # The location is asked for in level-0 pixels and rounded down to the level's.
        scale = self._slide.level_downsamples[level]
        location = (math.ceil(bounds.x * scale), math.ceil(bounds.y * scale))
        with self._lock:
            array = self._slide.read_region(location, level, (bounds.width, bounds.height), as_array=True)
        return on_white(np.asarray(array))

    def prefetch(self, level: int, bounds: Bounds) -> None:
        """Nothing: tiffslide reads for itself."""

    def tile_size(self, level: int) -> tuple[int, int]:
        pages = self.level_pages()
        chunks: tuple[int, ...] = pages[level][0].chunks if level < len(pages) else ()
        return (int(chunks[-3]), int(chunks[-2])) if len(chunks) >= 3 else (PIECE, PIECE)

    def fingerprint(self) -> str:
        return self.source.fingerprint()

    def changed(self) -> bool:
        return self.source.changed()

    def close(self) -> None:
        for part in ("_slide", "_file", "source"):
            opened = getattr(self, part, None)
            if opened is not None:
                opened.close()


def _check_colour(page: Any) -> None:
    if page.dtype != np.uint8 or int(page.photometric) not in {RGB, YCBCR}:
        raise NotAPicture(
            f"has pixels of {page.samplesperpixel} x {page.dtype}, not 8-bit RGB",
            "convert it to 8-bit RGB, or leave it out",
        )
    if int(page.photometric) == YCBCR and int(page.compression) not in JPEG | JPEG2000:
        raise NotAPicture(
            "stores luminance and chrominance (YCbCr) without JPEG", "convert it to 8-bit RGB, or leave it out"
        )


class OpenSlideReader:
    """openslide: what tiffslide does not open (DICOM, MIRAX, ...); local files only."""

    name = "openslide"
    torn: frozenset[int] = frozenset()
    notes: tuple[str, ...] = ()

    def __init__(self, path: str) -> None:
        self._path = path
        self._as_opened = os.stat(path)
        self._slide: Any = self._opened()
        self._lock = threading.Lock()
        self.level_sizes = tuple((int(w), int(h)) for w, h in self._slide.level_dimensions)
        self.mpp = stated_mpp(self._slide.properties, "openslide")
        self.crop = stated_crop(self._slide.properties, self.level_sizes[0])

    def _opened(self) -> Any:
        import openslide

        return openslide.OpenSlide(self._path)

    def read(self, level: int, bounds: Bounds) -> RGBImage:
        scale = self._slide.level_downsamples[level]
        if abs(scale - round(scale)) < 1e-9:
            return self._region(level, bounds, round(scale))
        # Between pixels openslide interpolates: pieces of one grid keep the pixels the same, whatever is asked for.
        out = np.empty((bounds.height, bounds.width, 3), np.uint8)
        for piece in grid_pieces(bounds, PIECE):
            part = piece.within(bounds)
            pixels = self._region(level, piece, scale)
            out[part.y - bounds.y : part.bottom - bounds.y, part.x - bounds.x : part.right - bounds.x] = pixels[
                part.y - piece.y : part.bottom - piece.y, part.x - piece.x : part.right - piece.x
            ]
        return out

    def _region(self, level: int, bounds: Bounds, scale: float) -> RGBImage:
        import openslide

        slide = self._slide
        location = (round(bounds.x * scale), round(bounds.y * scale))
        try:
            return on_white(np.asarray(slide.read_region(location, level, (bounds.width, bounds.height))))
        except openslide.OpenSlideError:
            # openslide answers every later call with the same error: one bad tile must not spoil the others.
            with self._lock:
                if self._slide is slide:
                    self._slide = self._opened()
            raise

    def prefetch(self, level: int, bounds: Bounds) -> None:
        """Nothing: the file is here."""

    def tile_size(self, level: int) -> tuple[int, int]:
        return PIECE, PIECE

    def fingerprint(self) -> str:
        # The files of one DICOM series have the same, since each of them opens as the whole series.
        quickhash = self._slide.properties.get("openslide.quickhash-1")
        if quickhash:
            return str(quickhash)
        source = ByteSource(self._path)
        try:
            return source.fingerprint()
        finally:
            source.close()

    def changed(self) -> bool:
        return file_changed(self._path, self._as_opened)

    def close(self) -> None:
        self._slide.close()


def grid_pieces(bounds: Bounds, side: int) -> Iterator[Bounds]:
    """The squares of a grid at the origin that touch `bounds`, row by row."""
    for y in range(bounds.y // side * side, bounds.bottom, side):
        for x in range(bounds.x // side * side, bounds.right, side):
            yield Bounds(x, y, x + side, y + side)
