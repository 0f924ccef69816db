"""Fully synthetic slides with known truth: any size, any seed, written in strips.

Tissue and tumour are level sets of smooth random fields on a coarse grid. The painter blends textures by the same
fields whose contours are the truth, so picture and polygons agree to a fraction of a pixel.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import contourpy
import numpy as np
import shapely
from numpy.typing import NDArray
from scipy import ndimage
from shapely.geometry.base import BaseGeometry

from wsi_pipeline.raster import fill
from wsi_pipeline.synthetic.pyramid import SMALLEST_LEVEL, Encoding, write_pyramid
from wsi_pipeline.synthetic.texture import LARGEST_READ, smooth_field, textures
from wsi_pipeline.synthetic.truth import Truth
from wsi_pipeline.tiling import Bounds

Field = NDArray[np.float32]

# Grid of the fields in level-0 px; larger slides get a coarser one, so that a field never exceeds 4096² nodes.
CELL = 16
MOST_NODES = 4096

# Half the width of the soft edge between tissue and glass, or tumour and stroma, in µm.
SOFT_EDGE_UM = 3.0

PEN_COLORS = ((38, 92, 62), (36, 54, 140), (30, 30, 34))


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
        side = max(recipe.width, recipe.height)
        self.cell = max(CELL, -(-side // MOST_NODES))
        # Nodes at (row * cell, column * cell), one beyond the far edges.
        shape = (-(-recipe.height // self.cell) + 1, -(-recipe.width // self.cell) + 1)
        self._tissue, self._tumour = _fields(rng, shape, self.cell * recipe.mpp, recipe)
        self._stain = smooth_field(rng, shape, (max(shape) / 4, max(shape) / 16), (5.0, 2.5))
        self._textures = [texture.moved(rng) for texture in textures(recipe.mpp)]
        tissue = _region(self._tissue, self.cell, recipe)
        inner = shapely.intersection(tissue, _region(self._tumour, self.cell, recipe))
        self._marks = _marks(rng, recipe)
        size = (recipe.width, recipe.height)
        self.truth = Truth(size, recipe.mpp, tissue, _polygonal(inner))

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
                part = Bounds(x, y, min(x + LARGEST_READ, bounds.right), min(y + LARGEST_READ, bounds.bottom))
                out[y - bounds.y : part.bottom - bounds.y, x - bounds.x : part.right - bounds.x] = self._paint(part)
        return out

    def _paint(self, part: Bounds) -> NDArray[np.uint8]:
        background, stroma_texture, tumour_texture = self._textures
        image = background.read(part)
        opacity = self._soft(self._tissue, part)
        if opacity is not None:
            tissue = stroma_texture.read(part)
            share = self._soft(self._tumour, part)
            if share is not None:
                tissue += (tumour_texture.read(part) - tissue) * share[..., None]
            tissue += _upsampled(self._stain, self.cell, part)[..., None]
            image += (tissue - image) * opacity[..., None]
        for shape, color, strength, on_tissue in self._marks:
            self._mark(image, part, shape, np.array(color, np.float32), strength, None if on_tissue else opacity)
        return np.clip(image, 0, 255).astype(np.uint8)

    def _soft(self, field: Field, part: Bounds) -> Field | None:
        """0 outside, 1 inside, 0.5 at the contour; None where all of `part` is outside."""
        rows, columns = _node_slices(self.cell, part)
        # The fields rise by about 1 per µm at their contour (see `_fields`).
        if field[rows, columns].max() < -SOFT_EDGE_UM:
            return None
        return np.asarray(np.clip(_upsampled(field, self.cell, part) / (2 * SOFT_EDGE_UM) + 0.5, 0, 1), np.float32)

    @staticmethod
    def _mark(
        image: Field, part: Bounds, shape: BaseGeometry, color: Field, strength: float, opacity: Field | None
    ) -> None:
        if not shape.intersects(shapely.box(*part)):
            return
        alpha = fill(shape, part).astype(np.float32) * strength
        if opacity is not None:
            alpha *= 1 - opacity
        image += (color - image) * alpha[..., None]


def _fields(rng: np.random.Generator, shape: tuple[int, int], um: float, recipe: Recipe) -> tuple[Field, Field]:
    """Signed fields of tissue and tumour, positive inside, scaled to µm near the contour.

    Parameters
    ----------
    um
        µm per cell of the grid.
    """
    extent = min(shape)

    def nodes(wavelength_um: float, at_most: float) -> float:
        return max(3.0, min(wavelength_um / um, at_most * extent))

    base = smooth_field(rng, shape, (nodes(2400, 0.7), nodes(700, 0.25), nodes(150, 0.06)), (1.0, 0.4, 0.07))
    yy, xx = (np.linspace(-1, 1, n, dtype=np.float32) for n in shape)
    margin = np.maximum(np.abs(yy)[:, None], np.abs(xx)[None, :]) ** 6
    base -= 2.5 * margin
    inner = smooth_field(rng, shape, (nodes(900, 0.35), nodes(300, 0.12), nodes(100, 0.05)), (1.0, 0.4, 0.1))
    tissue = _levelled(base, recipe.tissue_share, np.ones(shape, bool), um)
    return tissue, _levelled(inner, recipe.tumour_share, tissue > 0, um)


def _levelled(field: Field, share: float, within: NDArray[np.bool_], um: float) -> Field:
    """`field` shifted so that it is positive on `share` of `within`, and scaled to a slope of 1 per µm at zero."""
    if share <= 0 or not within.any():
        return np.full(field.shape, -1e6, np.float32)
    if share >= 1:
        return np.full(field.shape, 1e6, np.float32)
    field = field - np.quantile(field[within], 1 - share).astype(np.float32)
    slope = np.hypot(*np.gradient(field))[np.abs(field) < 0.1 * field.std()]
    typical = float(np.median(slope)) if slope.size else 1.0
    return (field * (um / max(typical, 1e-6))).astype(np.float32)


def _region(field: Field, cell: int, recipe: Recipe) -> BaseGeometry:
    """Where the field is positive, as polygons in level-0 px, cut at the slide's edge."""
    padded = np.pad(field, 1, constant_values=-1e6)
    ys, xs = (np.arange(-1, n + 1, dtype=np.float64) * cell for n in field.shape)
    # Padding nodes stand at the outermost real ones: the outline runs along the slide's edge, not a cell beyond.
    ys[[0, -1]] = ys[[1, -2]] + (-1e-3, 1e-3)
    xs[[0, -1]] = xs[[1, -2]] + (-1e-3, 1e-3)
    generator = contourpy.contour_generator(xs, ys, padded, name="serial", fill_type=contourpy.FillType.OuterOffset)
    points, offsets = cast("tuple[list[NDArray[np.float64]], list[NDArray[np.uint32]]]", generator.filled(0.0, np.inf))
    polygons = [
        shapely.Polygon(ring[edges[0] : edges[1]], [ring[a:b] for a, b in itertools.pairwise(edges[1:])])
        for ring, edges in zip(points, offsets, strict=True)
    ]
    whole = shapely.union_all(shapely.make_valid(np.array(polygons, dtype=object)))
    return _polygonal(shapely.intersection(whole, shapely.box(0, 0, recipe.width, recipe.height)))


def _polygonal(geometry: BaseGeometry) -> BaseGeometry:
    """Only the polygons of a geometry, on QuPath's grid of 0.01 px."""
    parts = shapely.get_parts(geometry)
    areal = parts[shapely.get_dimensions(parts) == 2]
    return shapely.set_precision(shapely.multipolygons(areal) if len(areal) else shapely.MultiPolygon(), 0.01)


def _node_slices(cell: int, part: Bounds) -> tuple[slice, slice]:
    return (
        slice(part.y // cell, (part.bottom - 1) // cell + 2),
        slice(part.x // cell, (part.right - 1) // cell + 2),
    )


def _upsampled(field: Field, cell: int, part: Bounds) -> Field:
    """Bilinear values at the pixel centres of `part`, float32 (height, width)."""
    rows, columns = _node_slices(cell, part)
    near = field[rows, columns]
    y = (np.arange(part.y, part.bottom, dtype=np.float32) + np.float32(0.5)) / cell - rows.start
    x = (np.arange(part.x, part.right, dtype=np.float32) + np.float32(0.5)) / cell - columns.start
    top, left = y.astype(np.intp), x.astype(np.intp)
    v = (y - top)[:, None]
    u = x - left
    lines = near[top] * (1 - v) + near[top + 1] * v
    result: Field = lines[:, left] * (1 - u) + lines[:, left + 1] * u
    return result


Mark = tuple[BaseGeometry, tuple[int, int, int], float, bool]


def _marks(rng: np.random.Generator, recipe: Recipe) -> list[Mark]:
    """Pen and dust: shape (level-0 px), colour, strength, and whether it covers tissue too."""
    marks: list[Mark] = []
    width, height = recipe.width, recipe.height
    if recipe.pen:
        t = np.linspace(0, 1, 60)
        start = rng.uniform(0, 2 * np.pi)
        angle = start + t * rng.uniform(2.5, 4.5)
        wobble = 0.43 + 0.03 * ndimage.gaussian_filter1d(rng.standard_normal(t.size), 6, mode="nearest")
        points = np.stack([width * (0.5 + wobble * np.cos(angle)), height * (0.5 + wobble * np.sin(angle))], axis=1)
        stroke = shapely.LineString(points).buffer(max(3.0, 0.012 * min(width, height)))
        marks.append((stroke, PEN_COLORS[int(rng.integers(len(PEN_COLORS)))], 0.85, False))
    for _ in range(recipe.dust):
        center = shapely.Point(rng.uniform(0, width), rng.uniform(0, height))
        speck = shapely.affinity.scale(center.buffer(rng.uniform(2, 12) / recipe.mpp), 1.0, rng.uniform(0.3, 1.0))
        marks.append((shapely.affinity.rotate(speck, rng.uniform(0, 180)), (70, 62, 58), 0.9, True))
    return marks
