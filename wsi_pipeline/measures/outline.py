"""Outlines as line segments: samples along them, and the distance of points to the nearest segment.

Many comparisons are made at once, each on a plane of its own: segments of different planes are infinitely far apart.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import shapely
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from wsi_pipeline.measures.overlap import Shapes

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]

# Distances are asked for in pieces of this many samples.
_PIECE = 262_144
# Stations that are looked at around each sample; more of them for the samples that they do not settle.
_CANDIDATES = (3, 12)


class Outline(NamedTuple):
    """The line segments of boundaries, ring after ring; all arrays have one entry per segment, coordinates in px.

    `ring` numbers the rings, `previous` is the segment that ends where this one starts, `plane` the comparison that
    the segment belongs to.
    """

    start: Floats
    end: Floats
    lengths: Floats
    ring: Indices
    previous: Indices
    plane: Indices

    @classmethod
    def of(cls, polygons: Shapes, planes: Indices | None = None) -> Outline:
        """Outer rings and holes of polygons; `planes` numbers the comparison of each, one for all unless told."""
        rings, polygon = shapely.get_rings(polygons, return_index=True)
        points, owner = shapely.get_coordinates(rings, return_index=True)
        same = owner[1:] == owner[:-1]
        start, end, ring = points[:-1][same], points[1:][same], owner[:-1][same]
        lengths = np.hypot(*(end - start).T)
        if not lengths.all():
            keep = lengths > 0
            start, end, lengths, ring = start[keep], end[keep], lengths[keep], ring[keep]
        previous = np.arange(len(ring)) - 1
        first = _firsts(ring)
        previous[first] = np.append(first[1:], len(ring))[: len(first)] - 1
        plane = np.zeros(len(ring), np.intp) if planes is None else planes[polygon[ring]]
        return cls(start, end, lengths, ring, previous, plane)


class Samples(NamedTuple):
    """Points in the middle of equal arcs, the length of each one's arc in px, and the segment that it lies on."""

    points: Floats
    weight: Floats
    segment: Indices

    def only(self, chosen: Indices) -> Samples:
        return Samples(self.points[chosen], self.weight[chosen], self.segment[chosen])


def samples_of(outline: Outline, step: Floats) -> Samples:
    """Samples of every ring, at most `step` px apart; `step` has one entry for each plane."""
    starts = _firsts(outline.ring)
    perimeter = np.add.reduceat(outline.lengths, starts) if starts.size else np.zeros(0)
    count = np.maximum(1, np.ceil(perimeter / step[outline.plane[starts]] - 1e-9)).astype(np.intp)
    arc = perimeter / count
    which = np.repeat(np.arange(len(starts)), count)
    within = np.arange(len(which)) - np.repeat(np.cumsum(count) - count, count)
    # Arc length from the start of the first ring on, so that one search finds every sample's segment.
    ends = np.cumsum(outline.lengths)
    begin = ends - outline.lengths
    weight = arc[which]
    at = begin[starts][which] + (within + 0.5) * weight
    segment = np.minimum(np.searchsorted(ends, at), len(ends) - 1)
    share = np.clip((at - begin[segment]) / outline.lengths[segment], 0.0, 1.0)
    start = outline.start[segment]
    return Samples(start + share[:, None] * (outline.end[segment] - start), weight, segment)


def distances(samples: Samples, own: Outline, other: Outline, step: Floats) -> Floats:
    """Distance in px of samples of `own` to the nearest segment of `other` on their plane.

    Every plane of a sample must have a segment of `other`. `step` (one entry for each plane) decides how densely
    `other` is searched, not how exact the answer is.
    """
    distance = np.zeros(len(samples.points))
    # Where both have the very same segment, there is nothing to search: corrections leave most of an outline alone.
    (todo,) = np.nonzero(~_shared(own, other)[samples.segment])
    if not todo.size:
        return distance
    search = _Search(other, step, samples.points)
    plane = own.plane[samples.segment]
    for first in range(0, len(todo), _PIECE):
        some = todo[first : first + _PIECE]
        distance[some] = search.nearest(samples.points[some], plane[some])
    return distance


class _Search:
    """Finds the distance of points to the nearest segment of an outline.

    A kd-tree over the vertices, and over points on long segments so that no two are more than `step` apart, names the
    segments to look at. A segment at distance d has such a station within √(d² + step²/4): where all stations that near
    were looked at, the answer is exact; for the other points more stations are looked at, and for the last few all that
    are near enough. Planes are set apart by a third coordinate, in which two points of one plane are the same.
    """

    def __init__(self, outline: Outline, step: Floats, points: Floats) -> None:
        self._outline = outline
        self._step = step
        stations, self._owner = _stations(outline, step)
        self._apart = np.inf
        if (outline.plane != outline.plane[0]).any():
            # Farther than any point that is asked for can be from a station of its plane, or is searched around it.
            self._apart = 8.0 * max(1.0, *(float(np.abs(values).max()) for values in (stations, points, step)))
            stations = self._placed(stations, outline.plane[self._owner])
        self._tree = cKDTree(stations, balanced_tree=False, compact_nodes=False)

    def _placed(self, points: Floats, plane: Indices) -> Floats:
        return points if np.isinf(self._apart) else np.column_stack([points, plane * self._apart])

    def nearest(self, points: Floats, plane: Indices) -> Floats:
        placed = self._placed(points, plane)
        slack = self._step[plane] ** 2 / 4
        distance = np.full(len(points), np.inf)
        unsure = np.arange(len(points))
        for candidates in _CANDIDATES:
            everything = len(unsure) == len(points)
            asked = self._tree.query(placed if everything else placed[unsure], k=candidates)
            reach, found = (np.asarray(array) for array in asked)
            # An outline of few stations has none left: the tree then names those of other planes, or none.
            found = np.where(reach < self._apart / 2, found, found[:, :1])
            distance[unsure] = looked_at = self._to_nearest(points if everything else points[unsure], found)
            unsure = unsure[reach[:, -1] ** 2 < looked_at**2 + slack[unsure]]
            if not unsure.size:
                return distance
        reach = np.sqrt(distance[unsure] ** 2 + slack[unsure]) * (1 + 1e-9)
        distance[unsure] = self._within_reach(points[unsure], placed[unsure], reach)
        return distance

    def _within_reach(self, points: Floats, placed: Floats, reach: Floats) -> Floats:
        """The same from all stations that can belong to a nearer segment: few points, however many stations."""
        found = self._tree.query_ball_point(placed, reach)
        return np.array([self._to_nearest(points[i : i + 1], np.array([own])) for i, own in enumerate(found)])[:, 0]

    def _to_nearest(self, points: Floats, stations: Indices) -> Floats:
        """Distance of each point to the nearest of the segments at its stations."""
        segment = self._owner[stations]
        to_own = _to_segment(points, self._outline, segment)
        to_previous = _to_segment(points, self._outline, self._outline.previous[segment])
        result: Floats = np.minimum(to_own, to_previous).min(axis=1)
        return result


def _firsts(ring: Indices) -> Indices:
    """Where each ring begins."""
    return np.flatnonzero(np.concatenate([[True], ring[1:] != ring[:-1]]))[: len(ring)]


def _stations(outline: Outline, step: Floats) -> tuple[Floats, Indices]:
    """Every vertex, and points on the segments between them at most `step` apart; with the segment of each."""
    pieces = np.maximum(1, np.ceil(outline.lengths / step[outline.plane])).astype(np.intp)
    owner = np.repeat(np.arange(len(pieces)), pieces)
    within = np.arange(len(owner)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    share = within / pieces[owner]
    start = outline.start[owner]
    return start + share[:, None] * (outline.end[owner] - start), owner


def _to_segment(points: Floats, outline: Outline, segment: Indices) -> Floats:
    """Distance of each point to its segments: of shape (points, segments of each), as `segment`."""
    # Columns one by one: sums over an axis of two are slow.
    start_x, start_y = outline.start[:, 0][segment], outline.start[:, 1][segment]
    along_x, along_y = outline.end[:, 0][segment] - start_x, outline.end[:, 1][segment] - start_y
    x, y = points[:, :1] - start_x, points[:, 1:] - start_y
    share = np.clip((x * along_x + y * along_y) / outline.lengths[segment] ** 2, 0.0, 1.0)
    result: Floats = np.hypot(x - share * along_x, y - share * along_y)
    return result


def _shared(a: Outline, b: Outline) -> NDArray[np.bool_]:
    """Which segments of `a` are segments of `b` on the same plane, in either direction, to the last bit."""
    keys_a, keys_b = _keys(a), _keys(b)
    order = np.argsort(keys_b, kind="stable")
    at = np.minimum(np.searchsorted(keys_b[order], keys_a), len(order) - 1)
    candidate = order[at]
    # Equal keys are only a hint (they are hashes): plane and coordinates decide.
    (hit,) = np.nonzero((keys_b[candidate] == keys_a) & (b.plane[candidate] == a.plane))
    there = candidate[hit]
    forward = (a.start[hit] == b.start[there]).all(axis=1) & (a.end[hit] == b.end[there]).all(axis=1)
    backward = (a.start[hit] == b.end[there]).all(axis=1) & (a.end[hit] == b.start[there]).all(axis=1)
    shared = np.zeros(len(keys_a), bool)
    shared[hit] = forward | backward
    return shared


def _keys(outline: Outline) -> NDArray[np.uint64]:
    """A number for each segment that does not depend on its direction."""
    odd = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F], dtype=np.uint64)
    halves = []
    for points in (outline.start, outline.end):
        bits = np.ascontiguousarray(points + 0.0).view(np.uint64) * odd
        mixed = bits[:, 0] ^ (bits[:, 1] >> np.uint64(7)) ^ (bits[:, 1] << np.uint64(11))
        halves.append(mixed * odd[0])
    total: NDArray[np.uint64] = halves[0] + halves[1] + outline.plane.astype(np.uint64) * odd[1]
    return total
