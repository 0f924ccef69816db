"""Flags held against a second read: what a reader drew on the same slide who saw neither regions nor flags."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.collect.changed import area_in, changed_region
from wsi_pipeline.collect.doubt import is_of_this_handout
from wsi_pipeline.collect.images import CollectedImage
from wsi_pipeline.collect.matching import Change, Pair
from wsi_pipeline.collect.unlike import APPEARANCE, STRUCTURE, unlike_figures
from wsi_pipeline.collect.work import corrected_path
from wsi_pipeline.errors import WsiError
from wsi_pipeline.handout import snapshot_of
from wsi_pipeline.handout.plan import ASSISTED
from wsi_pipeline.measures import not_measured
from wsi_pipeline.measures.flags import Reference, is_changed, judge_flags
from wsi_pipeline.objects import Kind, PathObject
from wsi_pipeline.qupath import read_geojson
from wsi_pipeline.regions import ReviewTile, read_tiles
from wsi_pipeline.rundir import RunDir
from wsi_pipeline.states import Source

CAVEAT = (
    "The reference is one reader who saw nothing of the model: where readers differ from each other, "
    "flags are judged by one of them."
)


def second_read_figures(run: RunDir, images: Sequence[CollectedImage], shared: frozenset[str]) -> dict[str, Any]:
    """The part `second_read` of metrics.json: flags against where prediction and a blind reader differ, by class.

    Of each slide the first reviewed image of the manual arm counts; a slide without one, or without the tiles that its
    handout had, takes no part.
    """
    shown = _first(i for i in images if i.slide.arm == ASSISTED and i.slide.planted is None)
    blind = _first(i for i in images if i.slide.arm != ASSISTED and i.state.is_reviewed)
    found = []
    for slide_id in sorted(shown.keys() & blind.keys()):
        image, other = shown[slide_id], blind[slide_id]
        if not run.slide(slide_id).tiles.exists() or not is_of_this_handout(run, image.slide):
            continue
        try:
            tiles = read_tiles(run.slide(slide_id).tiles)
            predicted = snapshot_of(run, image.plan, image.slide)
            drawn = read_geojson(corrected_path(run, other, shared))
        except WsiError:
            # The image itself was read; without its reference it says nothing here.
            continue
        found.append((other, tiles, area_in(changed_region(compared(predicted, drawn)), tiles) * image.slide.mpp**2))
    if not found:
        return not_measured("no slide with review tiles was also read without the model's regions")
    return judged(found, Reference.SECOND_READ, CAVEAT)


def judged(
    found: Sequence[tuple[CollectedImage, Sequence[ReviewTile], NDArray[np.float64]]], reference: Reference, caveat: str
) -> dict[str, Any]:
    """Flags against a reference, as JSON values.

    Parameters
    ----------
    found
        Images that the reference comes from, the tiles of their slides, and the area of each tile where by the
        reference something is wrong, in µm²; not empty.
    """
    columns = [
        (image.slide.slide_id, t.flagged, t.score, area, t.tissue_share * t.width * t.height * image.slide.mpp**2)
        for image, tiles, areas in found
        for t, area in zip(tiles, areas.tolist(), strict=True)
    ]
    slides, flagged, score, area, tissue = (np.array(column) for column in zip(*columns, strict=True))
    quality = judge_flags(
        flagged=flagged,
        score=score,
        area=area,
        changed=is_changed(area, tissue),
        slides=slides,
        reference=reference,
    )
    every = [t for _, tiles, _ in found for t in tiles]
    distances = {
        APPEARANCE: [t.out_of_distribution for t in every],
        STRUCTURE: [t.structure_distance for t in every],
    }
    simulated = any(image.source is Source.SIMULATED for image, _, _ in found)
    return {
        "source": str(Source.SIMULATED if simulated else Source.MEASURED),
        "reference": str(reference),
        "caveat": caveat,
        "flags": quality.to_json(),
        "out_of_distribution": unlike_figures(distances, area, tissue, slides, reference),
    }


def _first(images: Iterable[CollectedImage]) -> dict[str, CollectedImage]:
    found: dict[str, CollectedImage] = {}
    for image in images:
        found.setdefault(image.slide.slide_id, image)
    return found


def compared(first: Sequence[PathObject], second: Sequence[PathObject]) -> list[Pair]:
    """As if all of the first had been deleted and all of the second added: classes are compared as wholes."""
    before = [Pair(item, None, Change.DELETED) for item in first if item.kind is Kind.ANNOTATION]
    return [*before, *(Pair(None, item, Change.ADDED) for item in second if item.kind is Kind.ANNOTATION)]
