"""One image of a project, read and compared with its snapshot; an image that lost objects raises an alarm."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import shapely

from wsi_pipeline.audit import AuditEntry
from wsi_pipeline.collect.changed import ChangedTile
from wsi_pipeline.collect.conflicts import Work, work_of
from wsi_pipeline.collect.doubt import tiles_of_image
from wsi_pipeline.collect.guard import ImageLog, loss
from wsi_pipeline.collect.judged import JudgedTile, judged_tiles, tile_figures
from wsi_pipeline.collect.matching import Change, match
from wsi_pipeline.collect.planted import without_planted
from wsi_pipeline.collect.rows import Correction, Occasion, rows_of
from wsi_pipeline.collect.tables import class_figures, count_changes
from wsi_pipeline.collect.trail import changes_of
from wsi_pipeline.errors import ProjectError, WsiError
from wsi_pipeline.handout import HandedOutSlide, Plan, handout_held, planted_in, repaired, snapshot_of, state_of
from wsi_pipeline.measures import Session
from wsi_pipeline.objects import Kind, PathObject
from wsi_pipeline.qupath import ImageData, Project, ProjectImage
from wsi_pipeline.rundir import RunDir
from wsi_pipeline.states import META_SLIDE, META_SOURCE, ImageState, Source

# QuPath saves an image within seconds; a file that cannot be read is read again while it is as new as that.
SAVES_WITHIN_S = 10.0
PAUSES_S = (0.2, 0.5, 1.0, 2.0)


@dataclass(frozen=True, slots=True)
class CollectedImage:
    """What was read of one image; `annotations` are those of now, in level-0 px.

    `silent`: neither the image nor a log of it says who worked on it, if anybody did; see `in_one_run`.
    """

    plan: Plan
    slide: HandedOutSlide
    entry_id: int
    state: ImageState
    source: Source
    annotations: tuple[PathObject, ...]
    rows: tuple[Correction, ...]
    facts: dict[str, Any]
    tiles: tuple[ChangedTile, ...] = ()
    changes: tuple[AuditEntry, ...] = ()
    work: Work | None = None
    judged: tuple[JudgedTile, ...] = ()
    remark: str | None = None
    silent: bool = False


@dataclass(frozen=True, slots=True)
class Alarm:
    """An image that was left out, and what to do."""

    slide_id: str
    text: str

    def __str__(self) -> str:
        return f"{self.slide_id}: {self.text}"


def collect_image(
    run: RunDir,
    plan: Plan,
    slide: HandedOutSlide,
    project: Project,
    sessions: Sequence[Session],
    tolerance_um: float,
) -> CollectedImage | Alarm:
    """Read one image and compare it; an `Alarm` when it cannot be trusted.

    Parameters
    ----------
    sessions
        All event logs of the project.
    """
    try:
        image = find_image(project, slide)
        if not slide.complete:
            return Alarm(slide.slide_id, "its handout was interrupted; run `wsi-pipeline handout` again")
        if image is None:
            return Alarm(
                slide.slide_id, "its image is no longer in the project; add it again from project.qpproj.backup"
            )
        data = _read(project, image)
        after = on_the_snapshots_grid(data.objects)
        # Restored to a state from before the last handout, an image is compared with what it held then.
        held = handout_held(run, plan, slide, data)
        slide = held.slide or slide
        before, planted = snapshot_of(run, plan, slide), planted_in(run, plan, slide)
    except WsiError as error:
        return Alarm(slide.slide_id, f"cannot be read: {error}")
    state, log = state_of(image), ImageLog.of(sessions, image.entry_id)
    pairs = match(before, after)
    lost = loss(before, after, pairs, state, log, image.entry_id, project.path)
    if lost is not None:
        return Alarm(slide.slide_id, lost)
    source = source_of(image, log)
    marked = {} if planted is None or planted.planted is None else {planted.planted.uuid: str(planted.kind)}
    occasion = Occasion(
        slide.slide_id,
        slide.patient,
        plan.batch,
        plan.rater,
        str(source),
        state.is_reviewed,
        arm=slide.arm,
        position=slide.position,
        repeat=slide.repeat,
        planted=marked,
    )
    rows = rows_of(occasion, pairs, slide.mpp, tolerance_um)
    try:
        tiles = tiles_of_image(run, slide, occasion, pairs)
    except WsiError as error:
        return Alarm(slide.slide_id, f"cannot be read: {error}")
    own = [o for o in after if o.kind is Kind.ANNOTATION]
    untouched = {p.before.uuid for p in pairs if p.change is Change.UNTOUCHED and p.before is not None}
    if planted is not None:
        known = planted.planted is not None and planted.planted.uuid in untouched
        own, caught = repaired(own, planted, known)
    annotations = tuple(own)
    # What a study planted was the model's error as little as what a person did to it is a correction of the model.
    judged = without_planted(pairs, planted)
    kept = {id(pair) for pair in judged}
    facts = {
        "slide_id": slide.slide_id,
        "patient": slide.patient,
        "arm": slide.arm,
        "position": slide.position,
        "repeat": slide.repeat,
        "planted": None if planted is None else {"kind": planted.kind, "caught": caught and state.is_reviewed},
        "rater": plan.rater,
        "batch": plan.batch,
        "reviewed": state.is_reviewed,
        "state": str(state),
        "counts": count_changes([row for row, pair in zip(rows, pairs, strict=True) if id(pair) in kept]),
        "tiles": tile_figures(after),
        "unclassified": sum(o.path_class is None for o in annotations),
        "classes": class_figures(judged, slide.mpp, tolerance_um),
        "active_s": None,
        "time_source": None,
    }
    changes = changes_of(plan.batch, plan.rater, slide.slide_id, pairs)
    work = work_of(plan, slide, state, pairs)
    return CollectedImage(
        plan,
        slide,
        image.entry_id,
        state,
        source,
        annotations,
        tuple(rows),
        facts,
        tiles,
        changes,
        work,
        judged_tiles(occasion, after),
        held.remark,
        silent=image.metadata.get(META_SOURCE) is None and not log.sources,
    )


def in_one_run(images: Sequence[CollectedImage]) -> list[CollectedImage]:
    """The images of a run; where one of them is simulated, so are those that do not say what they are.

    An image that nobody has opened yet holds nothing that was measured, and in a simulated run nobody will.
    """
    if all(image.source is not Source.SIMULATED for image in images):
        return list(images)
    return [_simulated(image) if image.silent else image for image in images]


def _simulated(image: CollectedImage) -> CollectedImage:
    said = str(Source.SIMULATED)
    return replace(
        image,
        source=Source.SIMULATED,
        rows=tuple(replace(row, source=said) for row in image.rows),
        tiles=tuple(replace(tile, source=said) for tile in image.tiles),
        judged=tuple(replace(tile, source=said) for tile in image.judged),
    )


def _read(project: Project, image: ProjectImage) -> ImageData:
    """What is in an image that QuPath may be saving at this moment: it moves the old file away, then writes."""
    for pause in PAUSES_S:
        try:
            return image.read()
        except WsiError:
            if not _is_being_saved(project, image):
                raise
            time.sleep(pause)
    return image.read()


def _is_being_saved(project: Project, image: ProjectImage) -> bool:
    files = (project.path.parent / "data" / str(image.entry_id)).glob("data.qpdata*")
    try:
        # Of a file that was renamed, only this time is new.
        return any(time.time() - file.stat().st_ctime < SAVES_WITHIN_S for file in files)
    except FileNotFoundError:
        return True  # the backup went just now: the save is done


def on_the_snapshots_grid(objects: Sequence[PathObject]) -> list[PathObject]:
    """The objects with coordinates rounded to 0.01 px, as they were handed out.

    The project stores 32-bit floats. Rounded back, what nobody touched has the very vertices of the snapshot again.
    """
    shapes = np.array([*(o.geometry for o in objects), None], dtype=object)[:-1]
    rounded = shapely.transform(shapes, lambda xy: np.round(xy, 2))
    return [replace(item, geometry=shape) for item, shape in zip(objects, rounded, strict=True)]


def source_of(image: ProjectImage, log: ImageLog) -> Source:
    """Simulated when the image or any log of it says so."""
    said = image.metadata.get(META_SOURCE) == Source.SIMULATED or Source.SIMULATED in log.sources
    return Source.SIMULATED if said else Source.MEASURED


def find_image(project: Project, slide: HandedOutSlide) -> ProjectImage | None:
    """The image of a slide: by its metadata, else by the entry that it was given at the handout."""
    found = [image for image in project.images() if image.metadata.get(META_SLIDE) == slide.tag]
    if len(found) > 1:
        raise ProjectError(f"is in the project {len(found)} times; remove all but one image in QuPath")
    if found:
        return found[0]
    return next((image for image in project.images() if image.entry_id == slide.entry_id), None)
