"""Flags held against planted errors, and against where one reader's two readings of a slide differ."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.collect.changed import area_in, changed_region
from wsi_pipeline.collect.doubt import is_of_this_handout
from wsi_pipeline.collect.images import CollectedImage
from wsi_pipeline.collect.second_read import compared, judged
from wsi_pipeline.collect.work import corrected_path
from wsi_pipeline.errors import WsiError
from wsi_pipeline.handout import planted_in
from wsi_pipeline.handout.plan import ASSISTED
from wsi_pipeline.measures import not_measured
from wsi_pipeline.measures.flags import Reference, exact_interval
from wsi_pipeline.qupath import read_geojson
from wsi_pipeline.regions import ReviewTile, read_tiles
from wsi_pipeline.rundir import RunDir

PLANTED_CAVEAT = (
    "Errors are planted after the flags were made, and flags know nothing of them: a recall like the share of tiles "
    "that is flagged is what chance gives. What they tell is whether places without a flag are looked at, too."
)
REPEAT_CAVEAT = (
    "Where two readings of one person differ, that person was not sure; which of the two is right this does not say."
)
_MOSTLY = 0.5


def planted_flags(run: RunDir, images: Sequence[CollectedImage]) -> dict[str, Any]:
    """What `planted` of metrics.json says of flags: as the others do, and how many errors were caught with and without.

    Of reviewed images with an error planted into them whose tiles are those of the handout.
    """
    found: list[tuple[CollectedImage, list[ReviewTile], NDArray[np.float64]]] = []
    caught: dict[bool, list[bool]] = {True: [], False: []}
    for image in images:
        if image.slide.planted is None or image.slide.arm != ASSISTED or not image.state.is_reviewed:
            continue
        if not run.slide(image.slide.slide_id).tiles.exists() or not is_of_this_handout(run, image.slide):
            continue
        try:
            tiles = read_tiles(run.slide(image.slide.slide_id).tiles)
            planted = planted_in(run, image.plan, image.slide)
        except WsiError:
            # The image itself was read; without its tiles it says nothing here.
            continue
        if planted is None:
            continue
        first, second = ([] if item is None else [item] for item in (planted.true, planted.planted))
        areas = area_in(changed_region(compared(first, second)), tiles) * image.slide.mpp**2
        found.append((image, tiles, areas))
        if areas.sum() > 0:
            flagged = areas[[t.flagged for t in tiles]].sum() >= _MOSTLY * areas.sum()
            caught[bool(flagged)].append(bool(image.facts["planted"]["caught"]))
    if not found:
        return not_measured("no reviewed image with a planted error has the review tiles that were handed out with it")
    return {
        **judged(found, Reference.PLANTED, PLANTED_CAVEAT),
        "caught_where_flagged": _share(caught[True]),
        "caught_elsewhere": _share(caught[False]),
    }


def _share(hits: Sequence[bool]) -> dict[str, Any]:
    """How many of how many, with the exact interval of the share (Clopper & Pearson)."""
    if not hits:
        return {"planted": 0, "caught": 0, "share": None, "share_ci95": None}
    share = sum(hits) / len(hits)
    return {
        "planted": len(hits),
        "caught": sum(hits),
        "share": share,
        "share_ci95": list(exact_interval(share, len(hits))),
    }


def repeat_figures(run: RunDir, images: Sequence[CollectedImage], shared: frozenset[str]) -> dict[str, Any]:
    """The part `repeats` of metrics.json: flags against where the two readings of one rater differ, by class."""
    found = []
    for first, again in _read_twice(images):
        slide_id = again.slide.slide_id
        if not run.slide(slide_id).tiles.exists() or not is_of_this_handout(run, again.slide):
            continue
        try:
            tiles = read_tiles(run.slide(slide_id).tiles)
            before, after = (read_geojson(corrected_path(run, image, shared)) for image in (first, again))
        except WsiError:
            continue
        found.append((again, tiles, area_in(changed_region(compared(before, after)), tiles) * again.slide.mpp**2))
    if not found:
        return not_measured("no slide with review tiles was read twice by one person in the same arm")
    return judged(found, Reference.REPEAT, REPEAT_CAVEAT)


def _read_twice(images: Sequence[CollectedImage]) -> Iterator[tuple[CollectedImage, CollectedImage]]:
    """Reviewed images of one slide, rater and arm: the first and the repeat; none into which an error was planted."""
    readings: defaultdict[tuple[str, str, str], dict[bool, CollectedImage]] = defaultdict(dict)
    for image in images:
        if image.state.is_reviewed and image.slide.planted is None:
            key = image.slide.slide_id, image.plan.rater, image.slide.arm
            readings[key].setdefault(image.slide.repeat, image)
    for key in sorted(readings):
        if len(readings[key]) > 1:
            yield readings[key][False], readings[key][True]
