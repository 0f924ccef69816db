"""From shapely geometries to the regions that QuPath stores.

The kind that an object says it has (`Roi`) is a wish: a rectangle is stored as one only as long as its geometry is one.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from wsi_pipeline.errors import QuPathFormatError
from wsi_pipeline.objects import Plane, Roi
from wsi_pipeline.qupath.native.stored_roi import CORNERS, VERTICES, StoredRoi

_Type = shapely.GeometryType
_FLOAT32_MAX = float(np.finfo(np.float32).max)
# An ellipse: how far (px) a vertex may lie off it, QuPath's text formats round to 0.01; and the least vertices.
_OFF_ELLIPSE = 0.02
_LEAST_VERTICES = 16
_LEAST_AREA = 0.95
# `StoredRoi(...)` without the detour through its keyword arguments.
_roi = tuple.__new__


def encode(
    geometries: Sequence[BaseGeometry | None],
    rois: Sequence[Roi | None],
    planes: Sequence[Plane],
    whose: Sequence[str],
) -> list[StoredRoi | None]:
    """Regions as they go into the file; None for an object without geometry.

    Polygons without holes, lines and points lose what float32 cannot hold (1/64 px at 200,000 px); third coordinates of
    all but `Roi.GEOMETRY` are left out.

    Parameters
    ----------
    rois
        What each should be in QuPath; None lets the geometry decide.
    whose
        Ids of the objects, for errors.

    Raises
    ------
    QuPathFormatError
        A geometry is empty or has a coordinate that is not a finite number.
    """
    array = np.array([*geometries, None], dtype=object)[:-1]
    array = _single_parts(array, rois)
    kinds = _kinds(array, rois)
    _refuse_unusable(array, whose)
    stored: list[StoredRoi | None] = [None] * len(array)
    simple = [i for i, kind in enumerate(kinds) if kind in VERTICES]
    for i, (x, y) in zip(simple, _vertices(array[simple], [kinds[i] for i in simple]), strict=True):
        stored[i] = _roi(StoredRoi, (kinds[i], planes[i], x, y, None))
    if len(simple) == len(array):
        return stored
    for i, kind in enumerate(kinds):
        if kind in CORNERS:
            stored[i] = StoredRoi(kind, planes[i], _corners(array[i], kind))
        elif kind is Roi.GEOMETRY:
            stored[i] = StoredRoi(kind, planes[i], bytes(shapely.to_wkb(array[i], byte_order=0)))
    return stored


def _single_parts(array: NDArray[np.object_], rois: Sequence[Roi | None]) -> NDArray[np.object_]:
    """A MultiPolygon or MultiLineString of one part is that part, unless it should stay a geometry."""
    types = shapely.get_type_id(array)
    alone = shapely.get_num_geometries(array) == 1
    for i in np.flatnonzero(alone & np.isin(types, (_Type.MULTIPOLYGON, _Type.MULTILINESTRING))).tolist():
        if rois[i] is not Roi.GEOMETRY:
            array[i] = array[i].geoms[0]
    return array


def _kinds(array: NDArray[np.object_], wishes: Sequence[Roi | None]) -> list[Roi | None]:
    types = shapely.get_type_id(array)
    plain = (types == _Type.POLYGON) & (shapely.get_num_interior_rings(array) == 0)
    kinds: list[Roi | None] = [Roi.POLYGON if polygon else None for polygon in plain.tolist()]
    special = np.array([wish not in (None, Roi.POLYGON) for wish in wishes], dtype=bool)
    for i in np.flatnonzero(special | ~plain).tolist():
        kinds[i] = _kind(array[i], wishes[i], bool(plain[i]))
    return kinds


def _kind(geometry: BaseGeometry | None, wish: Roi | None, plain: bool) -> Roi | None:
    """The kind of one region; `plain`: it is a polygon without holes."""
    if geometry is None:
        return None
    if plain and wish is not Roi.GEOMETRY:
        shaped = (wish is Roi.RECTANGLE and is_rectangle(geometry)) or (wish is Roi.ELLIPSE and is_ellipse(geometry))
        return wish if shaped else Roi.POLYGON
    kind = shapely.get_type_id(geometry)
    if wish is not Roi.GEOMETRY and kind in (_Type.POINT, _Type.MULTIPOINT):
        return Roi.POINTS
    if wish is not Roi.GEOMETRY and kind in (_Type.LINESTRING, _Type.LINEARRING):
        return Roi.LINE if shapely.get_num_points(geometry) == 2 and wish is not Roi.POLYLINE else Roi.POLYLINE
    return Roi.GEOMETRY


def _refuse_unusable(array: NDArray[np.object_], whose: Sequence[str]) -> None:
    empty = shapely.is_empty(array) & ~np.isin(shapely.get_type_id(array), (_Type.POINT, _Type.MULTIPOINT))
    for i in np.flatnonzero(empty).tolist():
        raise QuPathFormatError(f"object {whose[i]}: its region is empty")
    coordinates, owner = shapely.get_coordinates(array, return_index=True)
    # Beyond float32's range a finite coordinate would be stored as infinite; NaN is not below anything.
    if not coordinates.size or np.abs(coordinates).max() <= _FLOAT32_MAX:
        return
    usable = (np.abs(coordinates) <= _FLOAT32_MAX).all(axis=1)
    for i in owner[~usable].tolist():
        raise QuPathFormatError(f"object {whose[i]}: its region has a coordinate that is not a finite number")


def _vertices(array: NDArray[np.object_], kinds: Sequence[Roi | None]) -> list[tuple[bytes, bytes]]:
    """x and y of each as big-endian float32; rings without the point that closes them."""
    coordinates, owner = shapely.get_coordinates(array, return_index=True)
    counts = np.bincount(owner, minlength=len(array))
    x, y = (bytes(coordinates[:, axis].astype(">f4")) for axis in (0, 1))
    ends = 4 * np.cumsum(counts)
    starts = ends - 4 * counts
    stops = ends - 4 * np.array([kind is Roi.POLYGON for kind in kinds], dtype=np.int64)
    return [(x[a:b], y[a:b]) for a, b in zip(starts.tolist(), stops.tolist(), strict=True)]


def _corners(geometry: BaseGeometry, kind: Roi) -> bytes:
    if kind is Roi.LINE:
        (x, y), (x2, y2) = shapely.get_coordinates(geometry)
    else:
        x, y, x2, y2 = geometry.bounds
    return struct.pack(">4d", x, x2, y, y2)


def is_rectangle(polygon: BaseGeometry) -> bool:
    """Whether a polygon without holes is exactly the rectangle of its bounds, from whichever corner it is drawn."""
    ring = shapely.get_coordinates(polygon)
    if len(ring) != 5:
        return False
    x, y, x2, y2 = polygon.bounds
    corners = np.array([(x, y), (x2, y), (x2, y2), (x, y2)])
    walks = (np.roll(corners[::way], turn, axis=0) for turn in range(4) for way in (1, -1))
    return any(np.array_equal(ring[:4], walk) for walk in walks)


def is_ellipse(polygon: BaseGeometry) -> bool:
    """Whether a polygon without holes is the ellipse of its bounds, as exactly as its vertices can say."""
    ring = shapely.get_coordinates(polygon)
    x, y, x2, y2 = polygon.bounds
    radii = np.array([x2 - x, y2 - y]) / 2
    if len(ring) <= _LEAST_VERTICES or polygon.area < _LEAST_AREA * np.pi * radii.prod():
        return False
    offset = ring - np.array([(x + x2) / 2, (y + y2) / 2])
    scaled = np.divide(offset, radii, out=np.zeros_like(offset), where=radii > 0)
    off = np.abs(np.hypot(scaled[:, 0], scaled[:, 1]) - 1) * radii.min()
    return bool((off <= _OFF_ELLIPSE + 1e-9 * np.abs(ring).max()).all())
