"""What people said of review tiles in the panel: accepted, or flagged for discussion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from wsi_pipeline.collect.rows import Occasion
from wsi_pipeline.objects import Kind, PathObject
from wsi_pipeline.states import REVIEW_CLASS, Verdict, verdict_of


@dataclass(frozen=True, slots=True)
class JudgedTile:
    """One row of judged_tiles.parquet: a review tile (level-0 px) that somebody judged, with why it was shown."""

    slide_id: str
    patient: str | None
    batch: str
    rater: str
    source: str
    uuid: str
    x: int
    y: int
    width: int
    height: int
    verdict: str
    reason: str | None


def judged_tiles(occasion: Occasion, objects: Sequence[PathObject]) -> tuple[JudgedTile, ...]:
    """The tiles of an image that have a verdict, whether the image is reviewed or not, from the top left on."""
    found = []
    for item in objects:
        verdict = verdict_of(item.measurements)
        if item.kind is not Kind.TILE or item.geometry is None or verdict is None:
            continue
        x, y, right, bottom = (round(v) for v in item.geometry.bounds)
        found.append(
            JudgedTile(
                slide_id=occasion.slide_id,
                patient=occasion.patient,
                batch=occasion.batch,
                rater=occasion.rater,
                source=occasion.source,
                uuid=item.uuid,
                x=x,
                y=y,
                width=right - x,
                height=bottom - y,
                verdict=str(verdict),
                reason=item.name,
            )
        )
    return tuple(sorted(found, key=lambda t: (t.y, t.x, t.uuid)))


def tile_figures(objects: Sequence[PathObject]) -> dict[str, int]:
    """How many review tiles an image shows, how many of them are judged, and how many of these flagged.

    Counted of the tiles as they are saved. The panel's own words (`wsi_progress`) are of the moment at which somebody
    pressed R or I, and are for the list of images in QuPath.
    """
    verdicts = [
        verdict_of(item.measurements) for item in objects if item.kind is Kind.TILE and item.path_class == REVIEW_CLASS
    ]
    return {
        "shown": len(verdicts),
        "judged": sum(verdict is not None for verdict in verdicts),
        "flagged": verdicts.count(Verdict.FLAGGED),
    }


TYPES: dict[str, pa.DataType] = {
    **dict.fromkeys(("slide_id", "patient", "batch", "rater", "source", "uuid"), pa.string()),
    **dict.fromkeys(("x", "y", "width", "height"), pa.int64()),
    **dict.fromkeys(("verdict", "reason"), pa.string()),
}
