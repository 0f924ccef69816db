"""Exploratory splits of a saving: by tissue kind, by how much of the prediction was wrong, by week and by order."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta

from wsi_pipeline.collect.images import CollectedImage
from wsi_pipeline.collect.time_figures import BatchLogs
from wsi_pipeline.handout.plan import ASSISTED
from wsi_pipeline.measures.arms import Reading
from wsi_pipeline.measures.savings import Split, orders_of, split_saving

# Bounds of the share of the predicted area that the assisted corrections took away.
BANDS = ((0.02, "0 to 2 %"), (0.2, "2 to 20 %"))
WIDEST_BAND = "20 % and more"
NOTHING_PREDICTED = "nothing predicted"


def splits_of(
    readings: Sequence[Reading],
    images: Sequence[CollectedImage],
    logs: Sequence[BatchLogs],
    tissue_kinds: Mapping[str, str],
) -> list[Split]:
    """All splits that have a group, or are refused; a split without any group is left out.

    Parameters
    ----------
    readings
        What the saving was measured on.
    tissue_kinds
        By slide id, as the manifest says; slides without one are in no group of that split.
    """
    orders = orders_of(readings)
    areas = false_positive_bands(images)
    weeks = weeks_of(images, logs)
    splits = [
        split_saving(readings, "tissue kind", lambda r: tissue_kinds.get(r.slide)) if tissue_kinds else None,
        split_saving(readings, "false-positive area", lambda r: areas.get(r.slide)) if areas else None,
        split_saving(readings, "week", lambda r: _day(weeks.get((r.rater, r.slide, str(r.arm))))) if weeks else None,
        split_saving(readings, "order", lambda r: orders.get((r.rater, r.slide))) if orders else None,
    ]
    return [split for split in splits if split is not None and (split.parts or split.refused)]


def _day(monday: date | None) -> str | None:
    return None if monday is None else monday.isoformat()


def false_positive_bands(images: Sequence[CollectedImage]) -> dict[str, str]:
    """Of each slide, the band of its false-positive area: removed over predicted, pooled over its assisted readings.

    What a correction took away stands for what was wrong; where raters overlook errors it is too little.
    """
    removed: defaultdict[str, float] = defaultdict(float)
    before: defaultdict[str, float] = defaultdict(float)
    for image in images:
        slide = image.slide
        if not image.state.is_reviewed or slide.arm != ASSISTED or slide.repeat or slide.planted is not None:
            continue
        for figures in image.facts["classes"].values():
            removed[slide.slide_id] += figures["removed_um2"] or 0.0
            before[slide.slide_id] += figures["area_before_um2"] or 0.0
        before.setdefault(slide.slide_id, 0.0)
    return {slide_id: _band(removed[slide_id], area) for slide_id, area in before.items()}


def _band(removed: float, predicted: float) -> str:
    if predicted <= 0:
        return NOTHING_PREDICTED
    share = removed / predicted
    return next((name for bound, name in BANDS if share < bound), WIDEST_BAND)


def weeks_of(images: Sequence[CollectedImage], logs: Sequence[BatchLogs]) -> dict[tuple[str, str, str], date]:
    """By rater, slide and arm, the Monday (UTC) of the week of the rater's last own action in the image."""
    last: dict[tuple[str, str], float] = {}
    for log in logs:
        for session in log.sessions:
            if session.rater != log.plan.rater or not session.absolute:
                continue
            for event in session.events:
                if event.type.is_action:
                    key = (log.plan.folder, event.image)
                    last[key] = max(event.t, last.get(key, event.t))
    found = {}
    for image in images:
        moment = last.get((image.plan.folder, str(image.entry_id)))
        if moment is not None and not image.slide.repeat:
            day = datetime.fromtimestamp(moment / 1000, tz=UTC).date()
            found[image.plan.rater, image.slide.slide_id, image.slide.arm] = day - timedelta(days=day.weekday())
    return found
