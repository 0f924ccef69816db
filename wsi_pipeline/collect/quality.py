"""Quality beside time: both arms, and the untouched suggestions, against a reader who saw nothing of the model.

The reference of a slide is what one rater drew without suggestions; another rater's answers are held against it, so
that nobody is compared with themselves. It is agreement with a blind reader and no truth.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from wsi_pipeline.collect.images import CollectedImage
from wsi_pipeline.collect.work import corrected_path
from wsi_pipeline.errors import WsiError
from wsi_pipeline.handout import snapshot_of
from wsi_pipeline.handout.plan import ASSISTED
from wsi_pipeline.measures import Areas, compare_areas, not_measured, union_of
from wsi_pipeline.measures.claims import QualityClaim
from wsi_pipeline.measures.clusters import Floats, percentile_interval
from wsi_pipeline.measures.overlap import region_of
from wsi_pipeline.objects import Kind, PathObject
from wsi_pipeline.qupath import read_geojson
from wsi_pipeline.rundir import RunDir
from wsi_pipeline.states import Source

MANUAL = "manual"
MEASURE = "pooled Dice"
REFERENCE = "a blind reader (another rater, without suggestions)"
# A suggestion is right when a region of its class in the reference has at least this IoU with it.
RIGHT = 0.5
DEFINITION = (
    "Areas of each class, pooled over slides: what a rater left with and without suggestions, and the suggestions as "
    "they were handed out, each against what another rater drew without suggestions. A suggestion is right when a "
    "region of its class there has an IoU of 0.5 with it; it is harmed when no region of its class in the assisted "
    "answer has that IoU with the same region any more. Agreement with one blind reader is not accuracy."
)
TOO_FEW = "it needs a slide that one rater drew without suggestions and another read in both arms, all reviewed"

Objects = Sequence[PathObject]
_Key = tuple[str, str]


def quality_figures(run: RunDir, images: Sequence[CollectedImage], shared: frozenset[str]) -> dict[str, Any]:
    """The part `quality` of metrics.json.

    Slides count that one rater read in both arms and another one drew blind: before seeing it with suggestions, or
    without ever doing so. Images with planted errors and repeats take no part.
    """
    sums: dict[str, list[Areas]] = defaultdict(list)
    harmed = right = 0
    slides: list[str] = []
    raters: set[str] = set()
    sources: set[Source] = set()
    for slide_id, own in _by_slide(images).items():
        pairs = _comparisons(own)
        try:
            answers = {key: _answer(run, image, shared) for key, image in own.items()} if pairs else {}
            handed = {rater: _suggested(run, own[rater, ASSISTED]) for rater, _ in pairs}
        except WsiError:
            # The image itself was read; what cannot be read now says nothing here.
            continue
        for rater, other in pairs:
            mpp = own[rater, ASSISTED].slide.mpp
            answer, drawn = answers[rater, ASSISTED], answers[rater, MANUAL]
            reference, suggestions = answers[other, MANUAL], handed[rater]
            for name, one, against in (
                ("assisted", answer, reference),
                ("manual", drawn, reference),
                ("suggestions", suggestions, reference),
                ("assisted_to_prediction", answer, suggestions),
                ("manual_to_prediction", drawn, suggestions),
            ):
                sums[name].append(_areas(one, against, mpp))
            found = _harm(suggestions, reference, answer)
            right, harmed = right + found[0], harmed + found[1]
            slides.append(slide_id)
            raters.update((rater, other))
            sources.update(own[key].source for key in ((rater, ASSISTED), (rater, MANUAL), (other, MANUAL)))
    if not slides:
        return not_measured(TOO_FEW)
    if not right:
        return not_measured("no suggestion was right by the blind reader, so that harm cannot be told")
    scores = {name: sum(areas, Areas()).dice for name, areas in sums.items()}
    claim = QualityClaim(
        measure=MEASURE,
        reference=REFERENCE,
        assisted=scores["assisted"],
        manual=scores["manual"],
        suggestions=scores["suggestions"],
        harmed=harmed,
        right=right,
    )
    interval = _gain_interval(sums["assisted"], sums["manual"], slides)
    return {
        **claim.as_json(),
        "gain": claim.gain,
        "gain_ci95": None if interval is None else list(interval),
        "source": str(Source.SIMULATED if Source.SIMULATED in sources else Source.MEASURED),
        "definition": DEFINITION,
        "slides": len(set(slides)),
        "raters": len(raters),
        "comparisons": len(slides),
        "to_prediction": {
            "assisted": scores["assisted_to_prediction"],
            "manual": scores["manual_to_prediction"],
        },
    }


def _gain_interval(
    assisted: Sequence[Areas], manual: Sequence[Areas], slides: Sequence[str]
) -> tuple[float, float] | None:
    """Interval of the gain over slides, for these raters; None under five slides."""
    kept = np.array([[a.kept, m.kept] for a, m in zip(assisted, manual, strict=True)])
    whole = np.array([[a.before + a.after, m.before + m.after] for a, m in zip(assisted, manual, strict=True)])

    def gain(weights: Floats) -> float | None:
        below = weights @ whole
        if not (below > 0).all():
            return None
        dice = 2 * (weights @ kept) / below
        return float(dice[0] - dice[1])

    return percentile_interval(gain, np.array(slides))


def _by_slide(images: Iterable[CollectedImage]) -> dict[str, dict[_Key, CollectedImage]]:
    """Reviewed first readings of each slide, by rater and arm."""
    found: dict[str, dict[_Key, CollectedImage]] = {}
    for image in images:
        if image.state.is_reviewed and not image.slide.repeat and image.slide.planted is None:
            arm = ASSISTED if image.slide.arm == ASSISTED else MANUAL
            found.setdefault(image.slide.slide_id, {}).setdefault((image.plan.rater, arm), image)
    return dict(sorted(found.items()))


def _comparisons(own: Mapping[_Key, CollectedImage]) -> list[tuple[str, str]]:
    """Who read a slide in both arms, with each other rater who drew it blind."""
    blind = sorted(rater for rater, arm in own if arm == MANUAL and _is_blind(own, rater))
    both = sorted(rater for rater, arm in own if arm == MANUAL and (rater, ASSISTED) in own)
    return [(rater, other) for rater in both for other in blind if other != rater]


def _is_blind(own: Mapping[_Key, CollectedImage], rater: str) -> bool:
    """Whether the rater drew the slide before seeing it with suggestions, if ever."""
    shown = own.get((rater, ASSISTED))
    if shown is None:
        return True
    first, second = own[rater, MANUAL].slide.position, shown.slide.position
    return first is not None and second is not None and first < second


def _suggested(run: RunDir, image: CollectedImage) -> Objects:
    return [o for o in snapshot_of(run, image.plan, image.slide) if o.kind is Kind.ANNOTATION]


def _answer(run: RunDir, image: CollectedImage, shared: frozenset[str]) -> Objects:
    return [o for o in read_geojson(corrected_path(run, image, shared)) if o.kind is Kind.ANNOTATION]


def _unions(objects: Objects) -> dict[str, BaseGeometry]:
    names = {o.path_class or "" for o in objects}
    return {name: union_of(o.geometry for o in objects if (o.path_class or "") == name) for name in sorted(names)}


def _areas(one: Objects, other: Objects, mpp: float) -> Areas:
    before, after = _unions(one), _unions(other)
    names = sorted({*before, *after})
    return sum((compare_areas(before.get(name), after.get(name), mpp) for name in names), Areas())


def _harm(suggestions: Objects, reference: Objects, answer: Objects) -> tuple[int, int]:
    """How many suggestions were right, and how many of these are no longer so in the answer."""
    right = harmed = 0
    for true in reference:
        if _has(suggestions, true):
            right += 1
            harmed += not _has(answer, true)
    return right, harmed


def _has(objects: Objects, wanted: PathObject) -> bool:
    """Whether one of the objects has the class of the wanted one and an IoU of at least `RIGHT` with it."""
    shape = region_of(wanted.geometry)
    near = [o for o in objects if o.path_class == wanted.path_class]
    if shape.is_empty or not near:
        return False
    shapes = np.array([region_of(o.geometry) for o in near], dtype=object)
    hits = shapely.STRtree(shapes).query(shape, predicate="intersects")
    return any(compare_areas(shape, shapes[i], 1.0).iou >= RIGHT for i in hits)
