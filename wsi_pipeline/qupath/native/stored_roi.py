"""QuPath's regions as the file stores them, and the shapely geometries that they mean.

Polygons, polylines and points are float32; rectangles, ellipses and lines are two corners in float64; everything else
is WKB, in float64 too, but QuPath from 0.6 on rounds its numbers to 0.01 px and float32 when it reads them. All in px
of the image as QuPath shows it.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from wsi_pipeline.errors import QuPathFormatError
from wsi_pipeline.objects import DEFAULT_PLANE, Plane, Roi

CORNERS = frozenset({Roi.RECTANGLE, Roi.ELLIPSE, Roi.LINE})
VERTICES = frozenset({Roi.POLYGON, Roi.POLYLINE, Roi.POINTS})
_POINTS_OF_ELLIPSE = 100
_MAX_WKB_DEPTH = 64
_COLLECTIONS = range(4, 8)
_Type = shapely.GeometryType
_TURN = np.arange(_POINTS_OF_ELLIPSE) * (2 * np.pi / _POINTS_OF_ELLIPSE)
# Cosine and sine of each vertex, exact at the four that touch the bounds.
_UNIT = np.stack([np.cos(_TURN), np.sin(_TURN)])
_UNIT[:, :: _POINTS_OF_ELLIPSE // 4] = np.round(_UNIT[:, :: _POINTS_OF_ELLIPSE // 4])


class StoredRoi(NamedTuple):
    """A region as it lies in the file, numbers as big-endian bytes.

    Attributes
    ----------
    kind
        Which of QuPath's classes it is.
    plane
        Channel, z-slice and time point.
    first, second
        x and y of the vertices as float32 (polygon, polyline, points); x, x2, y, y2 as float64 and nothing (rectangle,
        ellipse, line); WKB and nothing (geometry).
    name
        QuPath writes None.
    """

    kind: Roi
    plane: Plane = DEFAULT_PLANE
    first: bytes = b""
    second: bytes = b""
    name: str | None = None


def geometries_of(rois: Sequence[StoredRoi], whose: Sequence[str]) -> tuple[NDArray[np.object_], NDArray[np.bool_]]:
    """The geometries of many regions at once.

    Polygons keep their vertices in the order stored, closed by the first once more. An ellipse is the polygon of 100
    vertices that QuPath makes of it, and reaches exactly to its corners. What no geometry can hold (a polygon of two
    points, a vertex that is not a number) comes out as what is left of it: repeated or omitted vertices, or empty.

    Parameters
    ----------
    whose
        Ids of their objects, for errors.

    Returns
    -------
    The geometries, and whether each of them alone would be stored as the same bytes again.

    Raises
    ------
    QuPathFormatError
        Bytes that should be WKB are not.
    """
    made = np.empty(len(rois), dtype=object)
    exact = np.ones(len(rois), dtype=bool)
    by_kind: dict[Roi, list[int]] = {}
    for index, roi in enumerate(rois):
        by_kind.setdefault(roi.kind, []).append(index)
    with np.errstate(all="ignore"):
        for kind, indices in by_kind.items():
            chosen = [rois[i] for i in indices]
            if kind in VERTICES:
                made[indices], exact[indices] = _of_vertices(kind, chosen)
            elif kind in CORNERS:
                made[indices], exact[indices] = _of_corners(kind, chosen)
            else:
                made[indices], exact[indices] = _of_wkb(chosen, [f"object {whose[i]}" for i in indices])
    named = [i for i, roi in enumerate(rois) if roi.name is not None]
    exact[named] = False
    return made, exact


def corners_of(roi: StoredRoi) -> tuple[float, float, float, float]:
    """x, x2, y, y2 as stored."""
    x, x2, y, y2 = struct.unpack(">4d", roi.first)
    return x, x2, y, y2


def ellipse(x: float, y: float, x2: float, y2: float) -> BaseGeometry:
    """QuPath's polygon of an ellipse between two corners."""
    return shapely.Polygon(_ellipse_rings(np.array([[x, x2, y, y2]]))[0])


def _ellipse_rings(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rings (n, 100, 2) of ellipses (n, 4), each row x, x2, y, y2."""
    low, high = corners[:, 0::2, None], corners[:, 1::2, None]
    rings = (low + high) / 2 + (high - low) / 2 * _UNIT
    # Half sums round: where a vertex touches the bounds, it is set to them.
    rings = np.where(_UNIT == 1, high, np.where(_UNIT == -1, low, rings))
    return rings.transpose(0, 2, 1)


def _of_corners(kind: Roi, rois: Sequence[StoredRoi]) -> tuple[NDArray[np.object_], NDArray[np.bool_]]:
    corners = np.frombuffer(b"".join(roi.first for roi in rois), dtype=">f8").reshape(-1, 4).astype(np.float64)
    finite = np.array(np.isfinite(corners).all(axis=1))
    corners[~finite] = 0
    made = np.empty(len(rois), dtype=object)
    if kind is Roi.LINE:
        made[:] = shapely.linestrings(corners.reshape(-1, 2, 2).transpose(0, 2, 1))
        made[~finite] = shapely.LineString()
        return made, finite
    if kind is Roi.RECTANGLE:
        made[:] = shapely.box(corners[:, 0], corners[:, 2], corners[:, 1], corners[:, 3])
    else:
        made[:] = shapely.polygons(_ellipse_rings(corners))
    made[~finite] = shapely.Polygon()
    # A geometry has no memory of which corner came first.
    ordered = (corners[:, 0::2] <= corners[:, 1::2]).all(axis=1)
    return made, np.logical_and(finite, ordered)


def _of_vertices(kind: Roi, rois: Sequence[StoredRoi]) -> tuple[NDArray[np.object_], NDArray[np.bool_]]:
    counts = np.array([len(roi.first) // 4 for roi in rois])
    points = np.empty((int(counts.sum()), 2))
    points[:, 0] = np.frombuffer(b"".join([roi.first for roi in rois]), dtype=">f4")
    points[:, 1] = np.frombuffer(b"".join([roi.second for roi in rois]), dtype=">f4")
    least = {Roi.POLYGON: 3, Roi.POLYLINE: 2}.get(kind, 0)
    whole = counts >= least
    if not (whole.all() and np.isfinite(points).all()):
        finite = np.isfinite(points).all(axis=1)
        owner = np.repeat(np.arange(len(rois)), counts)
        whole[owner[~finite]] = False
        points, counts = _padded(points[finite], np.bincount(owner[finite], minlength=len(rois)), least)
    if kind is Roi.POINTS:
        made = _ragged(_Type.MULTIPOINT, points, counts)
        single = counts == 1
        made[single] = shapely.points(points[_offsets(counts)[:-1][single]])
        return made, whole
    return _ragged(_Type.LINESTRING if kind is Roi.POLYLINE else _Type.POLYGON, points, counts), whole


def _ragged(kind: shapely.GeometryType, points: NDArray[np.float64], counts: NDArray[np.int64]) -> NDArray[np.object_]:
    """Geometries of so many points each, rings without their closing point; empty ones where there are none."""
    some = counts > 0
    if not some.all():
        made = np.full(len(counts), shapely.from_wkt(f"{kind.name} EMPTY"), dtype=object)
        if some.any():
            made[some] = _ragged(kind, points, counts[some])
        return made
    offsets = _offsets(counts)
    if kind != _Type.POLYGON:
        return shapely.from_ragged_array(kind, points, (offsets,))
    closed = offsets + np.arange(len(offsets))
    take = np.arange(closed[-1]) - np.repeat(np.arange(len(counts)), counts + 1)
    take[closed[1:] - 1] = offsets[:-1]
    return shapely.from_ragged_array(kind, points[take], (closed, np.arange(len(offsets))))


def _padded(
    points: NDArray[np.float64], counts: NDArray[np.int64], least: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Repeat the last vertex of what has some but too few for a geometry."""
    wanted = np.where(counts > 0, np.maximum(counts, least), 0)
    offsets = _offsets(wanted)
    position = np.arange(offsets[-1]) - np.repeat(offsets[:-1], wanted)
    take = np.repeat(_offsets(counts)[:-1], wanted) + np.minimum(position, np.repeat(counts - 1, wanted))
    return points[take], wanted


def _offsets(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(counts)])


def _of_wkb(rois: Sequence[StoredRoi], names: Sequence[str]) -> tuple[NDArray[np.object_], NDArray[np.bool_]]:
    made = np.empty(len(rois), dtype=object)
    for index, (roi, name) in enumerate(zip(rois, names, strict=True)):
        check_depth(roi.first, name)
        try:
            made[index] = shapely.from_wkb(roi.first)
        except shapely.errors.ShapelyError as error:
            raise QuPathFormatError(f"{name}: its region is no WKB that can be read ({error})") from error
    again = shapely.to_wkb(made, byte_order=0)
    return made, np.array([bytes(raw) == roi.first for raw, roi in zip(again, rois, strict=True)])


def check_depth(wkb: bytes, name: str) -> None:
    """Refuse collections in collections in …, which GEOS would follow until its stack ends.

    Whatever else is wrong with the bytes is left to GEOS, which stops at the same place as this walk.
    """
    walk = _WkbWalk(wkb)
    left: list[int] = []
    while True:
        members = walk.head(name)
        if members is None:
            return
        left.append(members)
        while left and left[-1] == 0:
            left.pop()
        if not left:
            return
        left[-1] -= 1
        if len(left) > _MAX_WKB_DEPTH:
            raise QuPathFormatError(f"{name}: its region is nested deeper than {_MAX_WKB_DEPTH} collections")


class _WkbWalk:
    """Goes from head to head of the geometries in WKB, without making any of them."""

    def __init__(self, wkb: bytes) -> None:
        self._wkb = wkb
        self._at = 0

    def head(self, name: str) -> int | None:
        """Pass a head, and the numbers of a simple geometry; returns how many members follow, None where bytes end."""
        if self._at + 5 > len(self._wkb):
            return None
        order = self._wkb[self._at]
        kind = self._integer(1)
        base = (kind & 0xFFFF) % 1000
        if order > 1 or not 1 <= base <= 7:
            raise QuPathFormatError(f"{name}: its region is WKB of a kind that QuPath does not write ({kind:#x})")
        range_of_iso = (kind & 0xFFFF) // 1000
        axes = 2 + (range_of_iso in (1, 3) or bool(kind & 0x80000000)) + (range_of_iso > 1 or bool(kind & 0x40000000))
        self._order = order
        self._at += 9 if kind & 0x20000000 else 5
        if base == 1:
            self._at += 8 * axes
            return 0
        count = self._count()
        if base in _COLLECTIONS:
            return count
        for _ in range(count if base == 3 else 1):
            if self._at > len(self._wkb):
                return None
            vertices = count if base == 2 else self._count()
            self._at += 8 * axes * vertices
        return 0

    def _integer(self, ahead: int) -> int:
        raw = self._wkb[self._at + ahead : self._at + ahead + 4]
        return int.from_bytes(raw, "little" if self._wkb[self._at] == 1 else "big")

    def _count(self) -> int:
        raw = self._wkb[self._at : self._at + 4]
        self._at += 4
        return int.from_bytes(raw, "little" if self._order == 1 else "big")
