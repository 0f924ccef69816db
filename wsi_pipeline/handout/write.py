"""Writing the project of a batch: images, classes, pre-annotations and flagged tiles."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from wsi_pipeline import audit
from wsi_pipeline.config import PURPOSE, Handout
from wsi_pipeline.errors import ProjectError, WsiError
from wsi_pipeline.files import read_json, write_bytes, write_json, write_text
from wsi_pipeline.handout.budget import over_budget
from wsi_pipeline.handout.frame import check_frame
from wsi_pipeline.handout.images import Batch, HandoutResult, HandoutSlide
from wsi_pipeline.handout.keycard import key_card, study_card
from wsi_pipeline.handout.plan import BATCH, Plan, plan_path, read_plan
from wsi_pipeline.objects import RGB, Kind, PathClass
from wsi_pipeline.qupath import Project, ProjectImage, create_project, open_project
from wsi_pipeline.qupath.builders import slide_uri
from wsi_pipeline.qupath.history import keep_first, tend
from wsi_pipeline.qupath.lease import hold, refuse_while_open
from wsi_pipeline.resources import resource
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

logger = logging.getLogger(__name__)

# Offered in QuPath beside the model's classes, so that nobody has to invent them.
IGNORE = PathClass("Ignore*", (180, 180, 180))
REVIEW = PathClass(REVIEW_CLASS, (240, 170, 0))
HANDED_OUT = "handed_out"
EXTRA_COLORS: tuple[RGB, ...] = ((50, 120, 190), (0, 150, 110), (150, 110, 60), (120, 80, 160), (90, 90, 90))


@dataclass(frozen=True, slots=True)
class Part:
    """Which batch is written: its names, its project from the run directory, and what the rater should know."""

    batch: str
    rater: str
    project: str
    study: bool = False
    blind: bool = False
    planted: bool = False
    ordered: bool = False
    guideline: tuple[str, bytes] | None = None
    purpose: str = PURPOSE
    budget_told: bool = False
    """Whether what is too much for QuPath was said already, of all batches together."""

    @classmethod
    def alone(
        cls, run: RunDir, settings: Handout, guideline: tuple[str, bytes] | None = None, purpose: str = PURPOSE
    ) -> Part:
        """The one project of one rater, without a study."""
        project = run.project.relative_to(run.root).as_posix()
        return cls(BATCH, settings.rater, project, guideline=guideline, purpose=purpose)


def hand_out(
    run: RunDir,
    settings: Handout,
    classes: Sequence[PathClass],
    slides: Sequence[HandoutSlide],
    part: Part | None = None,
) -> HandoutResult:
    """Write or go on with the project of a batch (without `part`: of the first); the same input changes no byte.

    The snapshot and the plan are on disk before the project is touched. An image that is there already keeps what a
    person did: objects of an older run go only where nobody touched them and nobody has reviewed the image.

    Raises
    ------
    ProjectError
        The project as a whole cannot be written or does not belong to this run; somebody else works on it, or QuPath
        has it open and there is something new to write.
    StoreError
        audit.jsonl is damaged: then nothing is written.
    """
    part = part or Part.alone(run, settings)
    audit.require_sound(run.root)
    path = run.root / part.project
    path.parent.mkdir(parents=True, exist_ok=True)
    with hold(path.parent):
        return _written(run, settings, classes, slides, part, path)


def _written(
    run: RunDir,
    settings: Handout,
    classes: Sequence[PathClass],
    slides: Sequence[HandoutSlide],
    part: Part,
    path: Path,
) -> HandoutResult:
    plan = _plan(run, part)
    # Of all images, before the first is written: what is too much can still be handed out otherwise.
    budget = {slide.slide_id: too_much for slide in slides if (too_much := over_budget(slide.objects))}
    remarks = [f"{slide_id}: {text}" for slide_id, texts in budget.items() for text in texts]
    if not part.budget_told:
        for remark in remarks:
            logger.warning("%s", remark)
    project = open_project(path, settings.backend) if path.exists() else create_project(path, settings.backend)
    wanted = _classes(project.path_classes, classes, settings)
    if tuple(wanted) != project.path_classes or not all(_is_there(plan, slide) for slide in slides):
        # QuPath would write over it at its next save. A handout that changes nothing may go on beside it.
        refuse_while_open(path.parent, ours=True)
    project.path_classes = wanted
    colors = {c.name: c.color for c in project.path_classes if c.color is not None}
    batch = Batch(run, plan, project, colors, HandoutResult(path, projects=[path], budget=budget, warnings=remarks))
    for order, slide in enumerate(slides, start=1):
        try:
            _hand_out_slide(batch, settings, slide, order, part)
        except WsiError as error:
            logger.error("%s: %s", slide.slide_id, error)
            batch.result.problems.append(f"{slide.slide_id}: {error}")
    project.save()
    _keep_copies(project, batch.plan, settings.keep_copies)
    _companions(path.parent, batch.plan, part, batch.result.warnings)
    _note(run, batch.plan)
    batch.result.images = len(project.images())
    return batch.result


def _is_there(plan: Plan, slide: HandoutSlide) -> bool:
    """Whether exactly this was handed out of a slide already."""
    known = plan.slide(slide.slide_id)
    return known is not None and known.complete and known.key == slide.key


def _keep_copies(project: Project, plan: Plan, keep: int) -> None:
    """The first state of each image is kept for good; older copies go, as many as the configuration says stay."""
    root = project.path.parent
    names = {image.entry_id: image.name for image in project.images()}
    for slide in plan.slides:
        if slide.complete and slide.entry_id in names:
            keep_first(root, slide.entry_id, names[slide.entry_id])
    tend(project.path, keep)


def _plan(run: RunDir, part: Part) -> Plan:
    fresh = Plan(batch=part.batch, rater=part.rater, project=part.project, slides=())
    path = plan_path(run, fresh.folder)
    if not path.exists():
        return fresh
    plan = read_plan(path)
    if plan.rater != part.rater:
        raise ProjectError(
            f"{plan.batch} was handed out to {plan.rater}, the configuration names {part.rater}; "
            "a project never changes hands: use another output for another rater"
        )
    return plan


def _classes(there: Sequence[PathClass], model: Sequence[PathClass], settings: Handout) -> list[PathClass]:
    """The classes that are there, as a person may have recoloured them, and those that are missing."""
    extra = [PathClass(name, EXTRA_COLORS[i % len(EXTRA_COLORS)]) for i, name in enumerate(settings.classes)]
    wanted = {c.name: c for c in [*extra, REVIEW, IGNORE, *model]}
    names = [c.name for c in there]
    order = [*names, *(name for name in (*[c.name for c in model], *settings.classes) if name not in names)]
    order += [c.name for c in (IGNORE, REVIEW) if c.name not in order]
    known = {c.name: c for c in there}
    return [known.get(name) or wanted[name] for name in dict.fromkeys(order)]


def _hand_out_slide(batch: Batch, settings: Handout, slide: HandoutSlide, order: int, part: Part) -> None:
    # A slide that QuPath could not open is refused before anything is written down about it.
    uri = slide_uri(seen_by_the_rater(slide.uri, settings.slide_uris))
    image = _image_of(batch.project, batch.plan, slide)
    if image is None:
        batch.begin(slide, uri)
        image = batch.project.add_image(
            uri,
            slide.case or slide.name,
            size=slide.size,
            mpp=slide.mpp,
            mpp_source=slide.mpp_source,
            levels=slide.levels,
            crop=slide.crop,
            image_type=settings.image_type,
            metadata=_metadata(batch.plan, slide, order, part),
            thumbnail=slide.thumbnail,
            here=slide.uri,
        )
        # The slide is in the project from here on, even if something later in the batch goes wrong.
        batch.project.save()
        batch.result.added += 1
    written = batch.bring_up_to_date(slide, image)
    objects = image.read_objects()
    batch.result.objects += len(objects)
    if written:
        check_frame(image, objects, slide.objects, slide.size, slide.tissue)


def _image_of(project: Project, plan: Plan, slide: HandoutSlide) -> ProjectImage | None:
    found = [image for image in project.images() if image.metadata.get(META_SLIDE) == slide.tag]
    if len(found) > 1:
        raise ProjectError(f"{project.path} holds this slide {len(found)} times; remove all but one image in QuPath")
    known = plan.slide(slide.slide_id)
    if not found and known is not None and known.entry_id is not None:
        raise ProjectError("its image was removed from the project by hand; it is not added again")
    return found[0] if found else None


def _metadata(plan: Plan, slide: HandoutSlide, order: int, part: Part) -> dict[str, str]:
    """What QuPath shows beside an image. A manual arm tells nothing that a model said."""
    known = {
        META_SLIDE: slide.tag,
        META_STATE: str(ImageState.TODO),
        META_BATCH: plan.batch,
        META_RATER: plan.rater,
        META_ARM: slide.arm,
    }
    if slide.arm == "manual":
        return known
    words = {META_FLAGS: "; ".join(slide.flags)} if slide.flags else {}
    if part.ordered:
        # Beside a manual arm the plan says in which order images are read, not the model.
        return {**words, **known}
    flagged = sum(o.kind is Kind.TILE for o in slide.objects)
    # Sorted as text by QuPath: images with more to look at come first.
    return {**words, **known, META_PRIORITY: f"{max(0, 9999 - flagged):04d}-{order:05d}"}


def seen_by_the_rater(uri: str, rules: Mapping[str, str]) -> str:
    """The slide's address on the pathologist's machine: the longest prefix that a rule maps."""
    for prefix in sorted(rules, key=len, reverse=True):
        if uri.startswith(prefix):
            return rules[prefix] + uri.removeprefix(prefix)
    return uri


def _note(run: RunDir, plan: Plan) -> None:
    """A line in audit.jsonl for each slide that was given out anew; the same handout adds none."""
    told = {
        (line["facts"]["batch"], line["facts"]["rater"], line["image"]): line["after"]
        for line in audit.read(run.root)
        if line["action"] == HANDED_OUT
    }
    entries = []
    for slide in plan.slides:
        before = told.get((plan.batch, plan.rater, slide.slide_id))
        if slide.complete and before != slide.sha256:
            facts = {"batch": plan.batch, "rater": plan.rater, "run_id": slide.run_id, "objects": slide.objects}
            entries.append(
                audit.AuditEntry("wsi-pipeline", HANDED_OUT, slide.slide_id, None, before, slide.sha256, facts)
            )
    audit.append(run.root, entries)


def _companions(folder: Path, plan: Plan, part: Part, warnings: list[str]) -> None:
    """The marker that wakes the scripts, the scripts, the folder for events, the key card and the guideline."""
    run_id = plan.slides[0].run_id if plan.slides else None
    marker = {"schema": 1, "project": plan.project, "batch": plan.batch, "rater": plan.rater, "run_id": run_id}
    path = folder / MARKER
    if not path.exists() or read_json(path) != marker:
        write_json(path, marker)
    (folder / EVENTS).mkdir(exist_ok=True)
    card = folder / "HOW_TO_REVIEW.md"
    if not card.exists():
        text = key_card(part.purpose)
        if part.study:
            text = study_card(
                part.purpose,
                arms={s.arm for s in plan.slides},
                blind=part.blind,
                planted=part.planted,
                guideline=part.guideline and part.guideline[0],
            )
        write_text(card, text)
    if part.guideline is not None:
        name, content = part.guideline
        target = folder / name
        if not target.exists():
            write_bytes(target, content)
        elif target.read_bytes() != content:
            warnings.append(f"{plan.folder}: the guideline has changed; the project keeps the one it was given with")
    # QuPath lists what lies here under Automate > Project scripts.
    for script in sorted(resource("qupath_scripts").glob("*.groovy")):
        target, data = folder / "scripts" / script.name, script.read_bytes()
        if not target.exists() or target.read_bytes() != data:
            write_bytes(target, data)
