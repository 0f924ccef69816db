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
from wsi_pipeline.files import sha256_bytes, write_json, write_text
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
    META_FLAGS,
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
    flags: Sequence[str] = ()

    @property
    def key(self) -> str:
        """Sixteen hex digits of what is handed out: recipe, resolution and objects."""
        parts = (self.run_id, repr(self.mpp), *sorted(o.uuid for o in self.objects))
        return sha256_bytes("\n".join(parts).encode())[:16]


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
            # What was recorded before it went wrong is on disk, and must not be forgotten by the next slide.
            plan = _plan(run, settings)
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
    known = plan.slide(slide.slide_id)
    if image is None:
        known = _entry(run, plan, slide, uri, slide.objects, colors, complete=False)
        plan = _keep(run, plan, known)
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
        result.added += 1
    if known is None:
        raise ProjectError("is in the project, but not in the plan; restore plan.json from a backup")
    if known.complete and known.key != slide.key:
        known = _renewed(run, plan, image, slide, known, colors, result)
        plan = _keep(run, plan, known)
    if not known.complete:
        _write_objects(run, plan, project, image, slide, known, result)
        plan = _keep(
            run, plan, known.model_copy(update={"entry_id": image.entry_id, "complete": True, "previous": None})
        )
    _check_frame(image, slide)
    result.objects += len(image.read_objects())
    return plan


def _write_objects(
    run: RunDir,
    plan: Plan,
    project: Project,
    image: ProjectImage,
    slide: HandoutSlide,
    known: HandedOutSlide,
    result: HandoutResult,
) -> None:
    """Bring the objects into the project; done twice after a kill, it does nothing twice."""
    if known.previous is None:
        project.add_objects(image, snapshot_of(run, plan, known))
        return
    old = snapshot_of(run, plan, known.previous)
    done = project.replace_run_objects(image, known.previous.run_id, slide.objects, old)
    result.replaced += done.replaced
    if done.kept:
        result.warnings.append(f"{slide.slide_id}: {done.kept} predictions that a person touched were kept")


def _entry(
    run: RunDir,
    plan: Plan,
    slide: HandoutSlide,
    uri: str,
    objects: Sequence[PathObject],
    colors: dict[str, RGB],
    *,
    complete: bool,
    previous: HandedOutSlide | None = None,
) -> HandedOutSlide:
    """Write the snapshot, and say what the plan has to know of it."""
    name, sha256 = write_snapshot(run, plan.batch, slide.slide_id, slide.key, objects, colors)
    return HandedOutSlide(
        slide_id=slide.slide_id,
        name=slide.name,
        uri=uri,
        entry_id=previous.entry_id if previous else None,
        width=slide.size[0],
        height=slide.size[1],
        mpp=slide.mpp,
        patient=slide.patient,
        run_id=slide.run_id,
        key=slide.key,
        snapshot=name,
        sha256=sha256,
        objects=len(objects),
        complete=complete,
        previous=previous,
    )


def _keep(run: RunDir, plan: Plan, entry: HandedOutSlide) -> Plan:
    plan = plan.with_slide(entry)
    write_plan(run, plan)
    return plan


def _renewed(
    run: RunDir,
    plan: Plan,
    image: ProjectImage,
    slide: HandoutSlide,
    known: HandedOutSlide,
    colors: dict[str, RGB],
    result: HandoutResult,
) -> HandedOutSlide:
    """What is to be handed out now that predictions changed; as before where somebody has reviewed already."""
    if known.mpp != slide.mpp:
        raise ProjectError(
            f"was handed out with {known.mpp:g} µm/px and has {slide.mpp:g} now; QuPath would keep the old "
            "calibration: hand out into a new `output`"
        )
    if _state(image).is_reviewed:
        result.warnings.append(f"{slide.slide_id}: is reviewed already, keeps what was handed out before")
        return known
    old = snapshot_of(run, plan, known)
    change = plan_replacement(image.read_objects(), known.run_id, slide.objects, old)
    # What goes leaves the snapshot with it; what a person touched or deleted stays there, to be compared with.
    snapshot = [o for o in old if o.uuid not in change.going]
    present = {o.uuid for o in snapshot}
    snapshot += [o for o in change.new if o.uuid not in present]
    return _entry(run, plan, slide, known.uri, snapshot, colors, complete=False, previous=known)


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
    words = {META_FLAGS: "; ".join(slide.flags)} if slide.flags else {}
    return {
        **words,
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
