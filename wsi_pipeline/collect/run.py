"""Collecting: every handed-out image is read and compared; tables and figures for the report and for training."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsi_pipeline import audit
from wsi_pipeline.collect.changed import TYPES as CHANGED_TILES
from wsi_pipeline.collect.conflicts import conflicts_of, in_words
from wsi_pipeline.collect.costs import cost_figures
from wsi_pipeline.collect.doubt import doubt_figures
from wsi_pipeline.collect.flag_references import planted_flags, repeat_figures
from wsi_pipeline.collect.images import Alarm, CollectedImage, in_one_run
from wsi_pipeline.collect.judged import TYPES as JUDGED_TILES
from wsi_pipeline.collect.kept import kept_times, with_times
from wsi_pipeline.collect.matching import Change
from wsi_pipeline.collect.other_times import best, other_times
from wsi_pipeline.collect.planted import planted_figures
from wsi_pipeline.collect.quality import quality_figures
from wsi_pipeline.collect.region_times import TYPES as REGION_TIMES
from wsi_pipeline.collect.region_times import region_figures, region_rows
from wsi_pipeline.collect.savings import saving_figures
from wsi_pipeline.collect.second_read import second_read_figures
from wsi_pipeline.collect.spending import beside_of
from wsi_pipeline.collect.tables import SCHEMA_VERSION, aggregated, pooled, write_corrections, write_table
from wsi_pipeline.collect.time_figures import BatchLogs, time_figures
from wsi_pipeline.collect.times import ImageTime, logs_of, times_of, write_times
from wsi_pipeline.collect.trail import what_is_new
from wsi_pipeline.collect.work import collect_images, corrected_path
from wsi_pipeline.config import Costs, Review
from wsi_pipeline.errors import StoreError
from wsi_pipeline.files import read_json, write_bytes, write_json
from wsi_pipeline.handout import Plan, read_plans
from wsi_pipeline.handout.plan import ASSISTED
from wsi_pipeline.measures import not_measured
from wsi_pipeline.progress import Progress
from wsi_pipeline.rundir import RunDir
from wsi_pipeline.states import ImageState, Source

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
        read = {facts["slide_id"] for facts in self.metrics["images"] if facts["arm"] == "assisted"}
        # Where a slide is read by several, they are readings, and the arm says which of them are counted.
        what = "slides" if len(read) == totals["slides"] else f"assisted readings of {len(read)} slides"
        text = f"{totals['reviewed']} of {totals['slides']} {what} reviewed"
        if totals["reviewed"]:
            text = f"{text}: {counts or 'no region'}"
        conflicts = in_words(self.metrics["conflicts"])
        return f"{text}; {conflicts}" if conflicts else text


def collect(
    run: RunDir,
    review: Review,
    costs: Costs,
    *,
    calibration: dict[str, Any] | None = None,
    workers: int = 1,
    progress: Progress | None = None,
) -> CollectResult:
    """Read the corrections of every batch and write the folder `review/`; the projects are only read.

    Parameters
    ----------
    calibration
        What is known of the model's calibration, for metrics.json.
    workers
        Processes at most; few slides are read in this one. The files are the same with any number of them.
    progress
        Told of each image that was read; without it nothing is said.

    Raises
    ------
    StoreError
        Nothing was handed out yet, `review/` cannot be written, or audit.jsonl is damaged: then nothing is written.
    """
    plans = read_plans(run)
    if not plans:
        raise StoreError(f"nothing was handed out in {run.root}; run `wsi-pipeline handout` first")
    audit.require_sound(run.root)
    images: list[CollectedImage] = []
    alarms: list[Alarm] = []
    times: list[ImageTime] = []
    others: list[ImageTime] = []
    logs: list[BatchLogs] = []
    problems: list[str] = []
    given = Counter(slide.slide_id for plan in plans for slide in plan.slides)
    shared = frozenset(slide_id for slide_id, times_given in given.items() if times_given > 1)
    if progress is not None:
        progress.begin("collect", given.total())
    for item in collect_images(run, plans, shared, review.tolerance_um, workers):
        (images if isinstance(item, CollectedImage) else alarms).append(item)  # type: ignore[arg-type]
        if progress is not None:
            progress.finish(item.slide.slide_id if isinstance(item, CollectedImage) else item.slide_id, "")
    if progress is not None:
        progress.end()
    problems += [f"{i.slide.slide_id}: {i.remark}" for i in images if i.remark is not None]
    images = in_one_run(images)
    for plan in plans:
        sessions, odd = logs_of(run, plan)
        logs.append(BatchLogs(plan, sessions))
        problems += odd
        batch_times, batch_problems = times_of(sessions, plan, review)
        times += batch_times
        problems += batch_problems
        batch_others, batch_problems = other_times(run, plan, review)
        others += batch_others
        problems += batch_problems
    times = best(with_times(times, kept_times(run)), others)
    for alarm in alarms:
        logger.error("%s", alarm)
    metrics = _metrics(run, review, costs, plans, images, times, logs, [str(a) for a in alarms], problems)
    regions = region_rows(images, [log for log in logs if log.plan.rater not in review.adjudicators], review.idle_s)
    metrics["time"]["regions"] = region_figures(regions)
    if "status" not in metrics["planted"]:
        shown = [image for image in images if image.facts["planted"] is not None]
        metrics["planted"]["source"] = str(_source(shown, ()))
        metrics["planted"]["flags"] = planted_flags(run, images)
    metrics["repeats"] = repeat_figures(run, images, shared)
    metrics["second_read"] = second_read_figures(run, images, shared)
    metrics["quality"] = quality_figures(run, images, shared)
    metrics["calibration"] = calibration or not_measured("no calibration.json of this model lies beside its card")
    for slide_id, image in _chosen(images).items():
        if slide_id in shared:
            write_bytes(
                run.review / "corrected" / f"{slide_id}.geojson", corrected_path(run, image, shared).read_bytes()
            )
    # metrics.json comes last, so that it never tells of files that are not there.
    write_corrections(run.corrections, [row for image in images for row in image.rows])
    write_table(run.changed_tiles, [tile for image in images for tile in image.tiles], CHANGED_TILES)
    write_table(run.judged_tiles, [tile for image in images for tile in image.judged], JUDGED_TILES)
    write_times(run.time, times)
    write_table(run.region_time, regions, REGION_TIMES)
    write_json(run.metrics, metrics)
    seen = [(i.plan.batch, i.plan.rater, i.slide.slide_id, i.changes) for i in images]
    audit.append(run.root, what_is_new(audit.read(run.root), seen))
    return CollectResult(metrics, tuple(str(alarm) for alarm in alarms))


def _chosen(images: Iterable[CollectedImage]) -> dict[str, CollectedImage]:
    """By slide, the image that stands for it where one is asked for.

    Adjudicated, reviewed, assisted, nothing planted, no repeat, in this order; of equals the first batch by name.
    """

    def rank(image: CollectedImage) -> tuple[bool, bool, bool, bool, bool]:
        slide, final = image.slide, image.state in {ImageState.ADJUDICATED, ImageState.LOCKED}
        return final, image.state.is_reviewed, slide.arm == ASSISTED, slide.planted is None, not slide.repeat

    found: dict[str, CollectedImage] = {}
    for image in images:
        known = found.get(image.slide.slide_id)
        if known is None or rank(image) > rank(known):
            found[image.slide.slide_id] = image
    return found


def _metrics(
    run: RunDir,
    review: Review,
    costs: Costs,
    plans: Sequence[Plan],
    images: Sequence[CollectedImage],
    times: Sequence[ImageTime],
    logs: Sequence[BatchLogs],
    alarms: Sequence[str],
    problems: Sequence[str],
) -> dict[str, Any]:
    by_image = {(t.batch, t.rater, t.slide_id): t for t in times}
    facts = {}
    for image in images:
        time = by_image.get(_key(image))
        known = {} if time is None else {"active_s": time.active_s, "time_source": time.time_source}
        facts[_key(image)] = {**image.facts, **known}
    slides = {slide_id: facts[_key(image)] for slide_id, image in _chosen(images).items()}
    # Where nothing was predicted there is no prediction to agree with, and no correction that took time.
    assisted = [image for image in images if image.slide.arm == ASSISTED]
    reviewed = [image for image in assisted if image.state.is_reviewed]
    # Adjudication is other work than reading: it has a line of its own in the ledger, and is in no time and no saving.
    readers = {(plan.batch, plan.rater) for plan in plans if plan.rater not in review.adjudicators}
    settled = [time for time in times if (time.batch, time.rater) not in readers]
    times = [time for time in times if (time.batch, time.rater) in readers]
    read = [image for image in images if (image.plan.batch, image.plan.rater) in readers]
    beside = beside_of(run, costs, images, settled, review.adjudicators)
    cost = cost_figures(read, times, costs, _source(images, times), _tissue_areas(run, images), beside=beside)
    return {
        "schema": SCHEMA_VERSION,
        "run_id": next((s.run_id for plan in plans for s in plan.slides), None),
        "source": str(_source(images, times)),
        "tolerance_um": review.tolerance_um,
        "slides": slides,
        "images": [facts[_key(image)] for image in images],
        "totals": {
            "slides": len(assisted),
            "reviewed": len(reviewed),
            "counts": _counts(reviewed),
            "classes": _classes(reviewed),
        },
        "groups": {
            "patient": _groups(reviewed, lambda image: image.slide.patient or image.slide.slide_id),
            "rater": _groups(reviewed, lambda image: image.plan.rater),
            "batch": _groups(reviewed, lambda image: image.plan.batch),
        },
        "time": time_figures(times, read, logs, review),
        "cost": cost,
        "saving": saving_figures(
            read,
            times,
            costs,
            open_slides=len(assisted) - len(reviewed),
            logs=logs,
            cap_s=review.idle_s,
            tissue_kinds=_tissue_kinds(run),
            extra_per_slide=cost.get("machines_per_slide", 0.0),
        ),
        "planted": planted_figures(image.facts for image in reviewed),
        "confidence": doubt_figures([tile for image in images for tile in image.tiles]),
        "conflicts": conflicts_of(image.work for image in images if image.work is not None),
        "alarms": list(alarms),
        "flags": list(problems),
    }


def _tissue_areas(run: RunDir, images: Sequence[CollectedImage]) -> dict[str, float]:
    """mm² of tissue by slide, where a summary tells it."""
    found: dict[str, float] = {}
    for slide_id in {image.slide.slide_id for image in images}:
        area = _read(run.slide(slide_id).summary).get("tissue_mm2")
        if isinstance(area, int | float) and area > 0:
            found[slide_id] = float(area)
    return found


def _tissue_kinds(run: RunDir) -> dict[str, str]:
    """Kind of tissue by slide, as the manifest said."""
    slides = _read(run.run_json).get("slides") or {}
    return {slide_id: str(kind) for slide_id, record in slides.items() if (kind := record.get("tissue"))}


def _read(path: Path) -> dict[str, Any]:
    """A JSON object; an empty one where there is none, or none of use: then what it would tell is not measured."""
    try:
        value = read_json(path) if path.is_file() else {}
    except StoreError:
        return {}
    return value if isinstance(value, dict) else {}


def _key(image: CollectedImage) -> tuple[str, str, str]:
    return image.plan.batch, image.plan.rater, image.slide.slide_id


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


def _groups(images: Sequence[CollectedImage], key: Callable[[CollectedImage], str]) -> dict[str, Any]:
    """Figures per class of each patient, rater or batch, over reviewed slides; one without patient is its own."""
    members: dict[str, list[CollectedImage]] = {}
    for image in images:
        members.setdefault(key(image), []).append(image)
    found = {}
    for name, own in members.items():
        classes = sorted({c for image in own for c in image.facts["classes"]})
        found[name] = {
            c: aggregated(image.facts["classes"][c] for image in own if c in image.facts["classes"]) for c in classes
        }
    return found
