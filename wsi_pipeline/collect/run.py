"""Collecting: every handed-out image is read and compared; tables and figures for the report and for training."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from wsi_pipeline import audit
from wsi_pipeline.collect.images import Alarm, CollectedImage, collect_image
from wsi_pipeline.collect.matching import Change
from wsi_pipeline.collect.tables import SCHEMA_VERSION, pooled, write_corrections
from wsi_pipeline.collect.times import ImageTime, logs_of, times_of, write_times
from wsi_pipeline.collect.trail import what_is_new
from wsi_pipeline.config import Costs, Review
from wsi_pipeline.errors import StoreError, WsiError
from wsi_pipeline.files import write_json
from wsi_pipeline.handout import Plan, read_plans
from wsi_pipeline.measures import Session, not_measured, review_cost, rule_text, saving
from wsi_pipeline.objects import RGB
from wsi_pipeline.qupath import open_project, write_geojson
from wsi_pipeline.rundir import RunDir
from wsi_pipeline.states import Source

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CollectResult:
    """What was collected; `alarms` name images that were left out."""

    metrics: dict[str, Any]
    alarms: tuple[str, ...]

    @property
    def summary(self) -> str:
        """One line for people."""
        totals = self.metrics["totals"]
        counts = ", ".join(f"{n} {change}" for change, n in totals["counts"].items() if n)
        return f"{totals['reviewed']} of {totals['slides']} slides reviewed: {counts or 'no region'}"


def collect(run: RunDir, review: Review, costs: Costs) -> CollectResult:
    """Read the corrections of every batch and write the folder `review/`; the projects are only read.

    Raises
    ------
    StoreError
        Nothing was handed out yet, or `review/` cannot be written.
    """
    plans = read_plans(run)
    if not plans:
        raise StoreError(f"nothing was handed out in {run.root}; run `wsi-pipeline handout` first")
    images: list[CollectedImage] = []
    alarms: list[Alarm] = []
    times: list[ImageTime] = []
    problems: list[str] = []
    colors: dict[str, RGB] = {}
    for plan in plans:
        sessions, odd = logs_of(run, plan)
        problems += odd
        for item in _collect_batch(run, plan, review, sessions, colors):
            kept = _with_corrected(run, item, colors)
            (images if isinstance(kept, CollectedImage) else alarms).append(kept)  # type: ignore[arg-type]
        batch_times, batch_problems = times_of(sessions, plan, review)
        times += batch_times
        problems += batch_problems
    for alarm in alarms:
        logger.error("%s", alarm)
    metrics = _metrics(run, review, costs, plans, images, times, [str(a) for a in alarms], problems)
    # metrics.json comes last, so that it never tells of files that are not there.
    write_corrections(run.corrections, [row for image in images for row in image.rows])
    write_times(run.time, times)
    write_json(run.metrics, metrics)
    seen = [(i.plan.batch, i.plan.rater, i.slide.slide_id, i.changes) for i in images]
    audit.append(run.root, what_is_new(audit.read(run.root), seen))
    return CollectResult(metrics, tuple(str(alarm) for alarm in alarms))


def _collect_batch(
    run: RunDir, plan: Plan, review: Review, sessions: Sequence[Session], colors: dict[str, RGB]
) -> Iterator[CollectedImage | Alarm]:
    path = run.root / plan.project
    try:
        project = open_project(path, read_only=True)
    except WsiError as error:
        yield from (Alarm(slide.slide_id, f"its project cannot be opened: {error}") for slide in plan.slides)
        return
    colors.update({c.name: c.color for c in project.path_classes if c.color is not None})
    for slide in plan.slides:
        yield collect_image(run, plan, slide, project, sessions, review.tolerance_um)


def _with_corrected(run: RunDir, item: CollectedImage | Alarm, colors: dict[str, RGB]) -> CollectedImage | Alarm:
    """Write the annotations as they are now; an image that cannot be written is left out with its reason."""
    if isinstance(item, Alarm):
        return item
    try:
        write_geojson(run.review / "corrected" / f"{item.slide.slide_id}.geojson", item.annotations, colors)
    except WsiError as error:
        return Alarm(item.slide.slide_id, f"its annotations cannot be kept: {error}")
    # On disk now; a thousand slides of them would not fit into memory.
    return replace(item, annotations=())


def _metrics(
    run: RunDir,
    review: Review,
    costs: Costs,
    plans: Sequence[Plan],
    images: Sequence[CollectedImage],
    times: Sequence[ImageTime],
    alarms: Sequence[str],
    problems: Sequence[str],
) -> dict[str, Any]:
    by_slide = {(t.batch, t.slide_id): t for t in times}
    slides = {}
    for image in images:
        time = by_slide.get((image.plan.batch, image.slide.slide_id))
        known = {} if time is None else {"active_s": time.active_s, "time_source": time.time_source}
        slides[image.slide.slide_id] = {**image.facts, **known}
    reviewed = [image for image in images if image.state.is_reviewed]
    timed = [t for t in times if any(t.slide_id == i.slide.slide_id for i in reviewed)]
    return {
        "schema": SCHEMA_VERSION,
        "run_id": next((s.run_id for plan in plans for s in plan.slides), None),
        "source": str(_source(images, times)),
        "tolerance_um": review.tolerance_um,
        "slides": slides,
        "totals": {
            "slides": len(images),
            "reviewed": len(reviewed),
            "counts": _counts(reviewed),
            "classes": _classes(reviewed),
        },
        "time": _time(timed, reviewed, review),
        "cost": review_cost(
            costs,
            active_s=sum(t.active_s for t in times) if times else None,
            reviewed_s=sum(t.active_s for t in timed) if timed else None,
            reviewed=len(timed),
            source=_source(images, times),
        ),
        "saving": saving(),
        "alarms": list(alarms),
        "flags": list(problems),
    }


def _source(images: Iterable[CollectedImage], times: Iterable[ImageTime]) -> Source:
    """Simulated as soon as one image or time is: what is mixed must never pass for measured."""
    sources = {*(str(image.source) for image in images), *(time.source for time in times)}
    return Source.SIMULATED if str(Source.SIMULATED) in sources else Source.MEASURED


def _counts(images: Iterable[CollectedImage]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for image in images:
        total.update(image.facts["counts"])
    return {str(change): total[str(change)] for change in Change}


def _classes(images: Sequence[CollectedImage]) -> dict[str, Any]:
    names = sorted({name for image in images for name in image.facts["classes"]})
    return {
        name: pooled(image.facts["classes"][name] for image in images if name in image.facts["classes"])
        for name in names
    }


def _time(times: Sequence[ImageTime], reviewed: Sequence[CollectedImage], review: Review) -> dict[str, Any]:
    if not times:
        return not_measured("no event log of a reviewed slide was found")
    with_time = {time.slide_id for time in times}
    return {
        "source": times[0].source if len({t.source for t in times}) == 1 else str(Source.SIMULATED),
        "time_source": times[0].time_source,
        "rule": rule_text(review.idle_s),
        "active_s": sum(time.active_s for time in times),
        "active_s_cap60": sum(time.active_s_cap60 for time in times),
        "active_s_cap100": sum(time.active_s_cap100 for time in times),
        "active_s_cap300": sum(time.active_s_cap300 for time in times),
        "slides": len(with_time),
        "coverage": len(with_time) / len(reviewed),
    }
