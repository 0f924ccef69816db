"""Active time per region: what the event logs say of each object of an image, and sums by what was done to it.

A region is what `corrections` tells of as one change: an object that was split and its parts are one region, and so are
objects that were merged and what they became. Its time is that of all of them together, once.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyarrow as pa

from wsi_pipeline.collect.images import CollectedImage
from wsi_pipeline.collect.matching import Change
from wsi_pipeline.collect.rows import Correction
from wsi_pipeline.collect.time_figures import BatchLogs
from wsi_pipeline.measures import ImageKey, not_measured, rule_text
from wsi_pipeline.measures.time import RegionTime, region_times
from wsi_pipeline.states import Source

# What a log tells of and the image does not hold: drawn and deleted again, a tile, or no annotation.
GONE = "gone"


@dataclass(frozen=True, slots=True)
class RegionRow:
    """One row of region_time.parquet: seconds that ended with something done to one object.

    `object`, `region` and `change` are null for time of the image that was nobody's: looking around, and what was
    accepted. Objects of one change share `region`, the first of them as it was handed out.
    """

    slide_id: str
    patient: str | None
    batch: str
    rater: str
    arm: str
    repeat: bool
    object: str | None
    region: str | None
    path_class: str | None
    change: str | None
    active_s: float
    actions: int
    source: str
    rule: str


TYPES: dict[str, pa.DataType] = {
    **dict.fromkeys(("slide_id", "patient", "batch", "rater", "arm"), pa.string()),
    "repeat": pa.bool_(),
    **dict.fromkeys(("object", "region", "path_class", "change"), pa.string()),
    "active_s": pa.float64(),
    "actions": pa.int32(),
    **dict.fromkeys(("source", "rule"), pa.string()),
}


def region_rows(images: Sequence[CollectedImage], logs: Sequence[BatchLogs], idle_s: float) -> list[RegionRow]:
    """Rows of every image with an event log of its own rater, by image and object; images with planted errors are left
    out, as other work."""
    rows: list[RegionRow] = []
    for log in logs:
        own = [session for session in log.sessions if session.rater == log.plan.rater]
        found = region_times(own, idle_s)
        simulated = any(session.source is Source.SIMULATED for session in own)
        source = Source.SIMULATED if simulated else Source.MEASURED
        for image in images:
            key = ImageKey(log.plan.project, log.plan.rater, str(image.entry_id))
            if image.plan.folder == log.plan.folder and image.slide.planted is None:
                rows += _rows(image, found.get(key, {}), source, rule_text(idle_s))
    return sorted(rows, key=lambda row: (row.slide_id, row.batch, row.rater, row.object or ""))


def _rows(
    image: CollectedImage, objects: Mapping[str | None, RegionTime], source: Source, rule: str
) -> Iterable[RegionRow]:
    known = _known(image.rows)
    for uuid, time in objects.items():
        found = _NOBODYS if uuid is None else known.get(uuid, _Known(uuid, GONE, None))
        yield RegionRow(
            slide_id=image.slide.slide_id,
            patient=image.slide.patient,
            batch=image.plan.batch,
            rater=image.plan.rater,
            arm=image.slide.arm,
            repeat=image.slide.repeat,
            object=uuid,
            region=found.region,
            path_class=found.path_class,
            change=found.change,
            active_s=time.seconds,
            actions=time.actions,
            source=str(source),
            rule=rule,
        )


class _Known(NamedTuple):
    """What became of an object: the region that it belongs to, the change of that, and its own class."""

    region: str | None
    change: str | None
    path_class: str | None


_NOBODYS = _Known(None, None, None)
# Of several changes of one region, the one that made one region of its objects.
_JOINS = {str(Change.SPLIT): 0, str(Change.MERGED): 1}


def _known(rows: Sequence[Correction]) -> dict[str, _Known]:
    """By uuid, before or after, what became of an object; a deleted one has the class it had."""
    regions = _regions(rows)
    changes: dict[str, str] = {}
    for row in rows:
        region = regions[row.uuid_before or row.uuid_after or ""]
        known = changes.setdefault(region, row.change)
        changes[region] = min(known, row.change, key=lambda change: _JOINS.get(change, len(_JOINS)))
    found: dict[str, _Known] = {}
    for row in rows:
        for uuid in (row.uuid_after, row.uuid_before):
            if uuid is not None:
                region = regions[uuid]
                found.setdefault(uuid, _Known(region, changes[region], row.class_after or row.class_before))
    return found


def _regions(rows: Sequence[Correction]) -> dict[str, str]:
    """By uuid the region of an object: rows that share an object are of one, named by the first object of its rows."""
    first: dict[str, str] = {}

    def top(uuid: str) -> str:
        while first[uuid] != uuid:
            first[uuid] = first[first[uuid]]
            uuid = first[uuid]
        return uuid

    order: dict[str, int] = {}
    for row in rows:
        uuids = [uuid for uuid in (row.uuid_before, row.uuid_after) if uuid is not None]
        for uuid in uuids:
            first.setdefault(uuid, uuid)
            order.setdefault(uuid, len(order))
        tops = sorted({top(uuid) for uuid in uuids}, key=order.__getitem__)
        for other in tops[1:]:
            first[other] = tops[0]
    return {uuid: top(uuid) for uuid in first}


def region_figures(rows: Iterable[RegionRow]) -> dict[str, Any]:
    """The part `time.regions` of metrics.json, over all arms: seconds by kind of change, and what was no region's.

    Regions without any time are not counted.
    """
    all_of = list(rows)
    if not all_of:
        return not_measured("no event log tells of a region")
    seconds: dict[tuple[str, ...], float] = {}
    for row in all_of:
        if row.change is not None and row.region is not None:
            key = (row.change, row.slide_id, row.batch, row.rater, row.region)
            seconds[key] = seconds.get(key, 0.0) + row.active_s
    kinds: dict[str, list[float]] = {}
    for (change, *_), whole in seconds.items():
        if whole > 0:
            kinds.setdefault(change, []).append(whole)
    order = [*(str(change) for change in Change), GONE]
    return {
        "source": str(Source.SIMULATED if any(r.source == Source.SIMULATED for r in all_of) else Source.MEASURED),
        "rule": all_of[0].rule,
        "images": len({(r.slide_id, r.batch, r.rater) for r in all_of}),
        "active_s": sum(r.active_s for r in all_of),
        "no_region_s": sum(r.active_s for r in all_of if r.change is None),
        "by_change": {
            kind: {
                "regions": len(kinds[kind]),
                "active_s": sum(kinds[kind]),
                "median_s": statistics.median(kinds[kind]),
            }
            for kind in order
            if kind in kinds
        },
    }
