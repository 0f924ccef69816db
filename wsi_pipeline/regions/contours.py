"""From a block of one class's probability map to raw polygons: filled contours, which fit those of its neighbours."""

from __future__ import annotations

import math
from typing import Protocol, cast

import numpy as np
import shapely
from contourpy import FillType, contour_generator
from numpy.typing import NDArray
from PIL import Image
from shapely.geometry.base import BaseGeometry

from wsi_pipeline.tiling import Bounds

Polygons = NDArray[np.object_]


class ProbabilityMap(Protocol):
    """What is read here of a prediction; see `wsi_pipeline.inference.PredictionStore`."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Classes, rows, columns of the map."""

    @property
    def block(self) -> int:
        """Side of a block in map pixels."""

    @property
    def downsample(self) -> float:
        """Level-0 pixels to a map pixel."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the slide in level-0 pixels."""

    def read(self, channel: int, bounds: Bounds) -> NDArray[np.uint8]:
        """Probability (rows, columns) of one class, round(255 p)."""

    def uncertainty(self, bounds: Bounds) -> NDArray[np.uint8]:
        """Entropy (rows, columns), round(255 H / ln K)."""

    def mutual_information(self, bounds: Bounds) -> NDArray[np.uint8] | None:
        """Disagreement of several predictions (rows, columns), on the same scale; None where there is one only."""


def level_of(threshold: float) -> float:
    """The contour level of the uint8 map: p at or above `threshold` lies inside, and no sample lies on it."""
    return math.ceil(round(255 * threshold, 6)) - 0.5


def pooled(image: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    """Mean of `factor` x `factor` pixels, rounded; an incomplete last row or column repeats its edge."""
    if factor == 1:
        return image
    rows, columns = -image.shape[0] % factor, -image.shape[1] % factor
    if rows or columns:
        image = np.pad(image, ((0, rows), (0, columns)), mode="edge")
    if factor.bit_count() == 1:
        # Exact for powers of two, and twenty times faster than sums over axes.
        return np.array(Image.fromarray(image).reduce(factor))
    height, width = image.shape[0] // factor, image.shape[1] // factor
    sums = image.reshape(height, factor, width, factor).sum(axis=(1, 3), dtype=np.uint32)
    half = factor * factor // 2
    result: NDArray[np.uint8] = ((sums + half) // (factor * factor)).astype(np.uint8)
    return result


def ordered(polygons: Polygons) -> Polygons:
    """Normalised polygons, sorted by the corner of their bounds: the order does not depend on the blocks."""
    if not len(polygons):
        return polygons
    normal: Polygons = shapely.normalize(polygons)
    return normal[places(normal)]


def places(polygons: Polygons) -> NDArray[np.intp]:
    """The order of `ordered`: by upper, left, right and lower end. No two polygons that are apart share all four."""
    x, y, right, bottom = shapely.bounds(polygons).T
    return np.lexsort((bottom, right, x, y))


def block_contours(
    samples: NDArray[np.uint8], core: Bounds, source: ProbabilityMap, *, level: float, factor: int
) -> tuple[Polygons, NDArray[np.bool_]]:
    """Where the probability lies above `level` in one block, and which of these polygons reach another block.

    The samples are the centres of `factor` x `factor` map pixels. A block covers the squares between its own
    samples and the first ones of its right and lower neighbours, so neighbours share their border exactly
    and the union at the seams invents nothing. Outside of the slide the probability is zero.

    Parameters
    ----------
    samples
        Of the block with the first ones of its right, lower and diagonal neighbours, where it has any; uint8.
    core
        The block in map pixels.
    factor
        Map pixels to a sample; divides the block.

    Returns
    -------
    Array of valid shapely Polygons in level-0 px, which may reach beyond the slide (see `clipped`), and bool for each:
    it touches a seam.
    """
    nothing = np.empty(0, dtype=object), np.zeros(0, bool)
    if not samples.size or samples.max() < level:
        return nothing
    _, height, width = source.shape
    edges = _Edges(core.x == 0, core.y == 0, core.right == width, core.bottom == height)
    z = np.pad(samples, ((edges.top, edges.bottom), (edges.left, edges.right)))
    polygons = filled(z, level)
    if not len(polygons):
        return nothing
    origin = np.array([core.x / factor - edges.left + 0.5, core.y / factor - edges.top + 0.5])
    return _placed(polygons, origin, source.downsample * factor), _touching(polygons, z.shape, edges)


def _placed(polygons: Polygons, origin: NDArray[np.float64], scale: float) -> Polygons:
    result: Polygons = shapely.transform(polygons, lambda xy: (xy + origin) * scale)
    return result


class _Edges:
    """Which sides of a block are the slide's own edge."""

    def __init__(self, left: bool, top: bool, right: bool, bottom: bool) -> None:
        self.left, self.top, self.right, self.bottom = int(left), int(top), int(right), int(bottom)


def filled(z: NDArray[np.uint8], level: float) -> Polygons:
    """Polygons with holes where linearly interpolated `z` lies above `level`; x is the column, y the row."""
    if min(z.shape) < 2:
        return np.empty(0, dtype=object)
    generator = contour_generator(z=z.astype(np.float32), fill_type=FillType.OuterOffset)
    points, offsets = cast("tuple[list[NDArray[np.float64]], list[NDArray[np.uint32]]]", generator.filled(level, 256.0))
    if not points:
        return np.empty(0, dtype=object)
    coordinates = np.concatenate(points)
    ring_sizes = np.concatenate([np.diff(o.astype(np.int64)) for o in offsets])
    ring_offsets = np.concatenate([[0], np.cumsum(ring_sizes)])
    polygon_offsets = np.concatenate([[0], np.cumsum([len(o) - 1 for o in offsets])])
    result: Polygons = shapely.from_ragged_array(
        shapely.GeometryType.POLYGON, coordinates, (ring_offsets, polygon_offsets)
    )
    return result


def _touching(polygons: Polygons, shape: tuple[int, ...], edges: _Edges) -> NDArray[np.bool_]:
    """Which polygons reach a side of the block that is a seam (in sample coordinates)."""
    x, y, right, bottom = shapely.bounds(polygons).T
    rows, columns = shape[0] - 1, shape[1] - 1
    touches: NDArray[np.bool_] = np.zeros(len(polygons), bool)
    for is_edge, at_side in (
        (edges.left, x <= 0),
        (edges.top, y <= 0),
        (edges.right, right >= columns),
        (edges.bottom, bottom >= rows),
    ):
        if not is_edge:
            touches |= at_side
    return touches


def clipped(polygons: Polygons, size: tuple[int, int]) -> Polygons:
    """The map's last pixels may reach beyond the slide; polygons must not."""
    _, _, right, bottom = shapely.bounds(polygons).T
    beyond = (right > size[0]) | (bottom > size[1])
    if not beyond.any():
        return polygons
    frame: BaseGeometry = shapely.box(0, 0, *size)
    cut = flattened(shapely.intersection(polygons[beyond], frame))
    return np.concatenate([polygons[~beyond], cut])


def flattened(geometries: Polygons) -> Polygons:
    """The polygons in any mix of geometries.

    Twice, because `make_valid` may answer a collection that holds a MultiPolygon; parts without area go.
    """
    return flattened_of(geometries)[0]


def flattened_of(geometries: Polygons) -> tuple[Polygons, NDArray[np.intp]]:
    """`flattened`, and the number of the geometry that each polygon is of."""
    outer, first = shapely.get_parts(geometries, return_index=True)
    parts, second = shapely.get_parts(outer, return_index=True)
    keep = (shapely.get_type_id(parts) == shapely.GeometryType.POLYGON) & ~shapely.is_empty(parts)
    return parts[keep], first[second[keep]]
