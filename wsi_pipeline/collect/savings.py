"""The saving of a run: readings of both arms from its plans and times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from wsi_pipeline.collect.images import CollectedImage
from wsi_pipeline.collect.splits import splits_of
from wsi_pipeline.collect.time_figures import BatchLogs
from wsi_pipeline.collect.times import ImageTime
from wsi_pipeline.config import Costs
from wsi_pipeline.errors import ConfigError
from wsi_pipeline.handout.plan import ASSISTED
from wsi_pipeline.measures.arms import Arm, Reading
from wsi_pipeline.measures.payback import break_even, forecast
from wsi_pipeline.measures.savings import saving_of
from wsi_pipeline.measures.time import EventType, TimeSource
from wsi_pipeline.measures.time_rules import check_for_saving, timeline
from wsi_pipeline.states import Source

MANUAL = "manual"

Key = tuple[str, str, str]


def readings_of(images: Sequence[CollectedImage], times: Mapping[Key, ImageTime]) -> list[Reading]:
    """One row per reviewed image; nan where it has no time.

    Second reads and images with planted errors are other work and left out. The position is the planned
    one, which counts on from batch to batch of a rater.

    Parameters
    ----------
    times
        By batch, rater and slide.
    """
    taken = [
        image for image in images if image.state.is_reviewed and not image.slide.repeat and image.slide.planted is None
    ]
    return [
        Reading(
            rater=image.plan.rater,
            slide=image.slide.slide_id,
            arm=Arm(image.slide.arm),
            seconds=_seconds(times.get((image.plan.batch, image.plan.rater, image.slide.slide_id))),
            position=image.slide.position,
            patient=image.slide.patient,
        )
        for image in taken
    ]


def _seconds(time: ImageTime | None) -> float:
    return np.nan if time is None else time.active_s


def saving_figures(
    images: Sequence[CollectedImage],
    times: Sequence[ImageTime],
    costs: Costs,
    *,
    open_slides: int,
    logs: Sequence[BatchLogs] = (),
    cap_s: float = 300.0,
    tissue_kinds: Mapping[str, str] | None = None,
    extra_per_slide: float = 0.0,
) -> dict[str, Any]:
    """`saving` of metrics.json, with break-even, forecast for the slides that are open, and exploratory splits.

    Arms whose times were read from different sources, or whose logs hold different kinds of event, are not compared.

    Parameters
    ----------
    images, times, logs
        Of readers only: adjudication is no reading.
    extra_per_slide
        What computing and storage add to each slide, in the currency of the configuration.
    """
    # What people say of their own time, or a model does, is no measurement.
    times = [t for t in times if TimeSource(t.time_source).is_seen]
    reason = _unlike(images, times, logs, cap_s)
    if reason is not None:
        return {**saving_of([]).as_json(), "reason": reason}
    readings = readings_of(images, {(t.batch, t.rater, t.slide_id): t for t in times})
    saving = saving_of(readings)
    found = saving.as_json()
    if saving.ratio is None:
        return found
    simulated = any(t.source == str(Source.SIMULATED) for t in times)
    found |= {"source": str(Source.SIMULATED if simulated else Source.MEASURED), "rule": times[0].rule}
    found["splits"] = [split.as_json() for split in splits_of(readings, images, logs, tissue_kinds or {})]
    payback = break_even(costs, saving, extra_per_slide=extra_per_slide)
    ahead = forecast(costs, saving, open_slides, extra_per_slide=extra_per_slide)
    if payback is not None:
        found["break_even"] = payback.as_json()
    if ahead is not None:
        found["forecast"] = ahead.as_json()
    return found


def _unlike(
    images: Sequence[CollectedImage], times: Sequence[ImageTime], logs: Sequence[BatchLogs], cap_s: float
) -> str | None:
    """Why the times of the two arms cannot be compared; None when they can."""
    arms = {arm: [t for t in times if t.arm == arm] for arm in (ASSISTED, MANUAL)}
    if not all(arms.values()):
        return None
    sources = {arm: sorted({t.time_source for t in own}) for arm, own in arms.items()}
    if sources[ASSISTED] != sources[MANUAL]:
        told = "; ".join(f"{arm}: {', '.join(own)}" for arm, own in sources.items())
        return f"the times of the two arms come from different sources ({told})"
    kinds = _kinds(images, logs)
    try:
        if len(kinds) > 1 and sources[ASSISTED] == [str(TimeSource.EVENTS)]:
            check_for_saving(timeline(cap_s), kinds)
    except ConfigError as error:
        return str(error)
    return None


def _kinds(images: Sequence[CollectedImage], logs: Sequence[BatchLogs]) -> dict[str, set[EventType]]:
    """The kinds of event that the logs hold of each arm's images."""
    found: dict[str, set[EventType]] = {}
    for log in logs:
        arm_of = {
            str(image.entry_id): image.slide.arm
            for image in images
            if (image.plan.batch, image.plan.rater) == (log.plan.batch, log.plan.rater)
        }
        for session in log.sessions:
            for event in session.events:
                if event.image in arm_of:
                    found.setdefault(arm_of[event.image], set()).add(event.type)
    return found
