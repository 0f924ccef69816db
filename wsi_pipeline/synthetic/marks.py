"""What lies on glass beside tissue: pen and dust."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import shapely
import shapely.affinity
from numpy.typing import NDArray
from scipy import ndimage
from shapely.geometry.base import BaseGeometry

from wsi_pipeline.objects import RGB
from wsi_pipeline.raster import fill
from wsi_pipeline.tiling import Bounds

PEN_COLORS: tuple[RGB, ...] = ((38, 92, 62), (36, 54, 140), (30, 30, 34))
DUST_COLOR: RGB = (70, 62, 58)


@dataclass(frozen=True, slots=True)
class Mark:
    """A shape of one colour. Pen is under the coverslip's edge and never on tissue; dust lies anywhere."""

    shape: BaseGeometry
    color: RGB
    strength: float
    on_tissue: bool

    def paint(self, image: NDArray[np.float32], part: Bounds, opacity: NDArray[np.float32] | None) -> None:
        """Paint into `image` (float32, the pixels of the level-0 rectangle `part`).

        Parameters
        ----------
        opacity
            0 to 1, where tissue lies; None where there is none.
        """
        left, top, right, bottom = self.shape.bounds
        around = Bounds(math.floor(left), math.floor(top), math.ceil(right), math.ceil(bottom)).within(part)
        if not (around.width and around.height):
            return
        place = np.s_[around.y - part.y : around.bottom - part.y, around.x - part.x : around.right - part.x]
        alpha = fill(self.shape, around).astype(np.float32) * self.strength
        if opacity is not None and not self.on_tissue:
            alpha *= 1 - opacity[place]
        image[place] += (np.array(self.color, np.float32) - image[place]) * alpha[..., None]


def pen(
    rng: np.random.Generator, center: tuple[float, float], radii: tuple[float, float], thickness: float, color: RGB
) -> Mark:
    """A hand-drawn arc of pen around `center`; lengths in level-0 px, `thickness` from edge to edge."""
    t = np.linspace(0, 1, 60)
    angle = rng.uniform(0, 2 * np.pi) + t * rng.uniform(2.5, 4.5)
    wobble = 1 + 0.07 * ndimage.gaussian_filter1d(rng.standard_normal(t.size), 6, mode="nearest")
    points = np.stack(
        [center[0] + radii[0] * wobble * np.cos(angle), center[1] + radii[1] * wobble * np.sin(angle)], axis=1
    )
    return Mark(shapely.LineString(points).buffer(thickness / 2), color, 0.85, on_tissue=False)


def pen_color(rng: np.random.Generator) -> RGB:
    """Green, blue or black."""
    return PEN_COLORS[int(rng.integers(len(PEN_COLORS)))]


def dust(rng: np.random.Generator, size: tuple[int, int], mpp: float) -> Mark:
    """A dark speck of 4 to 24 µm somewhere on the slide."""
    center = shapely.Point(rng.uniform(0, size[0]), rng.uniform(0, size[1]))
    speck = shapely.affinity.scale(center.buffer(rng.uniform(2, 12) / mpp), 1.0, rng.uniform(0.3, 1.0))
    return Mark(shapely.affinity.rotate(speck, rng.uniform(0, 180)), DUST_COLOR, 0.9, on_tissue=True)
