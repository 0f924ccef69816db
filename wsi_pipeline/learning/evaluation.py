"""How well a model does on slides that it has not seen: counted on pixels or on areas, slide by slide."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from wsi_pipeline.config import Tissue
from wsi_pipeline.learning.labels import UNKNOWN, AnnotatedSlide, is_ignored, label_map
from wsi_pipeline.learning.scores import Overlap, SlideScore
from wsi_pipeline.models.card import ClassSpec
from wsi_pipeline.models.segmenter import Segmenter
from wsi_pipeline.objects import Kind, PathObject
from wsi_pipeline.slides import Slide, find_tissue, open_slide, working_downsample
from wsi_pipeline.tiling import CELL, BlockGrid, Bounds, working_size

BLOCK: Final = 5 * CELL


def evaluate(
    segmenter: Segmenter, slides: Iterable[AnnotatedSlide], *, tissue: Tissue | None = None, threshold: float = 0.5
) -> list[SlideScore]:
    """Score a model on annotated slides, pixel by pixel of its map, where they were reviewed.

    The map is what a run gives: windows with the exact halo, at the model's mpp, on tissue; what is annotated
    off the tissue counts as missed.

    Parameters
    ----------
    threshold
        p from which on a pixel is marked.

    Raises
    ------
    SlideError
        A slide cannot be read.
    """
    return [_evaluate_slide(segmenter, annotated, tissue or Tissue(), threshold) for annotated in slides]


def _evaluate_slide(segmenter: Segmenter, annotated: AnnotatedSlide, tissue: Tissue, threshold: float) -> SlideScore:
    card = segmenter.card
    classes = _with_background(card.classes)
    counts = np.zeros((len(card.foreground), 3), dtype=np.int64)
    pixels = 0
    with open_slide(annotated.ref, needed_mpp=card.mpp) as slide:
        downsample = working_downsample(slide, card.mpp)
        pixel_um2 = (slide.mpp * downsample) ** 2
        cells = find_tissue(slide, tissue).cells(CELL, downsample, slide.size)
        grid = BlockGrid(*working_size(slide.size, downsample), BLOCK)
        for row, column in grid:
            place = grid.bounds(row, column)
            labels = label_map(annotated, place, downsample, classes)
            counted = _pixels_of(cells, place) & (labels != UNKNOWN)
            probability = np.zeros((len(card.foreground), *labels.shape), dtype=np.uint8)
            if counted.any():
                probability = _map(segmenter, slide, place, downsample) * counted
            counts += count(probability, labels, classes, threshold)
            pixels += int(counted.sum())
    overlaps = {
        spec.name: Overlap(*(float(n) * pixel_um2 for n in row))
        for spec, row in zip(card.foreground, counts, strict=True)
    }
    return SlideScore(annotated.ref.slide_id, annotated.group, pixels * pixel_um2, overlaps, annotated.source)


def _pixels_of(cells: NDArray[np.bool_], place: Bounds) -> NDArray[np.bool_]:
    """Which pixels of `place`, whose corner is that of a cell, lie in true cells."""
    rows, columns = slice(place.y // CELL, -(-place.bottom // CELL)), slice(place.x // CELL, -(-place.right // CELL))
    return cells[rows, columns].repeat(CELL, axis=0).repeat(CELL, axis=1)[: place.height, : place.width]


def _map(segmenter: Segmenter, slide: Slide, place: Bounds, downsample: float) -> NDArray[np.uint8]:
    """Probability uint8 (classes, height, width) of `place`, at input resolution."""
    card = segmenter.card
    halo = _up(card.halo, card.stride)
    right, bottom = place.x + _up(place.width, card.stride), place.y + _up(place.height, card.stride)
    images = slide.read(Bounds(place.x, place.y, right, bottom).grown(halo), downsample)[None]
    coarse: NDArray[np.uint8] = segmenter.predict(images).probability[0]
    fine = coarse.repeat(card.output_downsample, axis=1).repeat(card.output_downsample, axis=2)
    return fine[:, halo : halo + place.height, halo : halo + place.width]


def _up(length: int, stride: int) -> int:
    return -(-length // stride) * stride


def _with_background(classes: Sequence[ClassSpec]) -> tuple[ClassSpec, ...]:
    """`classes` with something for what lies outside of all annotations, also for a sigmoid model."""
    if any(spec.background for spec in classes):
        return tuple(classes)
    return (*classes, ClassSpec(name="outside of all annotations", color=(255, 255, 255), background=True))


def count(
    probability: NDArray[np.uint8], labels: NDArray[np.uint8], classes: Sequence[ClassSpec], threshold: float
) -> NDArray[np.int64]:
    """Pixels hit, wrong and missed, int64 (foreground classes, 3).

    Parameters
    ----------
    probability
        uint8 (foreground classes, h, w).
    labels
        uint8 (h, w), channels of `classes`; unknown pixels count nowhere.
    """
    known = labels != UNKNOWN
    channels = [channel for channel, spec in enumerate(classes) if not spec.background]
    rows = []
    for index, channel in enumerate(channels):
        marked, there = (probability[index] >= 255 * threshold) & known, (labels == channel) & known
        hit = int((marked & there).sum())
        rows.append((hit, int(marked.sum()) - hit, int(there.sum()) - hit))
    return np.array(rows, dtype=np.int64)


def score_regions(
    annotated: AnnotatedSlide,
    predicted: Iterable[PathObject],
    *,
    mpp: float,
    classes: Sequence[str],
    tissue_um2: float | None = None,
) -> SlideScore:
    """Score the regions of a run against annotations by exact areas; no slide is read.

    Parameters
    ----------
    predicted
        Annotations of the run, level-0 pixels.
    mpp
        Of level 0, µm per pixel.
    tissue_um2
        Area that was looked at; None: the reviewed one, which is not known for a slide reviewed as a whole.
    """
    predicted = list(predicted)
    ignored = _union(annotated.objects, is_ignored)
    pixel_um2 = mpp * mpp

    def known(geometry: BaseGeometry) -> BaseGeometry:
        inside = geometry if annotated.reviewed is None else geometry.intersection(annotated.reviewed)
        return inside.difference(ignored)

    overlaps = {}
    for wanted in classes:
        truth = known(_union(annotated.objects, wanted.__eq__))
        marked = known(_union(predicted, wanted.__eq__))
        hit = truth.intersection(marked).area
        areas = (hit, max(0.0, marked.area - hit), max(0.0, truth.area - hit))
        overlaps[wanted] = Overlap(*(area * pixel_um2 for area in areas))
    if tissue_um2 is None:
        reviewed = annotated.reviewed
        tissue_um2 = math.nan if reviewed is None else reviewed.difference(ignored).area * pixel_um2
    return SlideScore(annotated.ref.slide_id, annotated.group, tissue_um2, overlaps, annotated.source)


def _union(objects: Iterable[PathObject], wanted: Callable[[str], bool]) -> BaseGeometry:
    shapes = [
        ob.geometry
        for ob in objects
        if ob.kind is Kind.ANNOTATION
        and ob.geometry is not None
        and ob.path_class is not None
        and wanted(ob.path_class)
    ]
    return shapely.union_all(shapely.make_valid(np.array(shapes, dtype=object)))
