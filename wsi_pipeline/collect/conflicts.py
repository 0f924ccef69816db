"""Objects of one slide that several raters changed differently: listed, never resolved by whoever came last."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from wsi_pipeline.collect.matching import MOSTLY, Change, Pair, same_shape
from wsi_pipeline.handout import HandedOutSlide, Plan
from wsi_pipeline.handout.plan import ASSISTED
from wsi_pipeline.measures import compare_areas, region_of, union_of
from wsi_pipeline.objects import PathObject
from wsi_pipeline.states import ImageState

ACCEPTED = "accepted"
_FINAL = {ImageState.ADJUDICATED, ImageState.LOCKED}


@dataclass(frozen=True, slots=True)
class Work:
    """What one rater did to one slide: pairs that were changed, and uuids that were reviewed and left as they were."""

    slide_id: str
    batch: str
    rater: str
    final: bool
    changed: tuple[Pair, ...]
    accepted: frozenset[str]


def work_of(plan: Plan, slide: HandedOutSlide, state: ImageState, pairs: Sequence[Pair]) -> Work | None:
    """What can contradict another rater; None for a manual arm and for a repeat, which is compared with itself."""
    if slide.arm != ASSISTED or slide.repeat:
        return None
    changed = tuple(p for p in pairs if p.change is not Change.UNTOUCHED)
    left = (p.before.uuid for p in pairs if p.change is Change.UNTOUCHED and p.before is not None)
    accepted = frozenset(left) if state.is_reviewed else frozenset()
    return Work(slide.slide_id, plan.batch, plan.rater, state in _FINAL, changed, accepted)


def conflicts_of(work: Iterable[Work]) -> list[dict[str, Any]]:
    """Conflicts for metrics.json, those of class first, then those that agree least.

    An object is in conflict when two raters have it and did not leave the same (shape within 1 px, class, or nothing).
    Of what has no uuid in common, two objects are in conflict that lie mostly on each other. Somebody who has not
    reviewed an image accepts nothing by leaving it alone.
    """
    of_slide: dict[str, list[Work]] = {}
    for item in work:
        of_slide.setdefault(item.slide_id, []).append(item)
    found: list[dict[str, Any]] = []
    for slide_id, own in of_slide.items():
        if len({w.rater for w in own}) < 2:
            continue
        for conflict in (*_of_one_object(own), *_overlapping(own)):
            found.append({"slide_id": slide_id, **conflict, "adjudicated": any(w.final for w in own)})
    return sorted(found, key=lambda c: (c["slide_id"], c["differs"] != "class", c["iou"] or 0.0, c["object"] or ""))


def in_words(conflicts: Sequence[dict[str, Any]]) -> str | None:
    """One line on those that nobody has decided yet; None without any."""
    waiting = [c for c in conflicts if not c["adjudicated"]]
    if not waiting:
        return None
    slides = len({c["slide_id"] for c in waiting})
    of_class = sum(c["differs"] == "class" for c in waiting)
    return (
        f"{len(waiting)} objects on {slides} slides were changed differently by raters, {of_class} in class; "
        "`conflicts` in review/metrics.json lists them"
    )


def _of_one_object(own: Sequence[Work]) -> Iterator[dict[str, Any]]:
    """By the uuid that was handed out to several."""
    changed: dict[str, dict[int, list[Pair]]] = {}
    for index, work in enumerate(own):
        for pair in work.changed:
            if pair.before is not None:
                changed.setdefault(pair.before.uuid, {}).setdefault(index, []).append(pair)
    for uuid, of_rater in sorted(changed.items()):
        before = next(iter(of_rater.values()))[0].before
        sides = [
            _Side(work, of_rater[i]) if i in of_rater else _Side(work, [Pair(before, before, Change.UNTOUCHED)])
            for i, work in enumerate(own)
            if i in of_rater or uuid in work.accepted
        ]
        yield from _told(uuid, sides)


def _overlapping(own: Sequence[Work]) -> Iterator[dict[str, Any]]:
    """Objects that raters drew, or made of others, without a common uuid."""
    for one, other in combinations(own, 2):
        if one.rater == other.rater:
            continue
        theirs = [p for p in other.changed if p.after is not None]
        if not theirs:
            continue
        tree = shapely.STRtree(np.array([region_of(p.after.geometry) for p in theirs if p.after], dtype=object))
        told: set[tuple[str, str]] = set()
        mine, of_theirs = _origins(one), _origins(other)
        for pair in one.changed:
            if pair.after is None:
                continue
            for index in sorted(tree.query(region_of(pair.after.geometry), predicate="intersects")):
                match = theirs[index]
                if match.after is None:
                    continue
                if mine.get(pair.after.uuid, set()) & of_theirs.get(match.after.uuid, set()):
                    continue
                areas = compare_areas(pair.after.geometry, match.after.geometry, 1.0)
                key = (pair.after.uuid, match.after.uuid)
                if key not in told and areas.kept >= MOSTLY * min(areas.before, areas.after) > 0:
                    told.add(key)
                    yield from _told(None, [_Side(one, [pair]), _Side(other, [match])])


def _origins(work: Work) -> dict[str, set[str]]:
    """By what a rater left, the uuids that it was made of: these tell of it already."""
    found: dict[str, set[str]] = {}
    for pair in work.changed:
        if pair.after is not None and pair.before is not None:
            found.setdefault(pair.after.uuid, set()).add(pair.before.uuid)
    return found


@dataclass(frozen=True, slots=True)
class _Side:
    """What one rater made of an object."""

    work: Work
    pairs: Sequence[Pair]

    @property
    def left(self) -> list[PathObject]:
        return [p.after for p in self.pairs if p.after is not None]

    @property
    def shape(self) -> BaseGeometry | None:
        left = self.left
        if len(left) == 1:
            return left[0].geometry  # a point or line too, of which a union leaves nothing
        return union_of([o.geometry for o in left]) if left else None

    @property
    def classes(self) -> set[str | None]:
        return {o.path_class for o in self.left}

    def as_json(self) -> dict[str, Any]:
        first = self.pairs[0]
        changes = {str(p.change) for p in self.pairs}
        return {
            "rater": self.work.rater,
            "batch": self.work.batch,
            "change": ACCEPTED if first.change is Change.UNTOUCHED else ", ".join(sorted(changes)),
            "class_before": first.before.path_class if first.before else None,
            "class_after": first.after.path_class if first.after else None,
            "uuids_after": sorted(o.uuid for o in self.left),
        }


def _told(uuid: str | None, sides: Sequence[_Side]) -> Iterator[dict[str, Any]]:
    """One conflict, where the sides are of several raters and two of them left something else."""
    differs: set[str] = set()
    ious = []
    for one, other in combinations(sides, 2):
        if one.work.rater == other.work.rater:
            continue
        if one.left and other.left and one.classes != other.classes:
            differs.add("class")
        if bool(one.left) != bool(other.left):
            differs.add("presence")
        elif not same_shape(one.shape, other.shape):
            differs.add("shape")
        areas = compare_areas(one.shape, other.shape, 1.0)
        if areas.before or areas.after:
            ious.append(areas.iou)
    if not differs:
        return
    what = next(word for word in ("class", "presence", "shape") if word in differs)
    yield {
        "object": uuid,
        "differs": what,
        "iou": min(ious) if ious else None,
        "raters": [side.as_json() for side in sides],
    }
