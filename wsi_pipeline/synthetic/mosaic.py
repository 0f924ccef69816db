"""Pieces of tissue laid on glass: real tiles quilted together, cut to an organic outline, with the truth cut alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import shapely
import shapely.affinity
from numpy.typing import NDArray
from scipy import ndimage
from shapely.geometry.base import BaseGeometry

from wsi_pipeline.synthetic.fields import EMPTY, Field, Values, contoured, cut_to, smooth_field
from wsi_pipeline.synthetic.marks import Mark
from wsi_pipeline.synthetic.truth import Truth
from wsi_pipeline.tiling import Bounds

# Neighbouring tiles overlap by this many px; the seam wanders in the overlap and is blended over a few px.
OVERLAP = 96
SEAM_WANDER = 40.0
SEAM_BLEND = 6.0

# Half the width of the soft edge of a piece, in px, and the grid of its outline.
SOFT_EDGE = 2.0
CELL = 4

# Tumour parts and holes smaller than this are left out of the truth, in px²: cutting masks leaves slivers.
SMALLEST_TUMOUR = 100.0


class Tile(NamedTuple):
    """A square of tissue, uint8 (side, side, 3), and where it is tumour, bool (side, side)."""

    image: NDArray[np.uint8]
    tumour: NDArray[np.bool_]

    def turned(self, way: int) -> Tile:
        """One of the eight ways (0 to 7) to turn and flip it; pixels are moved, never interpolated."""
        image, tumour = np.rot90(self.image, way % 4), np.rot90(self.tumour, way % 4)
        return Tile(image[:, ::-1], tumour[:, ::-1]) if way >= 4 else Tile(image, tumour)


class Deck:
    """Deals tiles for a quilt: each as often as the others, never twice the same way, the best fitting first."""

    def __init__(self, rng: np.random.Generator, tiles: Sequence[Tile]) -> None:
        self._unused = [[tile.turned(int(way)) for way in rng.permutation(8)] for tile in tiles]

    def grid(self, rows: int, columns: int) -> list[list[Tile]]:
        """Rows of tiles, each chosen to continue its left and upper neighbour; `ValueError` when the deck is empty."""
        dealt: list[list[Tile]] = []
        for row in range(rows):
            dealt.append([])
            for column in range(columns):
                left = dealt[row][column - 1] if column else None
                dealt[row].append(self._deal(left, dealt[row - 1][column] if row else None))
        return dealt

    def _deal(self, left: Tile | None, above: Tile | None) -> Tile:
        most = max(len(ways) for ways in self._unused)
        if not most:
            raise ValueError("the deck is empty: every tile was dealt in all its eight ways")
        fits = [
            (_misfit(tile, left, above), which, index)
            for which, ways in enumerate(self._unused)
            if len(ways) == most
            for index, tile in enumerate(ways)
        ]
        _, which, index = min(fits)
        return self._unused[which].pop(index)


def _misfit(tile: Tile, left: Tile | None, above: Tile | None) -> float:
    """How much a tile differs from its neighbours where they overlap: mean grey values, and tumour against none."""
    total = 0.0
    if left is not None:
        total += _difference(_strip(left, np.s_[:, -OVERLAP:]), _strip(tile, np.s_[:, :OVERLAP]))
    if above is not None:
        total += _difference(_strip(above, np.s_[-OVERLAP:, :]), _strip(tile, np.s_[:OVERLAP, :]))
    return total


def _strip(tile: Tile, where: tuple[slice, slice]) -> Values:
    """Colour and tumour of a part, averaged over 32 x 32 px, float32 (rows, columns, 4)."""
    part = np.concatenate([tile.image[where], 60 * tile.tumour[where].astype(np.uint8)[..., None]], axis=2)
    rows, columns = (n // 32 for n in part.shape[:2])
    return np.asarray(part.reshape(rows, 32, columns, 32, 4).mean(axis=(1, 3)), np.float32)


def _difference(a: Values, b: Values) -> float:
    return float(np.abs(a - b).mean())


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of tissue before it lies on a slide; its own frame, px.

    Attributes
    ----------
    image
        float32 (height, width, 3), 0 to 255; tissue also beyond the outline.
    opacity
        float32 (height, width): 1 in the piece, 0 outside, soft at the edge.
    outline, tumour
        MultiPolygons in the piece's px; the tumour lies in the outline.
    """

    image: NDArray[np.float32]
    opacity: Values
    outline: BaseGeometry
    tumour: BaseGeometry


def piece_of(rng: np.random.Generator, tiles: Sequence[Sequence[Tile]]) -> Piece:
    """Quilt a grid of tiles (rows of equal length, one side length) and cut it."""
    image, mask = _quilt(rng, tiles)
    height, width = mask.shape
    outline = _outline(rng, width, height)
    region = outline.region((width, height))
    opacity = outline.soft(Bounds(0, 0, width, height), SOFT_EDGE)
    assert opacity is not None  # noqa: S101 - the outline is made to lie in the middle
    return Piece(image, opacity, region, cut_to(_traced(mask), region, SMALLEST_TUMOUR))


def _quilt(rng: np.random.Generator, tiles: Sequence[Sequence[Tile]]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Tiles side by side, each laid over its left and upper neighbour with a wandering, blended seam."""
    side = tiles[0][0].tumour.shape[0]
    pitch = side - OVERLAP
    shape = (pitch * (len(tiles) - 1) + side, pitch * (len(tiles[0]) - 1) + side)
    image, mask = np.zeros((*shape, 3), np.float32), np.zeros(shape, bool)
    wander = [_wander(rng, shape) for _ in range(2)]
    steps = np.arange(side, dtype=np.float32) - OVERLAP / 2
    for row, tile_row in enumerate(tiles):
        for column, tile in enumerate(tile_row):
            place = np.s_[row * pitch : row * pitch + side, column * pitch : column * pitch + side]
            inside = np.full((side, side), np.float32(side))
            if column:
                inside = np.minimum(inside, steps[None, :] + wander[0][place])
            if row:
                inside = np.minimum(inside, steps[:, None] + wander[1][place])
            cover = np.clip(inside / SEAM_BLEND + 0.5, 0, 1)
            image[place] += (tile.image - image[place]) * cover[..., None]
            mask[place] = np.where(cover > 0.5, tile.tumour, mask[place])
    return image, mask


def _wander(rng: np.random.Generator, shape: tuple[int, int]) -> Values:
    """By how many px a seam strays, float32 of `shape`; at most SEAM_WANDER, so that it stays in the overlap."""
    coarse = tuple(-(-n // CELL) + 1 for n in shape)
    field = Field(smooth_field(rng, (coarse[0], coarse[1]), (120 / CELL, 30 / CELL), (0.55, 0.25)), CELL)
    return np.asarray(SEAM_WANDER * np.clip(field.at(Bounds(0, 0, shape[1], shape[0])), -1, 1), np.float32)


def _outline(rng: np.random.Generator, width: int, height: int) -> Field:
    """A blob that fills most of a rectangle; the field is about the distance to its edge in px, positive inside."""
    shape = (-(-height // CELL) + 1, -(-width // CELL) + 1)
    y, x = (np.abs(np.linspace(-1, 1, n, dtype=np.float32)) for n in shape)
    # A superellipse between a circle (2) and a square, with bays and a torn rim.
    distance = 0.9 - (x[None, :] ** 3.2 + y[:, None] ** 3.2) ** (1 / 3.2)
    noise = smooth_field(rng, shape, (300 / CELL, 110 / CELL, 30 / CELL), (0.055, 0.025, 0.006))
    # The frame itself is never inside.
    edge = 1 - np.maximum(x[None, :], y[:, None])
    values = np.minimum(distance + noise, edge - 0.01) * (min(width, height) / 2)
    return Field(values.astype(np.float32), CELL)


def _traced(mask: NDArray[np.bool_]) -> BaseGeometry:
    """A mask's outline in its own px, stair steps smoothed; exact to about a pixel."""
    smooth = ndimage.gaussian_filter(np.pad(mask, 2).astype(np.float32), 1.0)
    # Node (r, c) is the centre of a pixel, and the padding shifts by two.
    region = shapely.affinity.translate(contoured(smooth, 0.5), -1.5, -1.5)
    return shapely.make_valid(shapely.simplify(region, 0.4))


@dataclass(slots=True)
class Glass:
    """A slide that pieces are laid on, whole in memory: for slides of a few thousand px.

    Attributes
    ----------
    pixels
        float32 (height, width, 3), 0 to 255.
    tissue
        float32 (height, width): opacity of what was laid so far.
    """

    pixels: NDArray[np.float32]
    tissue: Values
    outline: BaseGeometry = EMPTY
    tumour: BaseGeometry = EMPTY

    @classmethod
    def empty(
        cls, rng: np.random.Generator, size: tuple[int, int], color: tuple[float, float, float], noise: float = 1.2
    ) -> Glass:
        """Bare glass of level-0 `size` (width, height), unevenly lit as scanners light it."""
        width, height = size
        coarse = (-(-height // 64) + 1, -(-width // 64) + 1)
        light = Field(smooth_field(rng, coarse, (1500 / 64, 500 / 64), (0.8, 0.3)), 64).at(Bounds(0, 0, width, height))
        grain = rng.standard_normal((height, width), dtype=np.float32) * noise
        pixels = np.array(color, np.float32) + (light + grain)[..., None]
        return cls(pixels, np.zeros((height, width), np.float32))

    def lay(self, piece: Piece, x: int, y: int) -> None:
        """Put a piece with its upper left corner at level-0 (x, y)."""
        height, width = piece.opacity.shape
        place = np.s_[y : y + height, x : x + width]
        under = self.pixels[place]
        under += (piece.image - under) * piece.opacity[..., None]
        self.tissue[place] = np.maximum(self.tissue[place], piece.opacity)
        self.outline = _multi(self.outline, shapely.affinity.translate(piece.outline, x, y))
        self.tumour = _multi(self.tumour, shapely.affinity.translate(piece.tumour, x, y))

    def mark(self, mark: Mark) -> None:
        """Draw pen or dust."""
        height, width = self.tissue.shape
        mark.paint(self.pixels, Bounds(0, 0, width, height), self.tissue)

    def picture(self) -> NDArray[np.uint8]:
        """The slide, uint8 (height, width, 3)."""
        return np.asarray(np.clip(self.pixels + 0.5, 0, 255), np.uint8)

    def truth(self, mpp: float) -> Truth:
        """What was laid, in level-0 px."""
        height, width = self.tissue.shape
        return Truth((width, height), mpp, self.outline, self.tumour)


def _multi(*regions: BaseGeometry) -> BaseGeometry:
    """Pieces that lie apart, as one MultiPolygon."""
    parts = [part for region in regions for part in shapely.get_parts(region)]
    return shapely.set_precision(shapely.MultiPolygon(parts), 0.01)
