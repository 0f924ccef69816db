"""A simulated pathologist: what one would do to the pre-annotations of an image, given the truth.

Pure: objects in, objects and acts out; `review` lets it act on a project. The acts leave what the same gestures leave
in QuPath: brush and wand keep the uuid and the metadata and clear the measurements; what is drawn, merged or split is
a new object without metadata; a stroke that starts outside makes a sliver that touches the old object.
"""

from __future__ import annotations

import uuid as uuid_module
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import NamedTuple

import numpy as np
import shapely
import shapely.affinity
from shapely.geometry.base import BaseGeometry

from wsi_pipeline.objects import Kind, PathObject
from wsi_pipeline.synthetic.fields import EMPTY
from wsi_pipeline.synthetic.hand import Strokes, brushed, strokes_toward, without_crumbs, wobbled
from wsi_pipeline.synthetic.truth import TUMOUR_CLASS, Truth

IGNORE_CLASS = "Ignore*"

# A suggestion shows a region when it covers more than this share of it, or when most of the suggestion lies in it.
SHOWS = 0.4
MOSTLY = 0.6


class Did(StrEnum):
    """What was done to an object; the words of the column `change` in corrections.parquet."""

    UNTOUCHED = "untouched"
    MOVED = "moved"
    EDITED = "edited"
    RECLASSIFIED = "reclassified"
    DELETED = "deleted"
    ADDED = "added"
    SPLIT = "split"
    MERGED = "merged"


@dataclass(frozen=True, slots=True)
class Habits:
    """How this pathologist works.

    Attributes
    ----------
    tolerance_um
        Borders that are off by less are accepted.
    smallest_um2
        Differences of a smaller area are not worth a stroke.
    jitter_um
        How far a drawn line strays.
    mostly_wrong
        A suggestion with a smaller share of truth in it is taken away.
    overlooks
        Chance not to see a wrong or missing region.
    ignores
        Chance to call a wrong region `Ignore*` instead of deleting it.
    merges, splits
        Chance to merge suggestions that are one region, or split one that is several, where the rest is brushed.
    slivers
        Chance that a stroke that only adds starts outside, and so makes a new object.
    forgets_class
        Chance to leave a drawn object without a class.
    slips
        Chance to move an object by accident.
    """

    tolerance_um: float = 5.0
    smallest_um2: float = 900.0
    jitter_um: float = 1.0
    mostly_wrong: float = 0.3
    overlooks: float = 0.05
    ignores: float = 0.15
    merges: float = 0.5
    splits: float = 0.5
    slivers: float = 0.15
    forgets_class: float = 0.1
    slips: float = 0.0


STEADY = Habits()


@dataclass(frozen=True, slots=True)
class Act:
    """One thing that was done.

    Attributes
    ----------
    before
        uuids of the objects that it was done to; none for a drawn one.
    after
        What there is instead: the same object with another shape or class, or new ones.
    strokes
        How many strokes of the brush it took; 0 for a menu command.
    """

    did: Did
    before: tuple[str, ...] = ()
    after: tuple[PathObject, ...] = ()
    strokes: int = 0


class Correction(NamedTuple):
    """An image after the review: all its objects, and what was done, in order."""

    objects: list[PathObject]
    acts: list[Act]


def correct(
    objects: Sequence[PathObject],
    truth: Truth,
    rng: np.random.Generator,
    *,
    habits: Habits = STEADY,
    class_name: str = TUMOUR_CLASS,
    patience: int | None = None,
) -> Correction:
    """Correct the annotations of one class toward the truth.

    Parameters
    ----------
    objects
        All objects of the image, level-0 px; tiles, locked objects and other classes are left alone.
    patience
        Stop after so many acts that change something, with the rest not looked at; None: go through to the end.
    """
    desk = _Desk(list(objects), truth, rng, habits, class_name)
    for act in desk.acts():
        if patience is not None and desk.changes >= patience:
            break
        desk.do(act)
    return Correction(list(desk.there.values()), desk.done)


@dataclass(slots=True)
class _Desk:
    """One image on the screen."""

    objects: list[PathObject]
    truth: Truth
    rng: np.random.Generator
    habits: Habits
    class_name: str
    there: dict[str, PathObject] = field(default_factory=dict)
    done: list[Act] = field(default_factory=list)
    changes: int = 0

    def __post_init__(self) -> None:
        self.there = {o.uuid: o for o in self.objects}

    def do(self, act: Act) -> None:
        """Put what an act leaves in the place of what it was done to; new objects come last."""
        kept = {o.uuid for o in act.after}
        for uuid in act.before:
            if uuid not in kept:
                del self.there[uuid]
        for item in act.after:
            self.there[item.uuid] = item
        self.done.append(act)
        self.changes += act.did is not Did.UNTOUCHED

    def acts(self) -> Iterator[Act]:
        """Suggestion by suggestion, then what was missed; each act is done before the next is thought of."""
        suggestions = [o for o in self.objects if self._is_mine(o)]
        components = [part for part in shapely.get_parts(self.truth.tumour) if part.area > 0]
        claims = _Claims.of(suggestions, components, self.habits.mostly_wrong)
        for item in claims.wrong:
            yield self._take_away(item)
        yield from self._merges(claims)
        for item in claims.right:
            if item.uuid in self.there:
                yield from self._mend(item, claims)
        for index, component in enumerate(components):
            if not claims.owners[index] and component.area * self.truth.mpp**2 >= self.habits.smallest_um2:
                yield from self._draw(component)

    def _is_mine(self, item: PathObject) -> bool:
        return (
            item.kind is Kind.ANNOTATION
            and item.path_class == self.class_name
            and not item.locked
            and item.geometry is not None
            and shapely.get_dimensions(item.geometry) == 2
        )

    def _chance(self, share: float) -> bool:
        return bool(self.rng.random() < share)

    def _px(self, um: float) -> float:
        return um / self.truth.mpp

    def _take_away(self, item: PathObject) -> Act:
        if self._chance(self.habits.overlooks):
            return Act(Did.UNTOUCHED, (item.uuid,), (item,))
        if self._chance(self.habits.ignores):
            return Act(Did.RECLASSIFIED, (item.uuid,), (replace(item, path_class=IGNORE_CLASS),))
        return Act(Did.DELETED, (item.uuid,))

    def _merges(self, claims: _Claims) -> Iterator[Act]:
        """Suggestions that are one region, and nothing else, become one new object."""
        for index, owners in enumerate(claims.owners):
            free = [item for item in owners if claims.components_of(item) == [index]]
            if len(free) < 2 or not self._chance(self.habits.merges):
                continue
            shapes = [_shape(item) for item in free]
            whole = shapely.union_all(shapes)
            others = shapely.union_all([_shape(o) for o in claims.right if o not in free])
            merged = brushed(
                whole, self._strokes(whole, claims.components[index].difference(others)), self.rng, self._jitter
            )
            # What is still apart after the strokes is not one region, and what hardly stayed was not merged.
            stayed = min(shape.intersection(merged).area / shape.area for shape in shapes)
            if merged.geom_type == "Polygon" and stayed > MOSTLY:
                yield Act(Did.MERGED, tuple(item.uuid for item in free), (self._new(merged),), strokes=2)

    def _mend(self, item: PathObject, claims: _Claims) -> Iterator[Act]:
        shape = _shape(item)
        if self._chance(self.habits.slips):
            by = self.rng.uniform(8, 40, 2) * self.rng.choice([-1, 1], 2)
            slipped = shapely.affinity.translate(shape, float(by[0]), float(by[1]))
            yield Act(Did.MOVED, (item.uuid,), (self._edited(item, slipped),), strokes=1)
            return
        strokes = self._strokes(shape, claims.target(item))
        if strokes and strokes.removed.is_empty and self._chance(self.habits.slivers):
            sliver = wobbled(strokes.added, self.rng, self._jitter)
            yield Act(Did.UNTOUCHED, (item.uuid,), (item,))
            if not sliver.is_empty:
                yield Act(Did.ADDED, (), (self._drawn(sliver),), strokes=self._count(strokes.area))
            return
        yield self._brush(item, shape, strokes) if strokes else Act(Did.UNTOUCHED, (item.uuid,), (item,))

    def _brush(self, item: PathObject, shape: BaseGeometry, strokes: Strokes) -> Act:
        count = self._count(strokes.area)
        mended = brushed(shape, strokes, self.rng, self._jitter)
        if mended.is_empty:
            return Act(Did.DELETED, (item.uuid,))
        parts = list(shapely.get_parts(mended))
        stayed = min(part.intersection(shape).area / part.area for part in parts)
        if len(parts) > 1 and stayed > MOSTLY and self._chance(self.habits.splits):
            # The brush took the bridge away; `Split annotations` then makes an object of each part.
            return Act(Did.SPLIT, (item.uuid,), tuple(self._new(part) for part in parts), strokes=count)
        return Act(Did.EDITED, (item.uuid,), (self._edited(item, mended),), strokes=count)

    def _draw(self, component: BaseGeometry) -> Iterator[Act]:
        """A region that no suggestion shows, less what is covered by now."""
        if self._chance(self.habits.overlooks):
            return
        covered = [_shape(o) for o in self.there.values() if o.path_class == self.class_name]
        for part in shapely.get_parts(without_crumbs(component.difference(shapely.union_all(covered)))):
            if part.area * self.truth.mpp**2 >= self.habits.smallest_um2:
                drawn = wobbled(part, self.rng, self._jitter)
                if not drawn.is_empty:
                    yield Act(Did.ADDED, (), (self._drawn(drawn),), strokes=self._count(part.area))

    @property
    def _jitter(self) -> float:
        return self._px(self.habits.jitter_um)

    def _strokes(self, current: BaseGeometry, target: BaseGeometry) -> Strokes:
        width, smallest = self._px(2 * self.habits.tolerance_um), self.habits.smallest_um2 / self.truth.mpp**2
        return strokes_toward(current, target, width=width, smallest=smallest)

    def _count(self, area: float) -> int:
        """Strokes for an area: a brush of 40 µm covers about 4,000 µm² with one."""
        return int(np.clip(np.ceil(area * self.truth.mpp**2 / 4000), 1, 25))

    def _edited(self, item: PathObject, shape: BaseGeometry) -> PathObject:
        """As QuPath leaves it: same uuid, name, class and metadata; the measurements are cleared."""
        return replace(item, geometry=shape, measurements={}, roi=None)

    def _new(self, shape: BaseGeometry) -> PathObject:
        """What a menu command makes: a new uuid, the class, and nothing else."""
        identity = str(uuid_module.UUID(bytes=self.rng.bytes(16), version=4))
        return PathObject(identity, Kind.ANNOTATION, shape, self.class_name)

    def _drawn(self, shape: BaseGeometry) -> PathObject:
        """What a tool draws: without a class until somebody sets it, which is sometimes forgotten."""
        item = self._new(shape)
        return replace(item, path_class=None) if self._chance(self.habits.forgets_class) else item


@dataclass(frozen=True, slots=True)
class _Claims:
    """Which suggestion stands for which part of the truth.

    Attributes
    ----------
    owners
        For each component the suggestions that show it, the one that covers most of it first.
    """

    components: list[BaseGeometry]
    wrong: list[PathObject]
    right: list[PathObject]
    owners: list[list[PathObject]]
    truth: BaseGeometry

    @classmethod
    def of(cls, suggestions: Sequence[PathObject], components: list[BaseGeometry], mostly_wrong: float) -> _Claims:
        common = np.array(
            [[_shape(item).intersection(part).area for part in components] for item in suggestions], np.float64
        ).reshape(len(suggestions), len(components))
        # Of an image without suggestions (a manual arm) there are no rows, but as many columns.
        of_item = common / np.maximum([_shape(item).area for item in suggestions], 1e-9).reshape(-1, 1)
        of_part = common / np.array([part.area for part in components], np.float64)
        is_wrong = (of_item.sum(axis=1) < mostly_wrong) & ~(of_part > SHOWS).any(axis=1)
        owns = ((of_part > SHOWS) | (of_item > MOSTLY)) & ~is_wrong[:, None]
        return cls(
            components,
            wrong=[item for item, wrong in zip(suggestions, is_wrong, strict=True) if wrong],
            right=[item for item, wrong in zip(suggestions, is_wrong, strict=True) if not wrong],
            owners=[
                [suggestions[i] for i in np.argsort(-common[:, index], kind="stable") if owns[i, index]]
                for index in range(len(components))
            ],
            truth=shapely.union_all(components),
        )

    def components_of(self, item: PathObject) -> list[int]:
        return [index for index, owners in enumerate(self.owners) if item in owners]

    def target(self, item: PathObject) -> BaseGeometry:
        """What a suggestion should be: what is right of it, and the components that it shows best as a whole,
        less what others show of them."""
        shape = _shape(item)
        wanted = [shape.intersection(self.truth)]
        for index in self.components_of(item):
            if self.owners[index][0] is item:
                others = [_shape(other) for other in self.right if other is not item]
                wanted.append(self.components[index].difference(shapely.union_all(others)))
        return shapely.union_all(wanted)


def _shape(item: PathObject) -> BaseGeometry:
    return EMPTY if item.geometry is None else shapely.make_valid(item.geometry)
