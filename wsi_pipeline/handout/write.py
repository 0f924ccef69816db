"""Writing the project of a batch: images, classes, pre-annotations and flagged tiles."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import shapely
from numpy.typing import NDArray

from wsi_pipeline.config import Handout
from wsi_pipeline.errors import ProjectError, WsiError
from wsi_pipeline.files import write_json, write_text
from wsi_pipeline.handout.budget import over_budget
from wsi_pipeline.handout.keycard import KEY_CARD
from wsi_pipeline.handout.plan import (
    BATCH,
    HandedOutSlide,
    Plan,
    plan_path,
    read_plan,
    snapshot_of,
    write_plan,
    write_snapshot,
)
from wsi_pipeline.objects import RGB, Kind, PathClass, PathObject
from wsi_pipeline.qupath import Project, ProjectImage, create_project, open_project
from wsi_pipeline.qupath.frames import plan_replacement
from wsi_pipeline.qupath.protocol import LevelLike
from wsi_pipeline.rundir import RunDir
from wsi_pipeline.states import (
    EVENTS,
    MARKER,
    META_ARM,
    META_BATCH,
    META_PRIORITY,
    META_RATER,
    META_SLIDE,
    META_STATE,
    REVIEW_CLASS,
    ImageState,
)
from wsi_pipeline.tiling import Bounds

logger = logging.getLogger(__name__)

# Offered in QuPath beside the model's classes, so that nobody has to invent them.
IGNORE = PathClass("Ignore*", (180, 180, 180))
REVIEW = PathClass(REVIEW_CLASS, (240, 170, 0))
EXTRA_COLORS: tuple[RGB, ...] = ((50, 120, 190), (0, 150, 110), (150, 110, 60), (120, 80, 160), (90, 90, 90))


@dataclass(frozen=True, slots=True)
class HandoutSlide:
    """One slide that is ready to be handed out; lengths in level-0 px, `objects` in level-0 px."""

    slide_id: str
    name: str
    uri: str
    size: tuple[int, int]
    mpp: float
    mpp_source: str
    levels: Sequence[LevelLike]
    crop: Bounds | None
    patient: str | None
    run_id: str
    objects: Sequence[PathObject]
    thumbnail: NDArray[np.uint8] | None


@dataclass(slots=True)
class HandoutResult:
    """What is in the project now, what a person should know, and which slides could not be handed out."""

    project: Path
    images: int = 0
    objects: int = 0
    added: int = 0
    replaced: int = 0
    warnings: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def hand_out(
    run: RunDir, settings: Handout, classes: Sequence[PathClass], slides: Sequence[HandoutSlide]
) -> HandoutResult:
    """Write or go on with the project of the first batch; the same input changes no byte.

    The snapshot and the plan are on disk before the project is touched. An image that is there already keeps what a
    person did: objects of an older run go only where nobody touched them and nobody has reviewed the image.

    Raises
    ------
    ProjectError
        The project as a whole cannot be written or does not belong to this run.
    """
    result = HandoutResult(run.project)
    plan = _plan(run, settings)
    project = _project(run, settings)
    project.path_classes = _classes(project.path_classes, classes, settings)
    colors = {c.name: c.color for c in project.path_classes if c.color is not None}
    for order, slide in enumerate(slides, start=1):
        try:
            plan = _hand_out_slide(run, settings, plan, project, slide, order, colors, result)
        except WsiError as error:
            logger.error("%s: %s", slide.slide_id, error)
            result.problems.append(f"{slide.slide_id}: {error}")
    project.save()
    _companions(run, plan)
    result.images = len(project.images())
    return result


def _plan(run: RunDir, settings: Handout) -> Plan:
    path = plan_path(run)
    if path.exists():
        plan = read_plan(path)
        if plan.rater != settings.rater:
            raise ProjectError(
                f"{plan.batch} was handed out to {plan.rater}, the configuration names {settings.rater}; "
                "a project never changes hands: use another output for another rater"
            )
        return plan
    return Plan(batch=BATCH, rater=settings.rater, project=run.project.relative_to(run.root).as_posix(), slides=())


def _project(run: RunDir, settings: Handout) -> Project:
    if run.project.exists():
        return open_project(run.project, settings.backend)
    return create_project(run.project, settings.backend)


def _classes(there: Sequence[PathClass], model: Sequence[PathClass], settings: Handout) -> list[PathClass]:
    """The classes that are there, as a person may have recoloured them, and those that are missing."""
    extra = [PathClass(name, EXTRA_COLORS[i % len(EXTRA_COLORS)]) for i, name in enumerate(settings.classes)]
    wanted = {c.name: c for c in [*extra, REVIEW, IGNORE, *model]}
    names = [c.name for c in there]
    order = [*names, *(name for name in (*[c.name for c in model], *settings.classes) if name not in names)]
    order += [c.name for c in (IGNORE, REVIEW) if c.name not in order]
    known = {c.name: c for c in there}
    return [known.get(name) or wanted[name] for name in dict.fromkeys(order)]


def _hand_out_slide(
    run: RunDir,
    settings: Handout,
    plan: Plan,
    project: Project,
    slide: HandoutSlide,
    order: int,
    colors: dict[str, RGB],
    result: HandoutResult,
) -> Plan:
    uri = seen_by_the_rater(slide.uri, settings.slide_uris)
    result.warnings += [f"{slide.slide_id}: {text}" for text in over_budget(slide.objects)]
    image = _image_of(project, plan, slide)
    before = plan.slide(slide.slide_id)
    if image is None:
        plan = _record(run, plan, slide, uri, slide.objects, None, colors)
        image = project.add_image(
            uri,
            slide.name,
            size=slide.size,
            mpp=slide.mpp,
            mpp_source=slide.mpp_source,
            levels=slide.levels,
            crop=slide.crop,
            image_type=settings.image_type,
            metadata=_metadata(plan, slide, order),
            thumbnail=slide.thumbnail,
        )
        # The slide is in the project from here on, even if something later in the batch goes wrong.
        project.save()
        project.add_objects(image, slide.objects)
        result.added += 1
        plan = _record(run, plan, slide, uri, slide.objects, image.entry_id, colors)
    elif before is not None and before.run_id != slide.run_id:
        plan = _renew(run, plan, project, image, slide, before, colors, result)
    else:
        # A call that was killed between the image and its objects left some out.
        handed = snapshot_of(run, plan, before) if before is not None else list(slide.objects)
        if _never_opened(image) and not image.read_objects():
            project.add_objects(image, handed)
    _check_frame(image, slide)
    result.objects += len(image.read_objects())
    return plan


def _record(
    run: RunDir,
    plan: Plan,
    slide: HandoutSlide,
    uri: str,
    objects: Sequence[PathObject],
    entry_id: int | None,
    colors: dict[str, RGB],
) -> Plan:
    name, sha256 = write_snapshot(run, plan.batch, slide.slide_id, slide.run_id, objects, colors)
    plan = plan.with_slide(
        HandedOutSlide(
            slide_id=slide.slide_id,
            name=slide.name,
            uri=uri,
            entry_id=entry_id,
            width=slide.size[0],
            height=slide.size[1],
            mpp=slide.mpp,
            patient=slide.patient,
            run_id=slide.run_id,
            snapshot=name,
            sha256=sha256,
            objects=len(objects),
        )
    )
    write_plan(run, plan)
    return plan


def _renew(
    run: RunDir,
    plan: Plan,
    project: Project,
    image: ProjectImage,
    slide: HandoutSlide,
    before: HandedOutSlide,
    colors: dict[str, RGB],
    result: HandoutResult,
) -> Plan:
    """Put a newer model's predictions where nobody has worked yet."""
    if _state(image).is_reviewed:
        result.warnings.append(f"{slide.slide_id}: is reviewed already, keeps what the older model predicted")
        return plan
    old = snapshot_of(run, plan, before)
    change = plan_replacement(image.read_objects(), before.run_id, slide.objects, old)
    # What goes leaves the snapshot with it; what a person touched or deleted stays there, to be compared with.
    snapshot = [o for o in old if o.uuid not in change.going]
    snapshot += [o for o in change.new if o.uuid not in {s.uuid for s in snapshot}]
    plan = _record(run, plan, slide, before.uri, snapshot, image.entry_id, colors)
    done = project.replace_run_objects(image, before.run_id, slide.objects, old)
    result.replaced += done.replaced
    if done.kept:
        result.warnings.append(f"{slide.slide_id}: {done.kept} predictions that a person touched were kept")
    return plan


def _image_of(project: Project, plan: Plan, slide: HandoutSlide) -> ProjectImage | None:
    found = [image for image in project.images() if image.metadata.get(META_SLIDE) == slide.slide_id]
    if len(found) > 1:
        raise ProjectError(f"{project.path} holds this slide {len(found)} times; remove all but one image in QuPath")
    known = plan.slide(slide.slide_id)
    if not found and known is not None and known.entry_id is not None:
        raise ProjectError("its image was removed from the project by hand; it is not added again")
    return found[0] if found else None


def _metadata(plan: Plan, slide: HandoutSlide, order: int) -> dict[str, str]:
    flagged = sum(o.kind is Kind.TILE for o in slide.objects)
    return {
        META_SLIDE: slide.slide_id,
        META_STATE: str(ImageState.TODO),
        META_BATCH: plan.batch,
        META_RATER: plan.rater,
        META_ARM: plan.arm,
        # Sorted as text by QuPath: images with more to look at come first.
        META_PRIORITY: f"{max(0, 9999 - flagged):04d}-{order:05d}",
    }


def _state(image: ProjectImage) -> ImageState:
    text = image.metadata.get(META_STATE, "")
    return ImageState(text) if text in list(ImageState) else ImageState.IN_PROGRESS


def _never_opened(image: ProjectImage) -> bool:
    return image.metadata.get(META_STATE) == ImageState.TODO


def _check_frame(image: ProjectImage, slide: HandoutSlide) -> None:
    """Everything that came from the slide must lie on the slide as the project shows it."""
    frame = shapely.box(-1, -1, slide.size[0] + 1, slide.size[1] + 1)
    shapely.prepare(frame)
    ours = {o.uuid for o in slide.objects}
    for item in image.read_objects():
        if item.uuid in ours and item.geometry is not None and not frame.covers(item.geometry):
            raise ProjectError("its predictions do not lie on the image as QuPath shows it (rotated or cropped?)")


def seen_by_the_rater(uri: str, rules: Mapping[str, str]) -> str:
    """The slide's address on the pathologist's machine: the longest prefix that a rule maps."""
    for prefix in sorted(rules, key=len, reverse=True):
        if uri.startswith(prefix):
            return rules[prefix] + uri.removeprefix(prefix)
    return uri


def _companions(run: RunDir, plan: Plan) -> None:
    """The marker that wakes the scripts, the folder for events, and the key card."""
    folder = run.project.parent
    run_id = plan.slides[0].run_id if plan.slides else None
    marker = {"schema": 1, "project": plan.project, "batch": plan.batch, "rater": plan.rater, "run_id": run_id}
    path = folder / MARKER
    if not path.exists():
        write_json(path, marker)
    (folder / EVENTS).mkdir(exist_ok=True)
    card = folder / "HOW_TO_REVIEW.md"
    if not card.exists():
        write_text(card, KEY_CARD)
