"""From predicted slides to the QuPath project of the batch."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wsi_pipeline.cohort import SlideRef
from wsi_pipeline.config import PURPOSE, Config, Handout
from wsi_pipeline.errors import ConfigError, ProjectError, StoreError, WsiError
from wsi_pipeline.files import read_json
from wsi_pipeline.handout import (
    Case,
    Design,
    HandoutResult,
    HandoutSlide,
    Part,
    PlannedSlide,
    PlantedObjects,
    Study,
    StudyBatch,
    batches_alone,
    extend_study,
    hand_out,
    note_handout,
    over_budget,
    plan_path,
    plant,
    read_plans,
    read_study,
    waits_for,
    write_study,
)
from wsi_pipeline.objects import PathClass, PathObject
from wsi_pipeline.progress import LogProgress, Progress
from wsi_pipeline.qupath import read_geojson
from wsi_pipeline.regions import read_tiles, tile_objects
from wsi_pipeline.rundir import RunDir
from wsi_pipeline.slides import TissueMask, open_slide
from wsi_pipeline.stages.lock import exclusive
from wsi_pipeline.stages.state import HandoutRecord, RunRecord, SlideRecord, located, read_run

logger = logging.getLogger(__name__)

# Below this share of the tissue a slide is one with little predicted.
LITTLE_PREDICTED = 0.1


def hand_out_run(
    config: Config, *, progress: Progress | None = None, only: Sequence[str] = (), force: str | None = None
) -> HandoutResult:
    """Hand out every slide that is done; in a study every batch that is due.

    Parameters
    ----------
    only
        Names of batches of a study; without them all that are due.
    force
        Why a wash-out may be cut short; written down beside the batch.

    Raises
    ------
    StoreError, ProjectError
        There is no run, or a project cannot be written.
    ConfigError
        No slide is done yet, the configuration is of another study, or a named batch is not there or not due.
    """
    progress = progress or LogProgress()
    run = RunDir(config.output)
    guideline = _guideline(config)
    with exclusive(run.lock):
        record, done = _done(run)
        study, batches = _study(config, run, record, done)
        if study is None and only:
            raise ConfigError(
                f"there is no batch {only[0]} to choose: the configuration names no `handout.raters`, and one rater "
                "gets every slide; leave --batch out"
            )
        known = {} if record.handout is None else record.handout.over_budget
        problems: list[str] = []
        slides: dict[str, HandoutSlide] = {}
        progress.begin("handout", len(done))
        for slide_id, slide in done.items():
            try:
                there = slide.model_copy(update={"uri": located(config, slide_id, slide)})
                slides[slide_id] = _ready(run, record, slide_id, there)
            except WsiError as error:
                problems.append(str(error))
            except (OSError, ValueError, KeyError) as error:
                problems.append(f"{slide_id}: its results cannot be read ({error}); run `wsi-pipeline predict` again")
            progress.finish(slide_id, "read")
        classes = [PathClass(c["name"], tuple(c["color"])) for c in record.model["classes"]]
        if study is None:
            result = hand_out_alone(
                run, config.handout, classes, list(slides.values()), guideline, config.privacy.purpose
            )
        else:
            # The plan and its hash are on disk before the first image is.
            study = write_study(run, study, Design.of(config.handout), batches)
            record = _with_handout(run, record, HandoutRecord(plan_sha256=study.sha256, over_budget=known))
            due, _ = _due(run, study, only, force)
            result = hand_out_study(run, config.handout, classes, slides, due, guideline, config.privacy.purpose)
            result.waiting += _due(run, study, only, force)[1]
        progress.end()
        if study is not None or result.budget or record.handout is not None:
            sha256 = None if study is None else study.sha256
            _with_handout(
                run, record, HandoutRecord(plan_sha256=sha256, over_budget={**(known if only else {}), **result.budget})
            )
    result.problems[:0] = problems
    return result


def planned(config: Config) -> tuple[Study, list[StudyBatch]]:
    """The plan as it is and the batches that a handout would add to it; nothing is written.

    Raises
    ------
    ConfigError
        The configuration names no `handout.raters`, or is of another study.
    """
    run = RunDir(config.output)
    record, done = _done(run)
    study, batches = _study(config, run, record, done)
    if study is None:
        raise ConfigError("there is no study to plan: name `handout.raters`; one rater gets every slide in one project")
    return study, batches


def states_of(config: Config, study: Study) -> dict[str, str]:
    """By batch: that it was handed out, that it can be, or why it cannot be yet."""
    run, now = RunDir(config.output), datetime.now(UTC)
    return {
        batch.name: "handed out"
        if plan_path(run, batch.name).exists()
        else waits_for(run, study, batch, now) or "planned"
        for batch in study.batches
    }


def _done(run: RunDir) -> tuple[RunRecord, dict[str, SlideRecord]]:
    record = read_run(run.run_json)
    done = {slide_id: slide for slide_id, slide in record.slides.items() if slide.state == "done"}
    if not done:
        raise ConfigError(f"no slide in {run.root} is predicted yet; run `wsi-pipeline predict` first")
    return record, done


def _study(
    config: Config, run: RunDir, record: RunRecord, done: Mapping[str, SlideRecord]
) -> tuple[Study | None, list[StudyBatch]]:
    """The study as it stands and what is to be added; None where the configuration names no raters."""
    study = read_study(run)
    known = None if record.handout is None else record.handout.plan_sha256
    if known is not None and known not in study.hashes:
        raise StoreError(f"the plan in {run.handout} is not the one that run.json names; restore it from a backup")
    if not config.handout.raters:
        if study.design is not None:
            raise ConfigError(f"{run.root} holds a study; name its `handout.raters`, or use another `output`")
        return None, []
    if study.design is None and next(run.handout.glob("*/plan.json"), None) is not None:
        raise ConfigError(
            f"{run.root} was handed out without a plan; a study has one before that: use another `output`"
        )
    slides = [PlannedSlide(i, _stratum(config, run, i, slide)) for i, slide in done.items()]
    return study, extend_study(study, Design.of(config.handout), slides, config.handout.batch_size)


def _stratum(config: Config, run: RunDir, slide_id: str, slide: SlideRecord) -> str:
    """The group of a slide, by itself alone: other slides of the cohort do not move it."""
    parts = []
    for key in config.handout.stratify:
        if key == "predicted":
            summary = read_json(run.slide(slide_id).summary)
            tissue, area = summary.get("tissue_mm2") or 0.0, sum((summary.get("area_mm2") or {}).values())
            share = area / tissue if tissue else 0.0
            parts.append("nothing" if not area else "little" if share < LITTLE_PREDICTED else "much")
        else:
            parts.append(getattr(slide, key) or "unknown")
    return " | ".join(parts)


def _due(
    run: RunDir, study: Study, only: Sequence[str], force: str | None
) -> tuple[list[tuple[StudyBatch, str | None]], list[str]]:
    """Batches to write, with what was overridden for each; and those that wait, in plain words."""
    unknown = sorted(set(only) - {batch.name for batch in study.batches})
    if unknown:
        names = ", ".join(batch.name for batch in study.batches)
        raise ConfigError(f"there is no batch {unknown[0]}; known here: {names}")
    now = datetime.now(UTC)
    due: list[tuple[StudyBatch, str | None]] = []
    waiting = []
    for batch in study.batches:
        if only and batch.name not in only:
            continue
        why = waits_for(run, study, batch, now)
        if why is None:
            due.append((batch, None))
        elif only and force is not None:
            due.append((batch, f"{force} ({why})"))
        elif only:
            raise ConfigError(f"{batch.name}: {why}; `--force REASON` hands it out all the same and keeps the reason")
        else:
            waiting.append(f"{batch.name}: {why}")
    return due, waiting


def hand_out_study(
    run: RunDir,
    settings: Handout,
    classes: Sequence[PathClass],
    slides: Mapping[str, HandoutSlide],
    due: Sequence[tuple[StudyBatch, str | None]],
    guideline: tuple[str, bytes] | None = None,
    purpose: str = PURPOSE,
) -> HandoutResult:
    """Write the projects of these batches; one that cannot be written now is a problem, and the others go on."""
    total = HandoutResult(run.root / "projects")
    names = [c.name for c in classes]
    _tell_budget(slides[i] for i in dict.fromkeys(c.slide_id for b, _ in due for c in b.cases) if i in slides)
    for batch, forced in due:
        note_handout(run, batch, datetime.now(UTC), forced)
        part = Part(
            batch.batch,
            batch.rater,
            batch.project,
            study=True,
            blind=settings.blind,
            planted=settings.planted.share > 0,
            ordered=settings.arms != ("assisted",),
            guideline=guideline,
            purpose=purpose,
            budget_told=True,
        )
        given = [_given(slides[c.slide_id], c, names, settings, batch) for c in batch.cases if c.slide_id in slides]
        try:
            done = hand_out(run, settings, classes, given, part)
        except ProjectError as error:
            # One rater who has the project open does not keep the others waiting.
            total.problems.append(f"{batch.name}: {error}")
            continue
        total.project = done.project if len(due) == 1 else total.project
        total.add(batch.name, done)
    return total


def hand_out_alone(
    run: RunDir,
    settings: Handout,
    classes: Sequence[PathClass],
    slides: Sequence[HandoutSlide],
    guideline: tuple[str, bytes] | None = None,
    purpose: str = PURPOSE,
) -> HandoutResult:
    """Write the project of the one rater, or several where there are more slides than fit into one."""
    batches = batches_alone(slides, read_plans(run), settings.rater, settings.batch_size)
    total = HandoutResult(run.root)
    _tell_budget(slides)
    for number, project, own in batches:
        part = Part(f"batch-{number}", settings.rater, project, guideline=guideline, purpose=purpose, budget_told=True)
        if len(batches) == 1:
            return hand_out(run, settings, classes, own, part)
        try:
            total.add(part.batch, hand_out(run, settings, classes, own, part))
        except ProjectError as error:
            total.problems.append(f"{part.batch}: {error}")
    return total


def _tell_budget(slides: Iterable[HandoutSlide]) -> None:
    """Say what is too much for QuPath, of every image of every batch, before the first project is written."""
    for slide in slides:
        for text in over_budget(slide.objects):
            logger.warning("%s: %s", slide.slide_id, text)


def _given(
    slide: HandoutSlide, case: Case, classes: Sequence[str], settings: Handout, batch: StudyBatch
) -> HandoutSlide:
    """A slide as one rater gets it."""
    objects: Sequence[PathObject] = slide.objects if case.arm == "assisted" else ()
    planted: PlantedObjects | None = None
    if case.planted is not None:
        objects, planted = plant(
            objects,
            case.planted,
            seed=f"{settings.seed} {batch.name} {case.slide_id}",
            run_id=slide.run_id,
            slide_id=slide.slide_id,
            size=slide.size,
            classes=[*classes, *settings.classes],
        )
    return replace(
        slide,
        objects=objects,
        arm=case.arm,
        position=case.position,
        repeat=case.repeat,
        case=case.name,
        planted=planted,
    )


def _tissue_only(thumbnail: NDArray[np.uint8], mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """White beyond the tissue: what is written on the glass beside it may name a patient."""
    height, width = thumbnail.shape[:2]
    shown = np.asarray(Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST), dtype=bool)
    return np.where(shown[..., None], thumbnail, np.uint8(255))


def _guideline(config: Config) -> tuple[str, bytes] | None:
    """Name and content of the guideline as it lies in a project."""
    if config.handout.guideline is None:
        return None
    path = config.resolve(config.handout.guideline)
    try:
        return f"GUIDELINE{path.suffix}", path.read_bytes()
    except OSError as error:
        raise ConfigError(f"handout.guideline: cannot read {path}: {error.strerror or error}") from error


def _with_handout(run: RunDir, record: RunRecord, handout: HandoutRecord) -> RunRecord:
    if record.handout == handout:
        return record
    record = record.model_copy(update={"handout": handout})
    record.write(run.run_json)
    return record


def _ready(run: RunDir, record: RunRecord, slide_id: str, slide: SlideRecord) -> HandoutSlide:
    folder = run.slide(slide_id)
    summary = read_json(folder.summary)
    ref = SlideRef(slide_id, slide.uri, slide.name, mpp=slide.mpp if slide.mpp_source == "config" else None)
    with open_slide(ref) as opened:
        levels, crop, size = opened.levels, opened.crop, opened.size
    regions = read_geojson(folder.regions)
    tiles = tile_objects(read_tiles(folder.tiles), run_id=record.run_id)
    tissue = TissueMask.load(folder.tissue)
    with Image.open(folder.thumbnail) as image:
        thumbnail = _tissue_only(np.asarray(image.convert("RGB")), tissue.mask)
    return HandoutSlide(
        slide_id=slide_id,
        name=slide.name if _is_unique(record, slide.name) else f"{slide.name} ({slide_id})",
        uri=slide.uri,
        size=size,
        mpp=slide.mpp or summary["mpp"],
        mpp_source=slide.mpp_source or "file",
        levels=levels,
        crop=crop,
        patient=slide.patient,
        run_id=record.run_id,
        objects=[*regions, *tiles],
        thumbnail=thumbnail,
        flags=summary["flags"],
        tissue=tissue,
    )


def _is_unique(record: RunRecord, name: str) -> bool:
    return sum(slide.name == name for slide in record.slides.values()) == 1
