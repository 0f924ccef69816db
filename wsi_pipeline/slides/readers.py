"""Readers: who opens a file, and how pixels of one level come out. All agree on one small protocol."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.tiling import Bounds

RGBImage = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Level:
    """One level of the pyramid; sizes in its own pixels, `downsample` level-0 px to one of them."""

    index: int
    width: int
    height: int
    downsample: float


class Reader(Protocol):
    """Pixels and facts of one open file. `read` may be called from several threads."""

    name: str
    level_sizes: tuple[tuple[int, int], ...]
    mpp: tuple[float, float] | None
    crop: Bounds | None

    def read(self, level: int, bounds: Bounds) -> RGBImage:
        """uint8 (bounds.height, bounds.width, 3) of a rectangle inside the level, in pixels of the level.

        Raises `OSError` or `ValueError` when it cannot be decoded.
        """

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


class TiffSlideReader:
    """tiffslide: most TIFF-like formats, local or through fsspec."""

    name = "tiffslide"

    def __init__(self, uri: str) -> None:
        from tiffslide import TiffSlide

        self._slide: Any = TiffSlide(uri)
        self._lock = threading.Lock()
        self.level_sizes = tuple((int(w), int(h)) for w, h in self._slide.level_dimensions)
        self.mpp = stated_mpp(self._slide.properties, "tiffslide")
        self.crop = stated_crop(self._slide.properties, self.level_sizes[0])

    def read(self, level: int, bounds: Bounds) -> RGBImage:
        # The location is asked for in level-0 pixels and rounded to the level's: the nearest one comes back.
        scale = self._slide.level_downsamples[level]
        location = (round(bounds.x * scale), round(bounds.y * scale))
        with self._lock:
            array = self._slide.read_region(location, level, (bounds.width, bounds.height), as_array=True)
        return on_white(np.asarray(array, np.uint8))

    def close(self) -> None:
        self._slide.close()


class OpenSlideReader:
    """openslide: what tiffslide does not open (DICOM, MIRAX, ...); local files only."""

    name = "openslide"

    def __init__(self, path: str) -> None:
        import openslide

        self._slide = openslide.OpenSlide(path)
        self.level_sizes = tuple((int(w), int(h)) for w, h in self._slide.level_dimensions)
        self.mpp = stated_mpp(self._slide.properties, "openslide")
        self.crop = stated_crop(self._slide.properties, self.level_sizes[0])

    def read(self, level: int, bounds: Bounds) -> RGBImage:
        scale = self._slide.level_downsamples[level]
        location = (round(bounds.x * scale), round(bounds.y * scale))
        image = self._slide.read_region(location, level, (bounds.width, bounds.height))
        return on_white(np.asarray(image))

    def close(self) -> None:
        self._slide.close()
