"""How far two outlines lie apart: surface Dice, Hausdorff distances, mean distance, added path length.

Both boundaries (outer rings and holes) are sampled at equal arc lengths, one sample standing for the arc around it, and
each sample's distance to the other boundary is taken to its line segments, not to its samples.

How exact that is: with arcs of length s ≤ `step`, a sample is at most s/2 away from any point that it stands for, and
distance to a boundary cannot change faster than one moves. So `hd` and `hd95` are within step/2 of the true value,
`assd` within step/4, and `surface_dice` at tolerance t lies between the true ones at t - step/2 and t + step/2.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from wsi_pipeline.measures.outline import Floats, Outline, Samples, distances, samples_of
from wsi_pipeline.measures.overlap import Polygons, Shapes, sides_of

# Samples to a tolerance: a quarter of it, so that a share of arcs is told apart well below the tolerance.
STEPS_PER_TOLERANCE = 4
# More samples than these would take memory rather than add precision; the step grows instead, and is stated.
MOST_SAMPLES = 2_000_000
# Regions are compared together until they have so many samples; a longer outline is compared alone.
_TOGETHER = 131_072
# With more samples than these times polygons near them it is quicker to search than to ask which may be near.
_MOST_BOXES = 1_000_000
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
    return compare_many_boundaries([(before, after)], mpp, tolerance_um=tolerance_um, step_um=step_um)[0]


def compare_many_boundaries(
    pairs: Iterable[tuple[BaseGeometry | None, BaseGeometry | None]],
    mpp: float,
    *,
    tolerance_um: float,
    step_um: float | None = None,
) -> list[Boundaries]:
    """Compare the boundaries of many pairs of regions: as `compare_boundaries` of each, and several times as fast."""
    before, after = sides_of(pairs)
    lengths = shapely.length(before) * mpp, shapely.length(after) * mpp
    alike = shapely.equals_exact(before, after, 0.0)
    found = [_without_search(*row) for row in zip(*(side.tolist() for side in (*lengths, alike)), strict=True)]
    wanted = (step_um or tolerance_um / STEPS_PER_TOLERANCE) / mpp
    # A shift by exactly the tolerance is within it, whatever the last bit says.
    reach = tolerance_um / mpp * (1 + 1e-9)
    (left,) = np.nonzero(~alike & (lengths[0] > 0) & (lengths[1] > 0))
    length = (lengths[0] + lengths[1]) / mpp
    step = np.maximum(wanted, length / MOST_SAMPLES)
    for some in _batches(left, length / np.where(step > 0, step, 1.0)):
        for index, result in zip(some, _measured(before[some], after[some], mpp, step[some], reach), strict=True):
            found[index] = result
    return found


def _without_search(length_before: float, length_after: float, alike: bool) -> Boundaries:
    """Of the same outline on both sides, or of one side without any."""
    if alike:
        return Boundaries(length_before, length_before, length_before, length_before)
    return Boundaries(length_before, length_after, 0.0, 0.0, None, None, None, 0.0)


def _batches(left: NDArray[np.intp], samples: Floats) -> Iterator[NDArray[np.intp]]:
    """Numbers of the pairs that are compared together; `samples` is about how many each pair has."""
    first, total = 0, 0.0
    for at, own in enumerate(samples[left]):
        if at > first and total + own > _TOGETHER:
            yield left[first:at]
            first, total = at, 0.0
        total += own
    if len(left):
        yield left[first:]


def _measured(before: Shapes, after: Shapes, mpp: float, step: Floats, reach: float) -> list[Boundaries]:
    """Compare regions of which none is empty; `step` (of each pair) and `reach` (the tolerance) in px."""
    length_a, length_b = shapely.length(before), shapely.length(after)
    a, b, both = _told_apart(Polygons.of(before), Polygons.of(after))
    sides = zip(_from_polygons(a, b, both, step), _from_polygons(b, a, both, step), strict=True)
    return [
        Boundaries(
            length_before=float(length_a[i]) * mpp,
            length_after=float(length_b[i]) * mpp,
            near_before=from_a.share_within(reach) * float(length_a[i]) * mpp,
            near_after=from_b.share_within(reach) * float(length_b[i]) * mpp,
            hd=max(from_a.farthest, from_b.farthest) * mpp,
            hd95=max(from_a.quantile(_QUANTILE), from_b.quantile(_QUANTILE)) * mpp,
            assd=(from_a.integral + from_b.integral) / (from_a.length + from_b.length) * mpp,
            step=float(step[i]) * mpp,
        )
        for i, (from_a, from_b) in enumerate(sides)
    ]


def _told_apart(a: Polygons, b: Polygons) -> tuple[Polygons, Polygons, Polygons]:
    """Polygons that only one side of a pair has, and those that both have, vertex for vertex: (of a, of b, both).

    Corrections leave most polygons of a slide alone, and their distance to the other boundary is 0 all the way.
    """
    first, second = a.meeting(b)
    same = shapely.equals_exact(a.shapes[first], b.shapes[second], 0.0)
    in_a, in_b = np.zeros(len(a.shapes), bool), np.zeros(len(b.shapes), bool)
    in_a[first[same]], in_b[second[same]] = True, True
    return a.only(~in_a), b.only(~in_b), a.only(in_a)


class Arcs(NamedTuple):
    """Distances of samples of one boundary to the other, and the arc length that each stands for; in px.

    `alike` is the length of what both boundaries have: at distance 0, and not sampled.
    """

    distance: Floats
    weight: Floats
    alike: float = 0.0

    @property
    def length(self) -> float:
        """Of the whole boundary, px."""
        return self.alike + float(self.weight.sum())

    @property
    def integral(self) -> float:
        """The distance, integrated along the boundary, px²."""
        return float((self.distance * self.weight).sum())

    @property
    def farthest(self) -> float:
        return float(self.distance.max(initial=0.0))

    def share_within(self, reach: float) -> float:
        """Share of the boundary that is at most `reach` away from the other; all of it is exactly 1."""
        return (self.alike + float(self.weight[self.distance <= reach].sum())) / self.length

    def quantile(self, level: float) -> float:
        """The smallest distance within which at least this share of the boundary lies."""
        order = np.argsort(self.distance, kind="stable")
        within = self.alike + np.cumsum(self.weight[order])
        wanted = level * (float(within[-1]) if within.size else self.alike) * (1 - 1e-12)
        if self.alike >= wanted:
            return 0.0
        return float(self.distance[order[min(int(np.searchsorted(within, wanted)), len(order) - 1)]])


def _outline(polygons: Polygons) -> Outline:
    return Outline.of(polygons.shapes, polygons.region)


def _from_polygons(own: Polygons, other: Polygons, both: Polygons, step: Floats) -> list[Arcs]:
    """Distances of the boundaries of `own` and `both` to those of `other` and `both`, region by region."""
    regions = len(step)
    alike = np.bincount(both.region, weights=shapely.length(both.shapes), minlength=regions)
    outline = _outline(own)
    samples = samples_of(outline, step)
    distance = np.zeros(0)
    if own.shapes.size:
        # First to what only the other side has: what both have is mostly far away.
        alone = ~np.isin(both.region, other.region)
        distance = distances(samples, outline, _outline(other + both.only(alone)), step)
        nearer, near = _within_reach(own, outline, samples, distance, both.only(~alone))
        if nearer.size:
            some = samples.only(nearer)
            distance[nearer] = np.minimum(distance[nearer], distances(some, outline, _outline(near), step))
    ends = np.searchsorted(outline.plane[samples.segment], np.arange(regions + 1))
    return [
        Arcs(distance[first:end], samples.weight[first:end], float(alike[i]))
        for i, (first, end) in enumerate(itertools.pairwise(ends))
    ]


def _within_reach(
    own: Polygons, outline: Outline, samples: Samples, distance: Floats, both: Polygons
) -> tuple[NDArray[np.intp], Polygons]:
    """Samples to which a polygon of `both` may be nearer than what they were found to be from, and those polygons."""
    _, ring_owner = shapely.get_rings(own.shapes, return_index=True)
    owner = ring_owner[outline.ring[samples.segment]]
    ends = np.searchsorted(owner, np.arange(len(own.shapes) + 1))
    reach = np.maximum.reduceat(distance, ends[:-1])
    low, high = np.hsplit(shapely.bounds(own.shapes), 2)
    around = np.asarray(shapely.box(*(low - reach[:, None]).T, *(high + reach[:, None]).T), dtype=object)
    polygon, near = Polygons(around, own.region).meeting(both)
    # Each sample of each of these polygons against the box of each one near it.
    count = np.diff(ends)[polygon]
    if count.sum() > _MOST_BOXES:
        some = np.isin(owner, polygon) & (distance > 0)
        return np.flatnonzero(some), both.only(np.isin(np.arange(len(both.shapes)), near))
    pair = np.repeat(np.arange(len(polygon)), count)
    sample = np.arange(len(pair)) + (ends[polygon] - np.cumsum(count) + count)[pair]
    low, high = np.hsplit(shapely.bounds(both.shapes)[near][pair], 2)
    off = np.maximum(np.maximum(low - samples.points[sample], samples.points[sample] - high), 0.0)
    closer = (off**2).sum(axis=1) < distance[sample] ** 2
    used = np.isin(np.arange(len(both.shapes)), near[pair[closer]])
    return np.unique(sample[closer]), both.only(used)
