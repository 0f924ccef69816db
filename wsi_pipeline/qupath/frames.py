"""Objects from one frame to another, and the order in which a hierarchy holds them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from wsi_pipeline.errors import ProjectError
from wsi_pipeline.objects import META_RUN, PathObject, Roi
from wsi_pipeline.qupath.affine import keeps_axes
from wsi_pipeline.qupath.protocol import IDENTITY, Affine
from wsi_pipeline.qupath.shapes import same_region, vertices_near
from wsi_pipeline.states import verdict_of

# Deepest nesting that survives QuPath's own reading and saving on a Java thread with the default stack.
MAX_DEPTH = 100
# The file stores polygons as 32-bit floats (steps of 1/64 px at 200,000 px), and QuPath from 0.6 on makes such of every
# other area as well when it reads it, after rounding to 0.01 px, as the snapshot does.
STORED = 0.05
_ALONG_AXES = {Roi.RECTANGLE, Roi.ELLIPSE}


def moved(objects: Iterable[PathObject], affine: Affine) -> list[PathObject]:
    """The objects with their shapes (and nuclei) transformed; rectangles and ellipses that turn become polygons."""
    objects = list(objects)
    if affine == IDENTITY:
        return objects
    shapes = _transformed([o.geometry for o in objects], affine)
    nuclei = _transformed([o.nucleus for o in objects], affine)
    along = keeps_axes(affine)
    return [
        replace(
            item,
            geometry=shape,
            nucleus=nucleus,
            roi=item.roi if along or item.roi not in _ALONG_AXES else None,
            nucleus_roi=item.nucleus_roi if along or item.nucleus_roi not in _ALONG_AXES else None,
        )
        for item, shape, nucleus in zip(objects, shapes, nuclei, strict=True)
    ]


def _transformed(geometries: Sequence[BaseGeometry | None], affine: Affine) -> Sequence[BaseGeometry | None]:
    a, b, d, e, x, y = affine
    matrix, offset = np.array([[a, d], [b, e]]), np.array([x, y])

    def transform(coordinates: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(coordinates @ matrix + offset)

    return list(shapely.transform(np.array([*geometries, None], dtype=object)[:-1], transform))


def depth_first(objects: Iterable[PathObject], image: str) -> list[PathObject]:
    """The objects with every child after its parent, as a hierarchy is written; siblings keep their order.

    Raises
    ------
    ProjectError
        Two objects have one uuid, a parent is not there, parents form a ring, or the nesting is too deep for QuPath.
    """
    objects = list(objects)
    known = {o.uuid for o in objects}
    if len(known) != len(objects):
        twice = next(uuid for uuid in known if sum(o.uuid == uuid for o in objects) > 1)
        raise ProjectError(f"{image}: two objects have the id {twice}")
    children: dict[str | None, list[PathObject]] = {}
    for item in objects:
        if item.parent is not None and item.parent not in known:
            raise ProjectError(f"{image}: object {item.uuid} lies in the object {item.parent}, which is not there")
        children.setdefault(item.parent, []).append(item)
    ordered: list[PathObject] = []
    stack = [(item, 1) for item in reversed(children.get(None, []))]
    while stack:
        item, depth = stack.pop()
        if depth > MAX_DEPTH:
            raise ProjectError(f"{image}: objects are nested more than {MAX_DEPTH} deep; QuPath could not save them")
        ordered.append(item)
        stack.extend((child, depth + 1) for child in reversed(children.get(item.uuid, [])))
    if len(ordered) != len(objects):
        raise ProjectError(f"{image}: objects lie in each other in a ring")
    return ordered


class Replacement(NamedTuple):
    """What `plan_replacement` decided: uuids that go, objects that come, how many a person had touched."""

    going: set[str]
    new: list[PathObject]
    kept: int


def plan_replacement(
    objects: Sequence[PathObject],
    run_id: str,
    incoming: Iterable[PathObject],
    snapshot: Iterable[PathObject],
) -> Replacement:
    """Which predictions of a run make room for new ones; see `protocol.Project.replace_run_objects`.

    All objects in one frame.
    """
    handed_out = {o.uuid: o for o in snapshot}
    new = {o.uuid: o for o in incoming}
    of_run = [o.uuid for o in objects if o.metadata.get(META_RUN) == run_id]
    free = untouched_uuids(objects, of_run, handed_out)
    # What comes in as it already stands there stays, so that a second run writes nothing.
    same = untouched_uuids(objects, free, new)
    going = without_ancestors_of_others(objects, free - same)
    present = {o.uuid for o in objects}
    # What is in the snapshot and no longer in the project was deleted by a person, who meant it.
    barred = (present - going) | (handed_out.keys() - present)
    return Replacement(going, [o for o in new.values() if o.uuid not in barred], len(of_run) - len(free))


def untouched_uuids(
    objects: Sequence[PathObject], run_objects: Iterable[str], snapshot: Mapping[str, PathObject]
) -> set[str]:
    """Which objects of a run nobody has touched since they were handed out.

    An object counts only when it is in the snapshot and everything that is nested in it counts too: what a person drew
    inside a prediction keeps the prediction.

    Parameters
    ----------
    objects
        All objects of the image as they are now, in the frame of the snapshot.
    run_objects
        uuids of those that the run made.
    """
    candidates = set(run_objects)
    clean = {o.uuid for o in objects if o.uuid in candidates and o.uuid in snapshot and _untouched(o, snapshot[o.uuid])}
    return without_ancestors_of_others(objects, clean)


def without_ancestors_of_others(objects: Sequence[PathObject], uuids: set[str]) -> set[str]:
    """Those of `uuids` in which no object lies that is not among them: they can go without taking others along."""
    left = set(uuids)
    parents = {o.uuid: o.parent for o in objects}
    for item in objects:
        if item.uuid not in uuids:
            above = parents.get(item.uuid)
            while above is not None:
                left.discard(above)
                above = parents.get(above)
    return left


def _untouched(now: PathObject, then: PathObject) -> bool:
    same_words = all(
        getattr(now, name) == getattr(then, name)
        for name in ("kind", "path_class", "name", "locked", "color", "parent", "plane")
    )
    # QuPath clears the measurements of an object whose shape is edited, even when the shape comes out the same.
    cleared = bool(then.measurements) and not now.measurements
    return (
        same_words
        and not cleared
        and verdict_of(now.measurements) == verdict_of(then.measurements)
        and dict(now.metadata) == dict(then.metadata)
        and _same_outline(now.geometry, then.geometry)
        and _same_outline(now.nucleus, then.nucleus)
    )


def _same_outline(a: BaseGeometry | None, b: BaseGeometry | None) -> bool:
    """The same region, and every vertex of each on the outline of the other: a small edit of a long outline counts."""
    if a is None or b is None:
        return a is b
    if shapely.equals_exact(a, b, STORED):
        return True
    return same_region(a, b, STORED) and vertices_near(a, b, STORED) and vertices_near(b, a, STORED)
