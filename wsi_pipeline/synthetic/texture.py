"""Textures of glass, stroma and tumour that repeat without a seam."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

from wsi_pipeline.objects import RGB
from wsi_pipeline.tiling import Bounds

# Side of a texture in px; it repeats beyond.
SIDE = 1024
LARGEST_READ = 512


@dataclass(frozen=True, slots=True)
class Texture:
    """A picture that repeats every `SIDE` px in both directions.

    Attributes
    ----------
    pixels
        uint8 (SIDE + LARGEST_READ, SIDE + LARGEST_READ, 3): one period and the beginning of the next.
    origin
        Where the slide's corner lies in the picture (x, y), so that slides of different seeds differ.
    """

    pixels: NDArray[np.uint8]
    origin: tuple[int, int] = (0, 0)

    def moved(self, rng: np.random.Generator) -> Texture:
        """The same texture at a random place."""
        x, y = rng.integers(0, SIDE, 2)
        return replace(self, origin=(int(x), int(y)))

    def read(self, part: Bounds) -> NDArray[np.float32]:
        """float32 (height, width, 3), 0 to 255, of a level-0 rectangle of at most `LARGEST_READ` px a side."""
        x, y = (part.x + self.origin[0]) % SIDE, (part.y + self.origin[1]) % SIDE
        return self.pixels[y : y + part.height, x : x + part.width].astype(np.float32)


def _texture(pixels: NDArray[np.float32]) -> Texture:
    period = np.clip(pixels, 0, 255).astype(np.uint8)
    return Texture(np.pad(period, ((0, LARGEST_READ), (0, LARGEST_READ), (0, 0)), mode="wrap"))


@lru_cache(maxsize=4)
def textures(mpp: float) -> tuple[Texture, Texture, Texture]:
    """Glass, stroma (pink, fibrous, few small nuclei) and tumour (darker, crowded with large nuclei) at this mpp.

    The same for every slide: `Texture.moved` makes them differ. Making them takes longer than painting a small slide.
    """
    rng = np.random.default_rng(20_240_817)
    noise = rng.standard_normal((SIDE, SIDE, 1), dtype=np.float32) * 1.4
    return (
        _texture(np.array((242, 241, 240), np.float32) + noise),
        _tissue(rng, mpp, base=(222, 158, 192), nucleus=(120, 78, 150), per_mm2=2400, radius_um=(1.5, 2.6)),
        _tissue(rng, mpp, base=(202, 132, 182), nucleus=(92, 52, 128), per_mm2=10_400, radius_um=(2.0, 4.2)),
    )


def _tissue(
    rng: np.random.Generator, mpp: float, *, base: RGB, nucleus: RGB, per_mm2: float, radius_um: tuple[float, float]
) -> Texture:
    fibres = _periodic(rng, (64, 16, 4), (1.0, 0.7, 0.6))
    pixels = np.array(base, np.float32) + fibres[..., None] * np.array((7, 11, 8), np.float32)
    count = min(20_000, int(per_mm2 * (SIDE * mpp / 1000) ** 2))
    nuclei, shade = _nuclei(rng, count, radius_um[0] / mpp, radius_um[1] / mpp)
    pixels += (np.array(nucleus, np.float32) + shade[..., None] - pixels) * nuclei[..., None]
    pixels += rng.standard_normal((SIDE, SIDE, 1), dtype=np.float32) * 4
    return _texture(pixels)


def _periodic(
    rng: np.random.Generator, wavelengths: tuple[int, ...], weights: tuple[float, ...]
) -> NDArray[np.float32]:
    """Smooth noise with unit spread that continues over the edges; float32 (SIDE, SIDE)."""
    out = np.zeros((SIDE, SIDE), np.float32)
    for wavelength, weight in zip(wavelengths, weights, strict=True):
        coarse = rng.standard_normal((SIDE // wavelength,) * 2).astype(np.float32)
        out += weight * ndimage.zoom(coarse, wavelength, order=1, mode="grid-wrap", grid_mode=True)
    return np.asarray(out / out.std(), np.float32)


def _nuclei(
    rng: np.random.Generator, count: int, smallest: float, largest: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Cover (0 to 1) and shade (-15 to 15) of randomly placed ellipses that wrap around; radii in px."""
    cover = Image.new("L", (SIDE, SIDE), 0)
    shade = Image.new("L", (SIDE, SIDE), 128)
    on_cover, on_shade = ImageDraw.Draw(cover), ImageDraw.Draw(shade)
    angle = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    center = rng.uniform(0, SIDE, (count, 2))
    radius = rng.uniform(smallest, largest, count)
    stretch = rng.uniform(0.9, 1.7, count)
    turn = rng.uniform(0, np.pi, count)
    tone = rng.integers(113, 144, count)
    x = radius[:, None] * stretch[:, None] * np.cos(angle)
    y = radius[:, None] * np.sin(angle)
    cos, sin = np.cos(turn)[:, None], np.sin(turn)[:, None]
    outline = np.stack([x * cos - y * sin, x * sin + y * cos], axis=2) + center[:, None, :]
    reach = radius * stretch
    for i in range(count):
        for shift in _wraps(center[i], reach[i]):
            points = [tuple(p) for p in (outline[i] + shift).tolist()]
            on_cover.polygon(points, fill=255)
            on_shade.polygon(points, fill=int(tone[i]))
    soft = ndimage.gaussian_filter(np.asarray(cover, np.float32) / 255, 0.7, mode="wrap")
    return np.asarray(soft, np.float32), np.asarray(shade, np.float32) - 128


def _wraps(center: NDArray[np.float64], reach: float) -> list[tuple[int, int]]:
    """By how much a shape must be shifted to appear at the opposite edges too."""
    shifts = []
    for value in center:
        near = [0]
        if value < reach:
            near.append(SIDE)
        if value > SIDE - reach:
            near.append(-SIDE)
        shifts.append(near)
    return [(dx, dy) for dx in shifts[0] for dy in shifts[1]]
