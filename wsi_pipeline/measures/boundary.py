"""How far two outlines lie apart: surface Dice, Hausdorff distances, mean distance, added path length.

Both boundaries (outer rings and holes) are sampled at equal arc lengths, one sample standing for the arc around it, and
each sample's distance to the other boundary is taken to its line segments, not to its samples.

How exact that is: with arcs of length s ≤ `step`, a sample is at most s/2 away from any point that it stands for, and
distance to a boundary cannot change faster than one moves. So `hd` and `hd95` are within step/2 of the true value,
`assd` within step/4, and `surface_dice` at tolerance t lies between the true ones at t - step/2 and t + step/2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import shapely
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from shapely.geometry.base import BaseGeometry

from wsi_pipeline.measures.overlap import Shapes, polygons_of, region_of, same_outline

Floats = NDArray[np.float64]

# Samples to a tolerance: a quarter of it, so that a share of arcs is told apart well below the tolerance.
STEPS_PER_TOLERANCE = 4
# More samples than these would take memory rather than add precision; the step grows instead, and is stated.
MOST_SAMPLES = 2_000_000
# Distances are asked for in pieces of this many samples.
_PIECE = 262_144
# Stations that are looked at around each sample; more of them for the samples that they do not settle.
_CANDIDATES = (3, 12)
_QUANTILE = 0.95


@dataclass(frozen=True, slots=True)
class Boundaries:
    """Two boundaries compared; lengths and distances in µm.

    Attributes
    ----------
    length_before, length_after
        Perimeters, holes included.
    near_before, near_after
        Length of each that lies within the tolerance of the other.
    hd, hd95, assd
        Hausdorff distance, its 95th percentile (the larger of the two directed ones), average symmetric surface
        distance. 0 when both regions are empty, None when one of them is.
    step
        Arc length that one sample stands for, at most.
    """

    length_before: float = 0.0
    length_after: float = 0.0
    near_before: float = 0.0
    near_after: float = 0.0
    hd: float | None = 0.0
    hd95: float | None = 0.0
    assd: float | None = 0.0
    step: float = 0.0

    @property
    def surface_dice(self) -> float:
        """Share of both boundaries within the tolerance of the other; 1 when both are empty, 0 when one of them is.

        Normalised surface distance (Nikolov et al. 2018, arXiv:1809.04430).
        """
        whole = self.length_before + self.length_after
        return (self.near_before + self.near_after) / whole if whole > 0 else 1.0

    @property
    def added_path(self) -> float:
        """Length of the boundary after that the boundary before does not have: what had to be drawn.

        Added path length (Vaassen et al. 2020, Phys. Imaging Radiat. Oncol. 13:1), as a length instead of pixels.
        """
        return self.length_after - self.near_after


def compare_boundaries(
    before: BaseGeometry | None,
    after: BaseGeometry | None,
    mpp: float,
    *,
    tolerance_um: float,
    step_um: float | None = None,
) -> Boundaries:
    """Compare the boundaries of two regions.

    Parameters
    ----------
    before, after
        In level-0 px; None stands for nothing. Only what has an area counts.
    mpp
        µm per level-0 px.
    tolerance_um
        How far apart two boundaries may lie and still count as the same.
    step_um
        Arc length between samples; a quarter of the tolerance unless told.
    """
    region_a, region_b = region_of(before), region_of(after)
    if same_outline(region_a, region_b):
        length = float(region_a.length) * mpp
        return Boundaries(length, length, length, length)
    length_a, length_b = float(region_a.length), float(region_b.length)
    if not length_a or not length_b:
        return Boundaries(length_a * mpp, length_b * mpp, 0.0, 0.0, None, None, None, 0.0)
    step = max((step_um or tolerance_um / STEPS_PER_TOLERANCE) / mpp, (length_a + length_b) / MOST_SAMPLES)
    a, b, both = _told_apart(polygons_of(region_a), polygons_of(region_b))
    from_a = _from_polygons(a, b, both, step)
    from_b = _from_polygons(b, a, both, step)
    # A shift by exactly the tolerance is within it, whatever the last bit says.
    reach = tolerance_um / mpp * (1 + 1e-9)
    mean = (from_a.distance @ from_a.weight + from_b.distance @ from_b.weight) / (from_a.length + from_b.length)
    return Boundaries(
        length_before=length_a * mpp,
        length_after=length_b * mpp,
        near_before=from_a.share_within(reach) * length_a * mpp,
        near_after=from_b.share_within(reach) * length_b * mpp,
        hd=float(max(from_a.distance.max(initial=0.0), from_b.distance.max(initial=0.0))) * mpp,
        hd95=max(_quantile(from_a), _quantile(from_b)) * mpp,
        assd=float(mean) * mpp,
        step=step * mpp,
    )


class Outline(NamedTuple):
    """The line segments of a boundary, ring after ring; all arrays have one entry per segment.

    `ring` numbers the rings, `previous` is the segment that ends where this one starts.
    """

    start: Floats
    end: Floats
    lengths: Floats
    ring: NDArray[np.intp]
    previous: NDArray[np.intp]

    @classmethod
    def of(cls, polygons: BaseGeometry | Shapes) -> Outline:
        parts = polygons if isinstance(polygons, np.ndarray) else polygons_of(polygons)
        points, owner = shapely.get_coordinates(shapely.get_rings(parts), return_index=True)
        same = owner[1:] == owner[:-1]
        start, end, ring = points[:-1][same], points[1:][same], owner[:-1][same]
        lengths = np.hypot(*(end - start).T)
        keep = lengths > 0
        start, end, lengths, ring = start[keep], end[keep], lengths[keep], ring[keep]
        previous = np.arange(len(ring)) - 1
        first = _firsts(ring)
        previous[first] = np.append(first[1:], len(ring))[: len(first)] - 1
        return cls(start, end, lengths, ring, previous)


def _firsts(ring: NDArray[np.intp]) -> NDArray[np.intp]:
    """Where each ring begins."""
    return np.flatnonzero(np.concatenate([[True], ring[1:] != ring[:-1]]))[: len(ring)]


def _told_apart(a: Shapes, b: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    """Polygons that only one region has, and those that both have, vertex for vertex: (of a, of b, both).

    Corrections leave most polygons of a slide alone, and their distance to the other boundary is 0 all the way.
    """
    index_b, index_a = shapely.STRtree(a).query(b)
    same = shapely.equals_exact(a[index_a], b[index_b], 0.0)
    in_a, in_b = np.zeros(len(a), bool), np.zeros(len(b), bool)
    in_a[index_a[same]], in_b[index_b[same]] = True, True
    return a[~in_a], b[~in_b], a[in_a]


class Samples(NamedTuple):
    """Distances of samples to the other boundary, and the arc length that each stands for; in px.

    `alike` is the length of what both boundaries have: at distance 0, and not sampled.
    """

    distance: Floats
    weight: Floats
    alike: float = 0.0

    @property
    def length(self) -> float:
        """Of the whole boundary, px."""
        return self.alike + float(self.weight.sum())

    def share_within(self, reach: float) -> float:
        """Share of the boundary that is at most `reach` away from the other; all of it is exactly 1."""
        return (self.alike + float(self.weight[self.distance <= reach].sum())) / self.length


def _from_polygons(own: Shapes, other: Shapes, both: Shapes, step: float) -> Samples:
    """Distances of the boundary of `own` and `both` to that of `other` and `both`."""
    alike = float(shapely.length(both).sum())
    if not own.size:
        return Samples(np.zeros(0), np.zeros(0), alike)
    outline = Outline.of(own)
    if not other.size:
        return _distances(outline, Outline.of(both), step)._replace(alike=alike)
    found = _distances(outline, Outline.of(other), step)
    if both.size and (near := _within_reach(own, outline, found, both, step)).size:
        found = _distances(outline, Outline.of(np.concatenate([other, near])), step)
    return found._replace(alike=alike)


def _within_reach(own: Shapes, outline: Outline, found: Samples, both: Shapes, step: float) -> Shapes:
    """The polygons of `both` that some sample of `own` may be nearer to than it was found to be to the others."""
    _, rings_of = shapely.get_rings(own, return_index=True)
    _, _, segment = _samples(outline, step)
    reach = np.zeros(len(own))
    np.maximum.at(reach, rings_of[outline.ring[segment]], found.distance)
    low_x, low_y, high_x, high_y = shapely.bounds(own).T
    around = shapely.box(low_x - reach, low_y - reach, high_x + reach, high_y + reach)[reach > 0]
    near: Shapes = both[np.unique(shapely.STRtree(both).query(around)[1])]
    return near


def _distances(a: Outline, b: Outline, step: float) -> Samples:
    """Distance of samples of `a`, at most `step` apart, to the segments of `b`."""
    points, weight, segment = _samples(a, step)
    distance = np.zeros(len(points))
    # Where both have the very same segment, there is nothing to search: corrections leave most of an outline alone.
    (todo,) = np.nonzero(~_shared(a, b)[segment])
    if not todo.size:
        return Samples(distance, weight)
    search = _Search(b, step)
    for first in range(0, len(todo), _PIECE):
        some = todo[first : first + _PIECE]
        distance[some] = search.nearest(points[some])
    return Samples(distance, weight)


class _Search:
    """Finds the distance of points to the nearest segment of an outline.

    A kd-tree over the vertices, and over points on long segments so that no two are more than `step` apart, names the
    segments to look at. A segment at distance d has such a station within √(d² + step²/4): where all stations that near
    were looked at, the answer is exact; for the other points more stations are looked at, and for the last few all that
    are near enough.
    """

    def __init__(self, outline: Outline, step: float) -> None:
        self._outline = outline
        self._step = step
        stations, self._owner = _stations(outline, step)
        self._tree = cKDTree(stations, balanced_tree=False, compact_nodes=False)

    def nearest(self, points: Floats) -> Floats:
        distance = np.full(len(points), np.inf)
        unsure = np.arange(len(points))
        for candidates in _CANDIDATES:
            some = points if len(unsure) == len(points) else points[unsure]
            reach, found = (np.asarray(array) for array in self._tree.query(some, k=candidates))
            found = np.minimum(found, len(self._owner) - 1)
            distance[unsure] = looked_at = self._to_nearest(some, found)
            unsure = unsure[reach[:, -1] ** 2 < looked_at**2 + self._step**2 / 4]
            if not unsure.size:
                return distance
        distance[unsure] = self._within_reach(points[unsure], distance[unsure])
        return distance

    def _within_reach(self, points: Floats, distance: Floats) -> Floats:
        """The same from all stations that can belong to a nearer segment: few points, however many stations."""
        reach = np.sqrt(distance**2 + self._step**2 / 4) * (1 + 1e-9)
        found = self._tree.query_ball_point(points, reach)
        return np.array([self._to_nearest(points[i : i + 1], np.array([own])) for i, own in enumerate(found)])[:, 0]

    def _to_nearest(self, points: Floats, stations: NDArray[np.intp]) -> Floats:
        """Distance of each point to the nearest of the segments at its stations."""
        segment = self._owner[stations]
        to_own = _to_segment(points, self._outline, segment)
        to_previous = _to_segment(points, self._outline, self._outline.previous[segment])
        result: Floats = np.minimum(to_own, to_previous).min(axis=1)
        return result


def _samples(outline: Outline, step: float) -> tuple[Floats, Floats, NDArray[np.intp]]:
    """Points in the middle of equal arcs of each ring, the arcs' lengths, and the segment that each point lies on."""
    starts = _firsts(outline.ring)
    perimeter = np.add.reduceat(outline.lengths, starts)
    count = np.maximum(1, np.ceil(perimeter / step - 1e-9)).astype(np.intp)
    which = np.repeat(np.arange(len(starts)), count)
    within = np.arange(len(which)) - np.repeat(np.cumsum(count) - count, count)
    # Arc length from the start of the first ring on, so that one search finds every sample's segment.
    ends = np.cumsum(outline.lengths)
    begin = ends - outline.lengths
    at = begin[starts][which] + (within + 0.5) * (perimeter / count)[which]
    segment = np.minimum(np.searchsorted(ends, at), len(ends) - 1)
    share = np.clip((at - begin[segment]) / outline.lengths[segment], 0.0, 1.0)
    points = outline.start[segment] + share[:, None] * (outline.end - outline.start)[segment]
    return points, (perimeter / count)[which], segment


def _stations(outline: Outline, step: float) -> tuple[Floats, NDArray[np.intp]]:
    """Every vertex, and points on the segments between them at most `step` apart; with the segment of each."""
    pieces = np.maximum(1, np.ceil(outline.lengths / step)).astype(np.intp)
    owner = np.repeat(np.arange(len(pieces)), pieces)
    within = np.arange(len(owner)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    share = within / pieces[owner]
    return outline.start[owner] + share[:, None] * (outline.end - outline.start)[owner], owner


def _to_segment(points: Floats, outline: Outline, segment: NDArray[np.intp]) -> Floats:
    """Distance of each point to its segments: of shape (points, segments of each), as `segment`."""
    # Columns one by one: sums over an axis of two are slow.
    start_x, start_y = outline.start[:, 0][segment], outline.start[:, 1][segment]
    along_x, along_y = outline.end[:, 0][segment] - start_x, outline.end[:, 1][segment] - start_y
    x, y = points[:, :1] - start_x, points[:, 1:] - start_y
    share = np.clip((x * along_x + y * along_y) / outline.lengths[segment] ** 2, 0.0, 1.0)
    result: Floats = np.hypot(x - share * along_x, y - share * along_y)
    return result


def _shared(a: Outline, b: Outline) -> NDArray[np.bool_]:
    """Which segments of `a` are segments of `b`, in either direction, to the last bit."""
    keys_a, keys_b = _keys(a), _keys(b)
    order = np.argsort(keys_b, kind="stable")
    at = np.minimum(np.searchsorted(keys_b[order], keys_a), len(order) - 1)
    candidate = order[at]
    # Equal keys are only a hint (they are hashes): the coordinates decide.
    forward = (a.start == b.start[candidate]).all(axis=1) & (a.end == b.end[candidate]).all(axis=1)
    backward = (a.start == b.end[candidate]).all(axis=1) & (a.end == b.start[candidate]).all(axis=1)
    result: NDArray[np.bool_] = forward | backward
    return result


def _keys(outline: Outline) -> NDArray[np.uint64]:
    """A number for each segment that does not depend on its direction."""
    odd = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F], dtype=np.uint64)
    halves = []
    for points in (outline.start, outline.end):
        bits = np.ascontiguousarray(points + 0.0).view(np.uint64) * odd
        mixed = bits[:, 0] ^ (bits[:, 1] >> np.uint64(7)) ^ (bits[:, 1] << np.uint64(11))
        halves.append(mixed * odd[0])
    total: NDArray[np.uint64] = halves[0] + halves[1]
    return total


def _quantile(samples: Samples) -> float:
    """The smallest distance within which at least 95 % of the boundary lies."""
    order = np.argsort(samples.distance, kind="stable")
    share = samples.alike + np.cumsum(samples.weight[order])
    whole = float(share[-1]) if share.size else samples.alike
    if samples.alike >= _QUANTILE * whole * (1 - 1e-12):
        return 0.0
    at = np.searchsorted(share, _QUANTILE * whole * (1 - 1e-12))
    return float(samples.distance[order][min(int(at), len(order) - 1)])
