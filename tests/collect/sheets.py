"""What a person did to one image, told apart from any file: the reference that the pipeline is compared with.

Nothing here uses the pipeline's own matching; what must be reported follows from the acts themselves.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from shapely.affinity import translate
from shapely.geometry.base import BaseGeometry

from wsi_pipeline.collect import Change
from wsi_pipeline.objects import PathObject

Key = tuple[str | None, str | None]


def shape_of(item: PathObject) -> BaseGeometry:
    assert item.geometry is not None
    return item.geometry


def iou(a: BaseGeometry, b: BaseGeometry) -> float:
    return float(a.intersection(b).area / a.union(b).area)


@dataclass
class Mark:
    """One annotation as it was left, how it came there, and what was done to its shape since."""

    now: PathObject
    made_of: tuple[str, ...] = ()
    """uuids, handed out, that a split or a merge made it of."""
    brushed: bool = False
    offset: tuple[int, int] = (0, 0)
    kept: bool = False
    """Whether a newer model once found it touched: it stays from then on, even if that is taken back."""


@dataclass
class Sheet:
    """One image: what was handed out and still counts, and the annotations that are there."""

    slide_id: str
    given: dict[str, PathObject] = field(default_factory=dict)
    marks: dict[str, Mark] = field(default_factory=dict)
    verdicts: dict[str, float] = field(default_factory=dict)
    """By uuid of a review tile, what a person judged."""

    def copy(self) -> Sheet:
        return copy.deepcopy(self)

    def objects(self) -> list[PathObject]:
        return [mark.now for mark in self.marks.values()]

    def children(self, uuid: str) -> list[str]:
        return [u for u, mark in self.marks.items() if mark.now.parent == uuid]

    # ---- what a person does

    def put(self, item: PathObject, made_of: Iterable[str] = ()) -> None:
        self.marks[item.uuid] = Mark(item, tuple(made_of))

    def brush(self, uuid: str, shape: BaseGeometry) -> None:
        mark = self.marks[uuid]
        mark.now, mark.brushed = replace(mark.now, geometry=shape, measurements={}), True

    def move(self, uuid: str, x: int, y: int) -> None:
        mark = self.marks[uuid]
        mark.now = replace(mark.now, geometry=translate(shape_of(mark.now), x, y), measurements={})
        mark.offset = mark.offset[0] + x, mark.offset[1] + y

    def word(self, uuid: str, **words: object) -> None:
        """Class, name, lock or description: QuPath keeps measurements then."""
        mark = self.marks[uuid]
        mark.now = replace(mark.now, **words)  # type: ignore[arg-type]

    def remove(self, uuid: str) -> None:
        del self.marks[uuid]

    # ---- what must follow

    def is_touched(self, uuid: str) -> bool:
        """Whether a handout must leave the object alone: anything that differs, or a person's object inside of it."""
        mark, before = self.marks[uuid], self.given.get(uuid)
        if before is None or mark.brushed or mark.offset != (0, 0):
            return True
        then, now = (
            (o.path_class, o.name, o.locked, dict(o.metadata), dict(o.measurements)) for o in (before, mark.now)
        )
        return then != now or any(self.is_touched(child) for child in self.children(uuid))

    def settled(self) -> list[PathObject]:
        """What was handed out and a person then changed or took away, as it was handed out."""
        return [o for u, o in self.given.items() if u not in self.marks or self.is_touched(u)]

    def change_of(self, uuid: str) -> Change:
        """What must be reported of an object that was handed out and has kept its uuid."""
        mark = self.marks[uuid]
        if mark.brushed:
            return Change.EDITED
        if mark.offset != (0, 0):
            return Change.MOVED
        same = mark.now.path_class == self.given[uuid].path_class
        return Change.UNTOUCHED if same else Change.RECLASSIFIED

    def expected(self) -> dict[Key, Change]:
        """Every pair that a collection must tell."""
        found: dict[Key, Change] = {}
        for uuid in self.given:
            heirs = [u for u, mark in self.marks.items() if uuid in mark.made_of]
            if uuid in self.marks:
                found[uuid, uuid] = self.change_of(uuid)
            elif not heirs:
                found[uuid, None] = Change.DELETED
            for heir in heirs:
                merged = len(self.marks[heir].made_of) > 1
                one = Change.SPLIT if len(heirs) > 1 else Change.EDITED
                found[uuid, heir] = Change.MERGED if merged else one
        for uuid, mark in self.marks.items():
            if uuid not in self.given and not mark.made_of:
                found[None, uuid] = Change.ADDED
        return found
