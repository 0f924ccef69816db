"""Errors that a study plants to see whether they are found: announced, written down, and always repaired."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import shapely
from shapely.affinity import scale, translate
from shapely.geometry.base import BaseGeometry

from wsi_pipeline.config import Planting
from wsi_pipeline.handout.plan import HandedOutSlide, Plan, snapshot_of, true_object_of
from wsi_pipeline.measures import compare_areas, region_of
from wsi_pipeline.objects import Kind, PathObject, object_uuid
from wsi_pipeline.rundir import RunDir

# A drawn region that shares at least this (IoU) with a missing one has found it.
FOUND = 0.5
# A changed boundary keeps this much of each side.
SHRUNK = 0.6
_TRIES = 200


@dataclass(frozen=True, slots=True)
class PlantedObjects:
    """The true object and what was put in its place; a missing one has no `planted`, a fake one no `true`."""

    kind: Planting
    true: PathObject | None
    planted: PathObject | None


def plant(
    objects: Sequence[PathObject],
    kind: Planting,
    *,
    seed: str,
    run_id: str,
    slide_id: str,
    size: tuple[int, int],
    classes: Sequence[str],
) -> tuple[list[PathObject], PlantedObjects | None]:
    """The objects with one error among them, the same for the same seed; unchanged where there is nothing to do it to.

    Parameters
    ----------
    size
        Width and height of level 0 in px; a fake region stays inside, and off all others.
    classes
        Classes that a region may be given by mistake.
    """
    regions = [o for o in objects if o.kind is Kind.ANNOTATION and not region_of(o.geometry).is_empty]
    if not regions:
        return list(objects), None
    rng = random.Random(seed)  # noqa: S311 - a draw of a study, no secret
    true = rng.choice(sorted(regions, key=lambda o: o.uuid))
    shape, name = true.geometry, true.path_class
    if kind == "fake":
        shape = _elsewhere(true, regions, size, rng)
    elif kind == "boundary":
        shape = scale(region_of(true.geometry), SHRUNK, SHRUNK)
    elif kind == "class":
        others = [c for c in classes if c != name]
        if not others:
            return list(objects), None
        name = rng.choice(others)
    if kind == "missing":
        return [o for o in objects if o.uuid != true.uuid], PlantedObjects(kind, true, None)
    shape = None if shape is None else shapely.set_precision(shape, 0.01)
    if shape is None or shape.is_empty:
        return list(objects), None
    wrong = replace(
        true, uuid=object_uuid(run_id, slide_id, name or "", shape), geometry=shape, path_class=name, roi=None
    )
    if kind == "fake":
        return [*objects, wrong], PlantedObjects(kind, None, wrong)
    return [wrong if o.uuid == true.uuid else o for o in objects], PlantedObjects(kind, true, wrong)


def _elsewhere(
    item: PathObject, regions: Sequence[PathObject], size: tuple[int, int], rng: random.Random
) -> BaseGeometry | None:
    """The region's outline at a place where there is none; None when no free place was found."""
    shape = region_of(item.geometry)
    left, top, right, bottom = shape.bounds
    taken = [region_of(o.geometry) for o in regions]
    tree = shapely.STRtree(taken)
    for _ in range(_TRIES):
        x, y = rng.uniform(0, size[0] - (right - left)), rng.uniform(0, size[1] - (bottom - top))
        moved = translate(shape, x - left, y - top)
        if x >= 0 and y >= 0 and not len(tree.query(moved, predicate="intersects")):
            return moved
    return None


def planted_in(run: RunDir, plan: Plan, slide: HandedOutSlide) -> PlantedObjects | None:
    """What was planted in an image that was handed out; None for nothing. Raises as `snapshot_of`."""
    if slide.planted is None:
        return None
    true = next(iter(true_object_of(run, plan, slide)), None)
    wrong = slide.planted.planted
    objects = [] if wrong is None else snapshot_of(run, plan, slide)
    return PlantedObjects(slide.planted.kind, true, next((o for o in objects if o.uuid == wrong), None))


def repaired(
    annotations: Sequence[PathObject], planted: PlantedObjects, untouched: bool
) -> tuple[list[PathObject], bool]:
    """The annotations without what was planted, and whether the person had found it.

    Parameters
    ----------
    annotations
        As they are in the project now.
    untouched
        Whether the planted object is there as it was handed out; what a person changed is the person's.
    """
    if planted.planted is None:
        true = planted.true
        drawn = (o for o in annotations if true is not None and o.geometry is not None)
        if true is None or any(compare_areas(true.geometry, o.geometry, 1.0).iou >= FOUND for o in drawn):
            return list(annotations), True
        return [*annotations, true], False
    if not untouched:
        return list(annotations), True
    wrong = planted.planted.uuid
    rest = [planted.true if o.uuid == wrong else o for o in annotations]
    return [o for o in rest if o is not None], False
