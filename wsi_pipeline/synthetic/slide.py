"""Fully synthetic slides with known truth: any size, any seed, written in strips.

Tissue and tumour are where smooth random fields are positive. The painter blends textures by the same fields whose
contours are the truth, so picture and polygons agree to a fraction of a pixel.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.synthetic import marks
from wsi_pipeline.synthetic.fields import Field, Values, cut_to, smooth_field
from wsi_pipeline.synthetic.pyramid import SMALLEST_LEVEL, Encoding, write_pyramid
from wsi_pipeline.synthetic.texture import LARGEST_READ, textures
from wsi_pipeline.synthetic.truth import Truth
from wsi_pipeline.tiling import Bounds

# Grid of the fields in level-0 px; larger slides get a coarser one, so that a field never exceeds 4096² nodes.
CELL = 16
MOST_NODES = 4096

# Half the width of the soft edge between tissue and glass, or tumour and stroma, in µm.
SOFT_EDGE_UM = 3.0


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a synthetic slide looks like. The same recipe gives the same pixels.

    Attributes
    ----------
    width, height
        Level-0 px, any size from 16 on.
    mpp
        µm per level-0 px; features have a size in µm.
    tissue_share
        Share of the slide that is tissue, 0 to 1; 0 is an empty slide.
    tumour_share
        Share of the tissue that is tumour, 0 to 1.
    pen
        Draw a pen mark on the glass.
    dust
        Number of dark specks, anywhere.
    """

    width: int = 2048
    height: int = 2048
    seed: int = 0
    mpp: float = 0.5
    tissue_share: float = 0.35
    tumour_share: float = 0.4
    pen: bool = False
    dust: int = 0


def make_slide(
    path: Path,
    *,
    width: int = 2048,
    height: int = 2048,
    seed: int = 0,
    mpp: float = 0.5,
    tissue_share: float = 0.35,
    tumour_share: float = 0.4,
    pen: bool = False,
    dust: int = 0,
    stated_mpp: float | Literal["true"] | None = "true",
    tile: int = 512,
    quality: int = 80,
    smallest: int = SMALLEST_LEVEL,
) -> Truth:
    """Write a pyramidal JPEG TIFF of H&E-like tissue and return what is in it.

    Parameters are those of `Recipe`, `Encoding` and `write_pyramid`. `stated_mpp` is what the file says about itself;
    another number than `mpp`, or None for nothing, makes a slide that lies or is silent.
    """
    recipe = Recipe(width, height, seed, mpp, tissue_share, tumour_share, pen, dust)
    painter = Painter(recipe)
    stated = mpp if stated_mpp == "true" else stated_mpp
    path.parent.mkdir(parents=True, exist_ok=True)
    strips = painter.strips(tile)
    write_pyramid(path, strips, (width, height), mpp=stated, encoding=Encoding(tile, quality), smallest=smallest)
    return painter.truth


class Painter:
    """Paints any rectangle of a synthetic slide.

    Attributes
    ----------
    truth
        Tissue and tumour as polygons in level-0 px.
    """

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        rng = np.random.default_rng(recipe.seed)
        size = (recipe.width, recipe.height)
        cell = max(CELL, -(-max(size) // MOST_NODES))
        # One node beyond the far edges.
        shape = (-(-recipe.height // cell) + 1, -(-recipe.width // cell) + 1)
        self._tissue, self._tumour = _shapes(rng, shape, cell, recipe)
        stain = smooth_field(rng, shape, (max(shape) / 4, max(shape) / 16), (5.0, 2.5))
        self._stain = Field(stain, cell)
        self._textures = [texture.moved(rng) for texture in textures(recipe.mpp)]
        self._marks = _marks(rng, recipe)
        tissue = self._tissue.region(size)
        self.truth = Truth(size, recipe.mpp, tissue, cut_to(self._tumour.region(size), tissue))

    def strips(self, rows: int) -> Iterator[NDArray[np.uint8]]:
        """The slide from the top, uint8 (rows, width, 3)."""
        for y in range(0, self.recipe.height, rows):
            bottom = min(y + rows, self.recipe.height)
            yield self.read(Bounds(0, y, self.recipe.width, bottom))

    def read(self, bounds: Bounds) -> NDArray[np.uint8]:
        """uint8 (height, width, 3) of a level-0 rectangle inside the slide; the same however it is cut."""
        out = np.empty((bounds.height, bounds.width, 3), np.uint8)
        for y in range(bounds.y, bounds.bottom, LARGEST_READ):
            for x in range(bounds.x, bounds.right, LARGEST_READ):
                part = Bounds(x, y, x + LARGEST_READ, y + LARGEST_READ).within(bounds)
                out[y - bounds.y : part.bottom - bounds.y, x - bounds.x : part.right - bounds.x] = self._paint(part)
        return out

    def _paint(self, part: Bounds) -> NDArray[np.uint8]:
        glass, stroma, tumour = self._textures
        image = glass.read(part)
        # The fields rise by about 1 per µm at their contour (see `_levelled`).
        opacity = self._tissue.soft(part, SOFT_EDGE_UM)
        if opacity is not None:
            tissue = stroma.read(part)
            share = self._tumour.soft(part, SOFT_EDGE_UM)
            if share is not None:
                tissue += (tumour.read(part) - tissue) * share[..., None]
            tissue += self._stain.at(part)[..., None]
            image += (tissue - image) * opacity[..., None]
        for mark in self._marks:
            mark.paint(image, part, opacity)
        return np.clip(image, 0, 255).astype(np.uint8)


def _shapes(rng: np.random.Generator, shape: tuple[int, int], cell: int, recipe: Recipe) -> tuple[Field, Field]:
    """Fields of tissue and tumour, positive inside."""
    extent = min(shape)

    def nodes(wavelength_um: float, at_most: float) -> float:
        return max(3.0, min(wavelength_um / (cell * recipe.mpp), at_most * extent))

    base = smooth_field(rng, shape, (nodes(2400, 0.7), nodes(700, 0.25), nodes(150, 0.06)), (1.0, 0.4, 0.07))
    yy, xx = (np.linspace(-1, 1, n, dtype=np.float32) for n in shape)
    # Away from the slide's edges.
    base -= 2.5 * np.maximum(np.abs(yy)[:, None], np.abs(xx)[None, :]) ** 6
    inner = smooth_field(rng, shape, (nodes(900, 0.35), nodes(300, 0.12), nodes(100, 0.05)), (1.0, 0.4, 0.1))
    um = cell * recipe.mpp
    tissue = _levelled(base, recipe.tissue_share, np.ones(shape, bool), um)
    return Field(tissue, cell), Field(_levelled(inner, recipe.tumour_share, tissue > 0, um), cell)


def _levelled(values: Values, share: float, within: NDArray[np.bool_], um: float) -> Values:
    """Shifted so that the share `share` of `within` is positive, and scaled to a slope of 1 per µm at zero.

    Parameters
    ----------
    um
        µm from node to node.
    """
    if share <= 0 or not within.any():
        return np.full(values.shape, -1e6, np.float32)
    if share >= 1:
        return np.full(values.shape, 1e6, np.float32)
    values = values - np.quantile(values[within], 1 - share).astype(np.float32)
    slope = np.hypot(*np.gradient(values))[np.abs(values) < 0.1 * values.std()]
    typical = float(np.median(slope)) if slope.size else 1.0
    return (values * (um / max(typical, 1e-6))).astype(np.float32)


def _marks(rng: np.random.Generator, recipe: Recipe) -> list[marks.Mark]:
    width, height = size = (recipe.width, recipe.height)
    found = []
    if recipe.pen:
        thickness = max(6.0, 0.024 * min(size))
        center, radii = (width / 2, height / 2), (0.43 * width, 0.43 * height)
        found.append(marks.pen(rng, center, radii, thickness, marks.pen_color(rng)))
    found += [marks.dust(rng, size, recipe.mpp) for _ in range(recipe.dust)]
    return found
