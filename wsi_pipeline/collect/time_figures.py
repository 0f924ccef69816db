"""What metrics.json says of time: measured, reported and modelled apart; odd logs, coverage, what is missing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wsi_pipeline.collect.images import CollectedImage
from wsi_pipeline.collect.matching import Change
from wsi_pipeline.collect.times import ImageTime
from wsi_pipeline.config import Review
from wsi_pipeline.handout import Plan
from wsi_pipeline.handout.plan import ASSISTED
from wsi_pipeline.measures import ImageKey, Session, not_measured, rule_text
from wsi_pipeline.measures.time import TimeSource
from wsi_pipeline.measures.time_anomalies import Anomaly, Coverage, anomalies, coverage
from wsi_pipeline.measures.time_model import TooFewMeasuredError, Work, fit_time_model
from wsi_pipeline.measures.time_rules import count_pairs
from wsi_pipeline.states import Source

Key = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class BatchLogs:
    """The event logs of one batch's project."""

    plan: Plan
    sessions: Sequence[Session]


def time_figures(
    times: Sequence[ImageTime], images: Sequence[CollectedImage], logs: Sequence[BatchLogs], review: Review
) -> dict[str, Any]:
    """The part `time` of metrics.json.

    Parameters
    ----------
    times
        Of every image with a time, in all arms.
    images
        Every image that was collected; sums are of reviewed, assisted ones.
    """
    by_image = {(t.batch, t.rater, t.slide_id): t for t in times}
    reviewed = [image for image in images if image.state.is_reviewed]
    keys = [key_of(image) for image in reviewed if image.slide.arm == ASSISTED]
    own = [by_image[key] for key in keys if key in by_image]
    zero = sum(time.active_s <= 0 for time in own)
    count = count_pairs((1.0, by_image[key].active_s if key in by_image else None) for key in keys)
    beside = {
        "missing": {"without_time": len(keys) - len(own), "zero_time": zero, "flagged": count.flagged},
        "pairs": _pairs(reviewed, by_image),
        "logs": _logs(reviewed, logs),
        "anomalies": _anomalies(logs, review.adjudicators),
        "modelled": modelled(reviewed, by_image),
    }
    if not own:
        return {**not_measured("no event log of a reviewed slide was found"), **beside}
    sources = sorted({time.time_source for time in own}, key=[str(s) for s in TimeSource].index)
    rules = sorted({time.rule for time in own if time.rule != rule_text(review.idle_s)})
    with_log = sum(time.time_source in {TimeSource.EVENTS, TimeSource.SIMULATED} for time in own)
    return {
        "source": str(Source.SIMULATED if any(t.source == Source.SIMULATED for t in own) else Source.MEASURED),
        "time_source": " and ".join(sources),
        "rule": rule_text(review.idle_s),
        "other_rules": rules,
        "active_s": sum(time.active_s for time in own),
        "active_s_cap60": sum(time.active_s_cap60 for time in own),
        "active_s_cap100": sum(time.active_s_cap100 for time in own),
        "active_s_cap300": sum(time.active_s_cap300 for time in own),
        "slides": len(own),
        "coverage": len(own) / len(keys),
        "log_coverage": with_log / len(keys),
        "by_source": {
            source: {
                "slides": sum(t.time_source == source for t in own),
                "active_s": sum(t.active_s for t in own if t.time_source == source),
            }
            for source in sources
        },
        **beside,
    }


def key_of(image: CollectedImage) -> Key:
    """What tells an image of one batch and rater from every other."""
    return image.plan.batch, image.plan.rater, image.slide.slide_id


def _pairs(reviewed: Sequence[CollectedImage], by_image: Mapping[Key, ImageTime]) -> dict[str, Any] | None:
    """Slides that one rater read in both arms: how many have a time in each that a saving may use."""
    cells: dict[tuple[str, str], dict[str, float | None]] = {}
    for image in reviewed:
        time = by_image.get(key_of(image))
        seen = time.active_s if time is not None and TimeSource(time.time_source).is_seen else None
        if not image.slide.repeat:
            cells.setdefault((image.plan.rater, image.slide.slide_id), {})[image.slide.arm] = seen
    both = [cell for cell in cells.values() if len(cell) > 1]
    if not both:
        return None
    count = count_pairs((cell[ASSISTED], other) for cell in both for arm, other in cell.items() if arm != ASSISTED)
    return {
        "usable": count.usable,
        "without_time": count.without_time,
        "zero_time": count.zero,
        "flagged": count.flagged,
    }


def _logs(reviewed: Sequence[CollectedImage], logs: Sequence[BatchLogs]) -> list[dict[str, Any]]:
    """Of each reviewed image, how many visits its logs hold and in how many something was done."""
    known = {key: value for batch in logs for key, value in coverage(batch.sessions).items()}
    rows = []
    for image in reviewed:
        own = known.get(ImageKey(image.plan.project, image.plan.rater, str(image.entry_id)), Coverage())
        rows.append(
            {
                "slide_id": image.slide.slide_id,
                "batch": image.plan.batch,
                "rater": image.plan.rater,
                "visits": own.visits,
                "with_events": own.with_events,
                "coverage": own.share,
            }
        )
    return rows


def _anomalies(logs: Sequence[BatchLogs], adjudicators: Collection[str]) -> list[dict[str, Any]]:
    """Odd things in all logs; a project that several batches share is looked at once."""
    plans: dict[str, list[Plan]] = {}
    sessions: dict[str, Sequence[Session]] = {}
    for batch in logs:
        plans.setdefault(batch.plan.project, []).append(batch.plan)
        sessions[batch.plan.project] = batch.sessions
    found = []
    for project, own in plans.items():
        slides = {str(slide.entry_id): slide.slide_id for plan in own for slide in plan.slides}
        raters = {*adjudicators, *(plan.rater for plan in own)}
        batches = ", ".join(sorted({plan.batch for plan in own}))
        found += [_told(odd, batches, slides) for odd in anomalies(sessions[project], raters)]
    return found


def _told(odd: Anomaly, batch: str, slides: Mapping[str, str]) -> dict[str, Any]:
    return {
        "kind": str(odd.kind),
        "batch": batch,
        "rater": odd.rater,
        "log": odd.log,
        "slide_id": None if odd.image is None else slides.get(odd.image),
        "seconds": odd.seconds,
        "treatment": odd.kind.treatment,
    }


def modelled(reviewed: Sequence[CollectedImage], by_image: Mapping[Key, ImageTime]) -> dict[str, Any]:
    """Times of reviewed images that have none, by a model fitted on those that have one of the commonest source."""
    seen = [(image, by_image[key_of(image)]) for image in reviewed if key_of(image) in by_image]
    measured = [(image, time) for image, time in seen if TimeSource(time.time_source).is_seen]
    gaps = [image for image in reviewed if key_of(image) not in by_image]
    if not gaps:
        return not_measured("no reviewed image lacks a time")
    usual = Counter(time.time_source for _, time in measured).most_common(1)
    fitted = [(work_of(image), time.active_s) for image, time in measured if time.time_source == usual[0][0]]
    try:
        model = fit_time_model(fitted)
    except TooFewMeasuredError as error:
        return not_measured(str(error))
    rows = []
    for image in gaps:
        estimate = model.estimate(work_of(image))
        if estimate is not None:
            rows.append(
                {
                    "slide_id": image.slide.slide_id,
                    "batch": image.plan.batch,
                    "rater": image.plan.rater,
                    "arm": image.slide.arm,
                    "seconds": estimate.seconds,
                    "low": estimate.low,
                    "high": estimate.high,
                }
            )
    return {
        "time_source": str(TimeSource.MODEL),
        "fitted_on": usual[0][0],
        "rule": str(model),
        "level": model.level,
        "n": model.n,
        "coefficients": model.coefficients,
        "sd": model.sd,
        "images": rows,
        "not_estimated": len(gaps) - len(rows),
    }


def work_of(image: CollectedImage) -> Work:
    """What was done in an image: objects that are not as they were handed out, and area added and removed."""
    counts, classes = image.facts["counts"], image.facts["classes"].values()
    edits = sum(n for change, n in counts.items() if change != Change.UNTOUCHED)
    area = sum((figures["removed_um2"] or 0.0) + (figures["added_um2"] or 0.0) for figures in classes)
    return Work(image.plan.rater, image.slide.arm, edits, area)
