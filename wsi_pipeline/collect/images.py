"""One image of a project, read and compared with its snapshot; an image that lost objects raises an alarm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from wsi_pipeline.collect.matching import match
from wsi_pipeline.collect.tables import Correction, Occasion, class_figures, count_changes, rows_of
from wsi_pipeline.errors import ProjectError, WsiError
from wsi_pipeline.handout import HandedOutSlide, Plan, snapshot_of
from wsi_pipeline.objects import Kind, PathObject
from wsi_pipeline.qupath import Project, ProjectImage
from wsi_pipeline.rundir import RunDir
from wsi_pipeline.states import META_SLIDE, META_SOURCE, META_STATE, ImageState, Source


@dataclass(frozen=True, slots=True)
class CollectedImage:
    """What was read of one image; `annotations` are those of now, in level-0 px."""

    plan: Plan
    slide: HandedOutSlide
    entry_id: int
    state: ImageState
    source: Source
    annotations: tuple[PathObject, ...]
    rows: tuple[Correction, ...]
    facts: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Alarm:
    """An image that was left out, and what to do."""

    slide_id: str
    text: str

    def __str__(self) -> str:
        return f"{self.slide_id}: {self.text}"


def collect_image(
    run: RunDir, plan: Plan, slide: HandedOutSlide, project: Project, tolerance_um: float
) -> CollectedImage | Alarm:
    """Read one image and compare it; an `Alarm` when it cannot be trusted."""
    try:
        image = find_image(project, slide)
        if image is None:
            return Alarm(
                slide.slide_id, "its image is no longer in the project; add it again from project.qpproj.backup"
            )
        before = snapshot_of(run, plan, slide)
        after = image.read_objects()
    except WsiError as error:
        return Alarm(slide.slide_id, f"cannot be read: {error}")
    state = state_of(image)
    if lost_everything(before, after, reviewed=state.is_reviewed):
        return Alarm(
            slide.slide_id,
            f"all {len(before)} objects that were handed out are gone, as happens when QuPath "
            f"opens a damaged file as an empty image; restore data/{image.entry_id}/data.qpdata from history/, "
            "snapshots/ or a backup",
        )
    source = Source.SIMULATED if image.metadata.get(META_SOURCE) == Source.SIMULATED else Source.MEASURED
    occasion = Occasion(slide.slide_id, slide.patient, plan.batch, plan.rater, str(source), state.is_reviewed)
    rows = rows_of(occasion, match(before, after), slide.mpp, tolerance_um)
    annotations = tuple(o for o in after if o.kind is Kind.ANNOTATION)
    facts = {
        "rater": plan.rater,
        "batch": plan.batch,
        "reviewed": state.is_reviewed,
        "state": str(state),
        "counts": count_changes(rows),
        "unclassified": sum(o.path_class is None for o in annotations),
        "classes": class_figures(before, after, slide.mpp, tolerance_um),
        "active_s": None,
        "time_source": None,
    }
    return CollectedImage(plan, slide, image.entry_id, state, source, annotations, tuple(rows), facts)


def find_image(project: Project, slide: HandedOutSlide) -> ProjectImage | None:
    """The image of a slide: by its metadata, else by the entry that it was given at the handout."""
    found = [image for image in project.images() if image.metadata.get(META_SLIDE) == slide.slide_id]
    if len(found) > 1:
        raise ProjectError(f"is in the project {len(found)} times; remove all but one image in QuPath")
    if found:
        return found[0]
    return next((image for image in project.images() if image.entry_id == slide.entry_id), None)


def state_of(image: ProjectImage) -> ImageState:
    """The review state; a word that is none of ours counts as in progress."""
    word = image.metadata.get(META_STATE, ImageState.TODO).strip().lower()
    return ImageState(word) if word in list(ImageState) else ImageState.IN_PROGRESS


def lost_everything(before: Sequence[PathObject], after: Sequence[PathObject], *, reviewed: bool) -> bool:
    """Whether nothing at all is left of what was handed out, whatever was drawn since.

    Somebody who deletes every region leaves the review tiles, which no brush touches. Where no tile was handed out,
    a few regions may all be wrong and deleted on purpose; many of them only when the image is said to be reviewed.
    """
    left = {o.uuid for o in before} & {o.uuid for o in after}
    if left or not before:
        return False
    return any(o.kind is Kind.TILE for o in before) or (len(before) > 3 and not reviewed)
