"""Shapes as QuPath takes them: on its grid of 0.01 px, valid, and compared as regions."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from wsi_pipeline.errors import QuPathFormatError

logger = logging.getLogger(__name__)

# QuPath rounds every geometry that it imports to 1/100 px (`PrecisionModel(100)`, from 0.6 `PrecisionModel(-0.01)`).
GRID = 0.01
_DECIMALS = 2
_Type = shapely.GeometryType
_SIMPLE = [_Type.POINT, _Type.MULTIPOINT, _Type.LINESTRING, _Type.MULTILINESTRING, _Type.POLYGON, _Type.MULTIPOLYGON]


def on_grid(geometries: Sequence[BaseGeometry], names: Sequence[str]) -> NDArray[np.object_]:
    """The geometries with coordinates rounded to 0.01 px, each of them valid and none of them empty.

    QuPath from 0.6 on refuses a whole GeoJSON file for one polygon that is invalid after its rounding, so validity is
    tested after rounding, not before. A geometry that stays valid keeps its vertices; another one is repaired, and
    what collapses (a flat polygon) is kept as the line or point that it is: never dropped.

    Parameters
    ----------
    geometries
        shapely geometries in px; z coordinates are dropped.
    names
        One text for each of them, for messages.

    Returns
    -------
    Array of geometries, in the order given.

    Raises
    ------
    QuPathFormatError
        A geometry is empty, not finite, or of a kind that QuPath cannot import (GeometryCollection).
    """
    array = np.array(list(geometries), dtype=object)
    if shapely.has_z(array).any():
        array = shapely.force_2d(array)
    coordinates, owner = shapely.get_coordinates(array, return_index=True)
    _refuse_unusable(array, coordinates, owner, names)
    rounded = _rounded(array, coordinates)
    # GEOS divides by differences of neighbouring coordinates, which may be zero, and copes with what comes out.
    with np.errstate(all="ignore"):
        return _valid(rounded, array, names)


def _valid(rounded: NDArray[np.object_], array: NDArray[np.object_], names: Sequence[str]) -> NDArray[np.object_]:
    for index in np.flatnonzero(~shapely.is_valid(rounded)).tolist():
        rounded[index] = _repaired(rounded[index], array[index])
        if rounded[index].geom_type.removeprefix("Multi") != array[index].geom_type.removeprefix("Multi"):
            logger.warning("%s: its shape has no area at 0.01 px; kept as %s", names[index], rounded[index].geom_type)
    return rounded


def _rounded(array: NDArray[np.object_], coordinates: NDArray[np.float64]) -> NDArray[np.object_]:
    """The same geometries where every coordinate is on the grid already, as in all that we have made ourselves."""
    on_it = np.round(coordinates, _DECIMALS)
    if np.array_equal(on_it, coordinates):
        return array.copy()
    return np.asarray(shapely.set_coordinates(array.copy(), on_it))


def _refuse_unusable(
    array: NDArray[np.object_], coordinates: NDArray[np.float64], owner: NDArray[np.int64], names: Sequence[str]
) -> None:
    bad = owner[~np.isfinite(coordinates).all(axis=1)]
    if bad.size:
        raise QuPathFormatError(f"{names[int(bad[0])]}: its shape has a coordinate that is not a finite number")
    empty = shapely.is_empty(array)
    for i in np.flatnonzero(empty | ~np.isin(shapely.get_type_id(array), _SIMPLE)).tolist():
        if empty[i]:
            raise QuPathFormatError(f"{names[i]}: its shape is empty")
        raise QuPathFormatError(f"{names[i]}: QuPath cannot import a shape of the kind {array[i].geom_type}")


def _repaired(rounded: BaseGeometry, original: BaseGeometry) -> BaseGeometry:
    """A valid geometry on the grid; the area is what counts, and only a shape without area becomes a line or point."""
    for candidate in (original, rounded):
        area = shapely.set_precision(
            shapely.make_valid(candidate, method="structure", keep_collapsed=False), GRID, mode="valid_output"
        )
        if not area.is_empty and shapely.get_type_id(area) in _SIMPLE:
            return area
    # Collapsed: its longest extent on the grid is a line, or a point when even that is one grid cell.
    points = np.unique(shapely.get_coordinates(rounded), axis=0)
    return shapely.Point(points[0]) if len(points) == 1 else shapely.LineString(points[[0, -1]])


def same_region(a: BaseGeometry | None, b: BaseGeometry | None, tolerance: float) -> bool:
    """Whether two geometries cover the same region, up to `tolerance` px times the perimeter.

    The order and the start of rings, and vertices on straight edges, do not count. Lines and points are the same when
    every one of their vertices lies within `tolerance` of the other.
    """
    if a is None or b is None:
        return a is b
    if a.is_empty or b.is_empty:
        return a.is_empty and b.is_empty
    if shapely.get_dimensions(a) != shapely.get_dimensions(b):
        return False
    if shapely.equals_exact(a, b, tolerance):
        return True
    if shapely.get_dimensions(a) < 2:
        return vertices_near(a, b, tolerance) and vertices_near(b, a, tolerance)
    a, b = _area(a), _area(b)
    allowed = tolerance * max(a.length, b.length)
    return float(shapely.area(shapely.symmetric_difference(a, b))) <= max(allowed, tolerance * tolerance)


def _area(shape: BaseGeometry) -> BaseGeometry:
    """The region of a polygon that may cross itself, counted even-odd."""
    return shape if shape.is_valid else shapely.make_valid(shape)


def vertices_near(a: BaseGeometry, b: BaseGeometry, tolerance: float) -> bool:
    """Whether every vertex of `a` lies within `tolerance` px of the points, lines or outline of `b`."""
    tree = shapely.STRtree(_pieces(b))
    vertices = np.asarray(shapely.points(shapely.get_coordinates(a)))
    hit = tree.query(vertices, predicate="dwithin", distance=tolerance)[0]
    return bool(np.unique(hit).size == vertices.size)


def _pieces(geometry: BaseGeometry) -> NDArray[np.object_]:
    """The points of a geometry of points, else the single segments of its lines and rings: quick to search."""
    parts = shapely.get_parts(geometry)
    if shapely.get_dimensions(geometry) == 0:
        return np.asarray(parts)
    rings = shapely.get_rings(parts) if shapely.get_dimensions(geometry) == 2 else parts
    coordinates, owner = shapely.get_coordinates(rings, return_index=True)
    starts = np.flatnonzero(owner[:-1] == owner[1:])
    return np.asarray(shapely.linestrings(np.stack([coordinates[starts], coordinates[starts + 1]], axis=1)))
