"""From one class's probability map to raw polygons: filled contours block by block, joined at the seams."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Protocol, cast

import numpy as np
import shapely
from contourpy import FillType, contour_generator
from numpy.typing import NDArray
from PIL import Image
from shapely.geometry.base import BaseGeometry

from wsi_pipeline.tiling import BlockGrid, Bounds

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


def class_polygons(source: ProbabilityMap, channel: int, threshold: float, factor: int) -> Polygons:
    """The area where the class's probability is at or above the threshold.

    The samples are the centres of `factor` x `factor` map pixels. A block covers the squares between its own
    samples and the first ones of its right and lower neighbours, so neighbours share their border exactly
    and the union at the seams invents nothing. Outside of the slide the probability is zero.

    Parameters
    ----------
    channel, threshold
        Which class, and from which probability on.
    factor
        Map pixels to a contour sample; divides the block.

    Returns
    -------
    Array of disjoint valid shapely Polygons in level-0 px, in a fixed order, clipped to the slide.
    """
    pieces: list[Polygons] = []
    on_seam: list[Polygons] = []
    for polygons, touches in _blocks(source, channel, level_of(threshold), factor):
        pieces.append(polygons[~touches])
        on_seam.append(polygons[touches])
    if on_seam and sum(map(len, on_seam)):
        on_seam.reverse()
        pieces.append(shapely.get_parts(shapely.union_all(np.concatenate(on_seam))))
    if not pieces:
        return np.empty(0, dtype=object)
    return ordered(_clipped(np.concatenate(pieces), source.size))


def ordered(polygons: Polygons) -> Polygons:
    """Normalised polygons, sorted by the corner of their bounds: the order does not depend on the blocks."""
    if not len(polygons):
        return polygons
    normal = shapely.normalize(polygons)
    x, y, right, bottom = shapely.bounds(normal).T
    result: Polygons = normal[np.lexsort((bottom, right, x, y))]
    return result


def _blocks(
    source: ProbabilityMap, channel: int, level: float, factor: int
) -> Iterator[tuple[Polygons, NDArray[np.bool_]]]:
    """Polygons of each block (level-0 px), and which of them touch a seam to another block."""
    _, height, width = source.shape
    scale = source.downsample * factor
    for core, samples in _with_neighbours(source, channel, factor):
        if not samples.size or samples.max() < level:
            continue
        edges = _Edges(core.x == 0, core.y == 0, core.right == width, core.bottom == height)
        z = np.pad(samples, ((edges.top, edges.bottom), (edges.left, edges.right)))
        polygons = filled(z, level)
        if not len(polygons):
            continue
        touches = _touching(polygons, z.shape, edges)
        origin = np.array([core.x / factor - edges.left + 0.5, core.y / factor - edges.top + 0.5])
        yield _placed(polygons, origin, scale), touches


def _with_neighbours(source: ProbabilityMap, channel: int, factor: int) -> Iterator[tuple[Bounds, NDArray[np.uint8]]]:
    """Each block with its samples and the first ones of its right, lower and diagonal neighbours, from the last block.

    Backwards, so that a block is read once and for itself: of the neighbours, which were read before it, only the
    samples at the border are kept.
    """
    _, height, width = source.shape
    grid = BlockGrid(width, height, source.block)
    rows, columns = grid.shape
    below: dict[int, NDArray[np.uint8]] = {}
    for row in reversed(range(rows)):
        first_rows: dict[int, NDArray[np.uint8]] = {}
        right: NDArray[np.uint8] | None = None
        for column in reversed(range(columns)):
            core = grid.bounds(row, column)
            samples = pooled(source.read(channel, core), factor)
            first_rows[column], first_column = samples[:1].copy(), samples[:, :1].copy()
            if right is not None:
                samples = np.concatenate([samples, right], axis=1)
            if column in below:
                lower = [below[column], *([below[column + 1][:, :1]] if column + 1 in below else [])]
                samples = np.concatenate([samples, np.concatenate(lower, axis=1)], axis=0)
            yield core, samples
            right = first_column
        below = first_rows


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


def _clipped(polygons: Polygons, size: tuple[int, int]) -> Polygons:
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
    parts = shapely.get_parts(shapely.get_parts(geometries))
    keep = (shapely.get_type_id(parts) == shapely.GeometryType.POLYGON) & ~shapely.is_empty(parts)
    result: Polygons = parts[keep]
    return result
