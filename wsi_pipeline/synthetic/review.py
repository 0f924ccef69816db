"""The simulated pathologist at work on a QuPath project: opens images, corrects, saves, and leaves an event log."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from wsi_pipeline.files import read_json
from wsi_pipeline.objects import Kind, PathObject
from wsi_pipeline.qupath.native_project import NativeImage, NativeProject
from wsi_pipeline.states import MARKER, META_PRIORITY, META_SLIDE, META_SOURCE, META_STATE, ImageState, Source
from wsi_pipeline.synthetic.diary import EPOCH_MS, Diary
from wsi_pipeline.synthetic.pathologist import STEADY, Act, Correction, Did, Habits, correct
from wsi_pipeline.synthetic.truth import TUMOUR_CLASS, Truth

logger = logging.getLogger(__name__)

# Images that are corrected before QuPath is closed for the day.
IMAGES_PER_DAY = 2
DAY_MS = 86_400_000
# What an unfinished image gets: so many corrections, then the phone rings.
UNFINISHED_ACTS = 2


class SimulatedEdit(NamedTuple):
    """One row that a collection must find: `uuid` is the object's before, or its new one for what was added."""

    slide_id: str
    uuid: str
    kind: Did


def review_project(
    path: Path,
    truths: Mapping[str, Truth],
    *,
    seed: int = 0,
    habits: Habits = STEADY,
    class_name: str = TUMOUR_CLASS,
    unfinished: Collection[str] = (),
    start_ms: int = EPOCH_MS,
    per_day: int = IMAGES_PER_DAY,
) -> list[SimulatedEdit]:
    """Review the images of a project that are still to do, as a pathologist would in QuPath.

    Objects are saved as QuPath saves them, states and the source go into the image metadata, and every day leaves an
    event log in `events/` whose header says `source: simulated`. The same project and seed give the same bytes.

    Parameters
    ----------
    truths
        By slide id; images without a truth are not opened.
    unfinished
        Slide ids that are begun and left: their state stays `in_progress`.
    start_ms
        When the first day begins, UTC in ms.
    per_day
        Images that are corrected before QuPath is closed for the day.

    Returns
    -------
    What was done to each annotation of the images that were opened, untouched ones included. Objects of an unfinished
    image that were not looked at are not in it.
    """
    project = NativeProject.open(path)
    folder = project.path.parent
    marker = _marker(folder)
    rater = str(marker.get("rater") or "simulated")
    queue = _queue(project, truths)
    edits: list[SimulatedEdit] = []
    for day in range(0, -(-len(queue) // per_day)):
        rng = np.random.default_rng([seed, day])
        diary = Diary(marker, rater, rng, start_ms + day * DAY_MS)
        for image in queue[day * per_day : (day + 1) * per_day]:
            slide_id = image.metadata[META_SLIDE]
            edits += _review_image(
                project, image, truths[slide_id], diary, seed, habits, class_name, slide_id in unfinished
            )
            diary.now_ms += int(rng.uniform(20_000, 90_000))
        diary.write(folder)
    return edits


def _marker(folder: Path) -> Mapping[str, Any]:
    path = folder / MARKER
    value = read_json(path) if path.exists() else {}
    return value if isinstance(value, dict) else {}


def _queue(project: NativeProject, truths: Mapping[str, Truth]) -> list[NativeImage]:
    """Images to do, in the order in which the project pane sorts them."""
    waiting = [
        image
        for image in project.images()
        if image.metadata.get(META_SLIDE) in truths and image.metadata.get(META_STATE) == ImageState.TODO
    ]
    return sorted(waiting, key=lambda image: (image.metadata.get(META_PRIORITY, ""), image.entry_id))


def _review_image(
    project: NativeProject,
    image: NativeImage,
    truth: Truth,
    diary: Diary,
    seed: int,
    habits: Habits,
    class_name: str,
    unfinished: bool,
) -> list[SimulatedEdit]:
    slide_id = image.metadata[META_SLIDE]
    # Not the image's place in the queue: what is done to a slide does not depend on the other slides.
    rng = np.random.default_rng([seed, zlib.crc32(slide_id.encode())])
    before = image.read_objects()
    diary.open(image.entry_id, sum(o.kind is Kind.ANNOTATION for o in before))
    # First the whole slide.
    diary.looks(25.0)
    patience = UNFINISHED_ACTS if unfinished else None
    result = correct(before, truth, rng, habits=habits, class_name=class_name, patience=patience)
    classes = {o.uuid: o.path_class for o in before}
    for number, act in enumerate(result.acts):
        _tell(diary, act, classes)
        if number % 7 == 6:
            diary.saved()
    if not unfinished and rng.random() < 0.4:
        diary.away(float(rng.uniform(200, 900)))
    diary.looks(15.0)
    diary.saved()
    diary.close()
    _save(project, image, before, result, ImageState.IN_PROGRESS if unfinished else ImageState.REVIEWED)
    return [edit for act in result.acts for edit in _edits(slide_id, act)]


def _save(
    project: NativeProject, image: NativeImage, before: list[PathObject], result: Correction, state: ImageState
) -> None:
    """An image in which nothing was changed is not saved, as in QuPath."""
    if any(act.did is not Did.UNTOUCHED for act in result.acts):
        count = project.save_objects(image, result.objects)
        logger.info("%s: %d objects, %d before", image.name, count, len(before))
    project.set_metadata(image, {META_STATE: str(state), META_SOURCE: str(Source.SIMULATED)})
    project.save()


def _tell(diary: Diary, act: Act, classes: Mapping[str, str | None]) -> None:
    """Write what an act looks like to the event log."""
    # Finding the place, and deciding.
    diary.looks(6.0)
    if act.did is Did.UNTOUCHED:
        return
    if act.did is Did.DELETED:
        diary.deleted(act.before[0])
        return
    if act.did is Did.RECLASSIFIED:
        diary.classified(act.before[0], act.after[0].path_class)
        return
    kept = {item.uuid for item in act.after} & set(act.before)
    for item in act.after:
        shape = item.geometry
        assert shape is not None  # noqa: S101 - every act leaves shapes
        if item.uuid in kept:
            diary.strokes(item.uuid, shape, act.strokes)
        elif act.before:
            diary.created(item.uuid, shape, item.path_class)
        else:
            diary.strokes(item.uuid, shape, act.strokes, created=True)
            if item.path_class is not None:
                diary.looks(1.5)
                diary.classified(item.uuid, item.path_class)
    for uuid in act.before:
        if uuid not in kept:
            diary.deleted(uuid)


def _edits(slide_id: str, act: Act) -> list[SimulatedEdit]:
    """The rows of one act: one for each object before, or one for what was added."""
    uuids = act.before or tuple(item.uuid for item in act.after)
    return [SimulatedEdit(slide_id, uuid, act.did) for uuid in uuids]
