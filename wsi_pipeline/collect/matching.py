"""What happened to each pre-annotation: the handout's snapshot against the annotations as they are now.

By uuid first: brush, wand and vertex edits keep it. Then always by overlap: merging, splitting and combining in
QuPath make new objects with new uuids, and uuids alone would call that deleted and added.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

import numpy as np
import shapely
from shapely.affinity import translate
from shapely.geometry.base import BaseGeometry

from wsi_pipeline.measures import Areas, compare_areas, compare_many_areas, regions_of
from wsi_pipeline.objects import Kind, PathObject

# QuPath simplifies shapes again when it edits them: a shape that stays within this is the same shape.
SAME_SHAPE_PX = 1.0
# Coordinates are stored as 32-bit floats: steps of 1/32 px at 500,000 px.
STORED_PX = 0.05
# An object went into another one when at least this share of its area lies there.
MOSTLY = 0.5
# What lies in an object that is gone is what became of it when it holds at least this share of it; else it was drawn.
NOTABLE = 0.25


class Change(StrEnum):
    """What happened to an object."""

    UNTOUCHED = "untouched"
    MOVED = "moved"
    EDITED = "edited"
    RECLASSIFIED = "reclassified"
    DELETED = "deleted"
    ADDED = "added"
    SPLIT = "split"
    MERGED = "merged"


@dataclass(frozen=True, slots=True)
class Pair:
    """One object before and after; None where there is none (`added`, `deleted`).

    An object that was split is in one pair for each part, one that others were merged into in one pair for each
    of them.
    """

    before: PathObject | None
    after: PathObject | None
    change: Change


def match(before: Sequence[PathObject], after: Sequence[PathObject]) -> list[Pair]:
    """Pair the annotations of a snapshot with those of the project; everything in level-0 px.

    Detections, cells and tiles are left out. Each object before is in at least one pair, each object after too.

    Returns
    -------
    Pairs in the order of `before`, then what was added in the order of `after`.
    """
    old = [o for o in before if o.kind is Kind.ANNOTATION]
    new = [o for o in after if o.kind is Kind.ANNOTATION]
    now = {o.uuid: o for o in new}
    kept = {o.uuid for o in old if o.uuid in now}
    gone = [o for o in old if o.uuid not in kept]
    fresh = [o for o in new if o.uuid not in kept]
    relations = _relations(gone, fresh, [now[u] for u in sorted(kept)], {o.uuid: o for o in old})
    pairs = []
    for item in old:
        if item.uuid in kept:
            pairs.append(Pair(item, now[item.uuid], change_of(item, now[item.uuid])))
        elif item.uuid in relations.successors:
            pairs.extend(Pair(item, heir, change) for heir, change in relations.successors[item.uuid])
        else:
            pairs.append(Pair(item, None, Change.DELETED))
    pairs.extend(Pair(None, item, Change.ADDED) for item in fresh if item.uuid not in relations.heirs)
    return pairs


def change_of(before: PathObject, after: PathObject) -> Change:
    """What happened to an object that kept its uuid. A changed shape counts before a changed class."""
    if same_shape(before.geometry, after.geometry):
        return Change.UNTOUCHED if before.path_class == after.path_class else Change.RECLASSIFIED
    if _moved(before.geometry, after.geometry):
        return Change.MOVED
    return Change.EDITED


def same_shape(a: BaseGeometry | None, b: BaseGeometry | None, tolerance: float = SAME_SHAPE_PX) -> bool:
    """Whether two regions have the same outline within `tolerance` px, everywhere and in both directions."""
    if a is None or b is None:
        return a is b
    if a.equals_exact(b, STORED_PX) or shapely.normalize(a).equals_exact(shapely.normalize(b), STORED_PX):
        return True
    if a.is_empty or b.is_empty:
        return bool(a.is_empty and b.is_empty)
    if np.abs(np.subtract(a.bounds, b.bounds)).max() > tolerance:
        return False
    lines = [g.boundary if shapely.get_dimensions(g) == 2 else g for g in (a, b)]
    # Most edits show at the vertices already, and buffers are slow.
    if not _vertices_near(lines[0], lines[1], tolerance) or not _vertices_near(lines[1], lines[0], tolerance):
        return False
    return all(one.buffer(tolerance).covers(other) for one, other in (lines, reversed(lines)))


def _vertices_near(a: BaseGeometry, b: BaseGeometry, tolerance: float) -> bool:
    """Whether every vertex of `a` is within `tolerance` of `b`."""
    shapely.prepare(b)
    # A hair more: the buffers decide, and their round corners are polygons.
    return bool(shapely.dwithin(shapely.points(shapely.get_coordinates(a)), b, 1.01 * tolerance).all())


def _moved(a: BaseGeometry | None, b: BaseGeometry | None) -> bool:
    """The same shape in another place: the classic slip with the Move tool."""
    if a is None or b is None or a.is_empty or b.is_empty:
        return False
    by = np.subtract(b.bounds, a.bounds)
    # Both corners must have gone the same way, else there is no need to look closer.
    if np.abs(by[:2] - by[2:]).max() > SAME_SHAPE_PX:
        return False
    return same_shape(translate(a, float(by[0]), float(by[1])), b)


@dataclass(frozen=True, slots=True)
class _Relations:
    """Objects without their uuid that were found again: by the old object's uuid, and all new objects found."""

    successors: dict[str, list[tuple[PathObject, Change]]]
    heirs: set[str]


def _relations(
    gone: Sequence[PathObject], fresh: Sequence[PathObject], kept: Sequence[PathObject], old: dict[str, PathObject]
) -> _Relations:
    """Find what became of the objects whose uuid is gone."""
    overlaps = list(_overlaps(gone, fresh))
    heads = _heads(overlaps)
    parts_of = _parts(overlaps, heads)
    counts: dict[str, int] = {}
    for heir in heads.values():
        counts[heir.uuid] = counts.get(heir.uuid, 0) + 1
    successors: dict[str, list[tuple[PathObject, Change]]] = {}
    for item in gone:
        parts = parts_of.get(item.uuid, [])
        if len(parts) > 1:
            successors[item.uuid] = [(part, Change.SPLIT) for part in parts]
        elif item.uuid in heads:
            heir = heads[item.uuid]
            change = Change.MERGED if counts[heir.uuid] > 1 else change_of(item, heir)
            successors[item.uuid] = [(heir, change)]
        elif parts:
            successors[item.uuid] = [(parts[0], Change.EDITED)]
    _into_kept(gone, kept, old, successors)
    heirs = {heir.uuid for found in successors.values() for heir, _ in found}
    return _Relations(successors, heirs)


def _parts(overlaps: Sequence[_Overlap], heads: Mapping[str, PathObject]) -> dict[str, list[PathObject]]:
    """New objects that lie mostly in an object that is gone and together make up a notable share of it, by its uuid.

    Where several that are gone lay on each other (predictions of two models), a part belongs to the one it fits best.
    What lies mostly on larger parts was drawn on them. Where most of the object went into something larger, parts
    must make up most of it, too: else it went there, and they were drawn.
    """
    best: dict[str, _Overlap] = {}
    for found in overlaps:
        known = best.get(found.heir.uuid)
        if found.of_heir >= MOSTLY and (known is None or found.areas.iou > known.areas.iou):
            best[found.heir.uuid] = found
    own: dict[str, list[_Overlap]] = {}
    for found in overlaps:
        if best.get(found.heir.uuid) is found:
            own.setdefault(found.item.uuid, []).append(found)
    parts: dict[str, list[PathObject]] = {}
    for uuid, pieces in own.items():
        pieces = _side_by_side(pieces)
        head = heads.get(uuid)
        needed = NOTABLE if head is None or any(p.heir.uuid == head.uuid for p in pieces) else MOSTLY
        if sum(piece.of_item for piece in pieces) >= needed:
            parts[uuid] = [piece.heir for piece in pieces]
    return parts


def _side_by_side(pieces: Sequence[_Overlap]) -> list[_Overlap]:
    """The pieces without those that lie mostly on larger ones."""
    if len(pieces) < 2:
        return list(pieces)
    regions = regions_of(piece.heir.geometry for piece in pieces)
    areas = shapely.area(regions)
    one, other = shapely.STRtree(regions).query(regions, predicate="intersects")
    smaller = areas[one] < areas[other]
    one, other = one[smaller], other[smaller]
    covered = np.bincount(one, shapely.area(shapely.intersection(regions[one], regions[other])), len(pieces))
    return [piece for piece, on, area in zip(pieces, covered, areas, strict=True) if on < MOSTLY * area]


def _heads(overlaps: Sequence[_Overlap]) -> dict[str, PathObject]:
    """The new object that most of an object went into, by the old one's uuid; of equals the one that fits best."""
    best: dict[str, _Overlap] = {}
    for found in overlaps:
        known = best.get(found.item.uuid)
        if found.of_item >= MOSTLY and (known is None or found.fit > known.fit):
            best[found.item.uuid] = found
    return {uuid: found.heir for uuid, found in best.items()}


def _into_kept(
    gone: Sequence[PathObject],
    kept: Sequence[PathObject],
    old: dict[str, PathObject],
    successors: dict[str, list[tuple[PathObject, Change]]],
) -> None:
    """A brush stroke that swallowed a neighbour, which was then deleted: merged, not lost."""
    left = [item for item in gone if item.uuid not in successors]
    for found in _overlaps(left, kept):
        item, heir = found.item, found.heir
        covered_before = _share(item.geometry, old[heir.uuid].geometry)
        if found.of_item >= MOSTLY and covered_before < MOSTLY and heir.path_class == item.path_class:
            successors.setdefault(item.uuid, []).append((heir, Change.MERGED))


class _Overlap(NamedTuple):
    """Two objects that share area; areas in px²."""

    item: PathObject
    heir: PathObject
    areas: Areas

    @property
    def of_item(self) -> float:
        return self.areas.kept / self.areas.before

    @property
    def of_heir(self) -> float:
        return self.areas.kept / self.areas.after

    @property
    def fit(self) -> tuple[float, float]:
        """What decides between heirs: how much of the item went there, then how little else there is."""
        return round(self.of_item, 2), self.areas.iou


def _overlaps(items: Sequence[PathObject], others: Sequence[PathObject]) -> Iterator[_Overlap]:
    """Pairs that share area."""
    if not items or not others:
        return
    regions, own = (regions_of(o.geometry for o in objects) for objects in (others, items))
    index, other = shapely.STRtree(regions).query(own, predicate="intersects")
    order = np.lexsort((other, index))
    pairs = list(zip(index[order].tolist(), other[order].tolist(), strict=True))
    areas = compare_many_areas([(own[i], regions[j]) for i, j in pairs], 1.0)
    for (i, j), area in zip(pairs, areas, strict=True):
        if area.kept > 0:
            yield _Overlap(items[i], others[j], area)


def _share(a: BaseGeometry | None, b: BaseGeometry | None) -> float:
    areas = compare_areas(a, b, 1.0)
    return areas.kept / areas.before if areas.before else 0.0
