"""Polygons to pixels: which pixel centres lie inside. Exact at the centres, no supersampling."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from wsi_pipeline.tiling import Bounds


def fill(geometry: BaseGeometry | Iterable[BaseGeometry], bounds: Bounds, downsample: float = 1.0) -> NDArray[np.bool_]:
    """Mark the pixels of a grid whose centre lies inside of polygons.

    Pixel (r, c) of the grid is at column `bounds.x + c` and row `bounds.y + r`, `downsample` level-0 pixels
    wide. Inside is decided by the even-odd rule over all rings (holes work; polygons that overlap each
    other would cancel: pass their union). A centre exactly on an edge belongs to the right and lower side.

    Parameters
    ----------
    geometry
        Polygon, MultiPolygon or several of them, in level-0 px; lines and points are ignored.
    bounds
        The grid's rectangle, in grid pixels.
    downsample
        Level-0 pixels to a grid pixel.

    Returns
    -------
    bool (bounds.height, bounds.width)
    """
    width, height = bounds.width, bounds.height
    parity = np.zeros(height * (width + 1), np.uint8)
    start, end = _edges(geometry, bounds, downsample)
    if len(start):
        np.bitwise_xor.at(parity, _crossings(start, end, width, height), 1)
    rows = parity.reshape(height, width + 1)
    return np.bitwise_xor.accumulate(rows, axis=1)[:, :width].astype(bool)


def _edges(
    geometry: BaseGeometry | Iterable[BaseGeometry], bounds: Bounds, downsample: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Start and end points of all ring edges, in grid pixels relative to the grid's corner."""
    parts = shapely.get_parts(shapely.get_parts(np.atleast_1d(np.asarray(geometry, dtype=object))))
    rings = shapely.get_rings(parts[shapely.get_type_id(parts) == shapely.GeometryType.POLYGON])
    points, ring = shapely.get_coordinates(rings, return_index=True)
    points = points / downsample - (bounds.x, bounds.y)
    same = ring[1:] == ring[:-1]
    return points[:-1][same], points[1:][same]


def _crossings(start: NDArray[np.float64], end: NDArray[np.float64], width: int, height: int) -> NDArray[np.intp]:
    """Flat indices (row-major, `width + 1` columns) of the first pixel centre right of each crossing.

    An edge crosses the row of centres at y = r + 0.5 when the ends lie on different sides of it, the upper
    end counted in: r from ceil(low - 0.5) to ceil(high - 0.5) - 1.
    """
    low = np.clip(np.ceil(np.minimum(start[:, 1], end[:, 1]) - 0.5), 0, height).astype(np.intp)
    high = np.clip(np.ceil(np.maximum(start[:, 1], end[:, 1]) - 0.5), 0, height).astype(np.intp)
    count = high - low
    edge = np.repeat(np.arange(len(count)), count)
    first = np.repeat(np.cumsum(count) - count, count)
    row = low[edge] + np.arange(len(edge)) - first
    x0, y0 = start[edge, 0], start[edge, 1]
    slope = (end[edge, 0] - x0) / (end[edge, 1] - y0)
    x = x0 + (row + 0.5 - y0) * slope
    column = np.clip(np.ceil(x - 0.5), 0, width).astype(np.intp)
    result: NDArray[np.intp] = row * (width + 1) + column
    return result
