"""From annotated slides to training tiles, at the model's resolution and in bounded number."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.config import Tissue
from wsi_pipeline.learning.labels import UNKNOWN, AnnotatedSlide, background_of, label_map
from wsi_pipeline.learning.samples import Tile
from wsi_pipeline.models.card import ClassSpec
from wsi_pipeline.slides import Slide, find_tissue, open_slide, working_downsample
from wsi_pipeline.tiling import Bounds, working_size

_log = logging.getLogger(__name__)


def tiles_of(
    slides: Iterable[AnnotatedSlide],
    *,
    mpp: float,
    classes: Sequence[ClassSpec],
    side: int = 256,
    per_slide: int = 48,
    tissue: Tissue | None = None,
    seed: int = 0,
) -> list[Tile]:
    """Tiles of all slides, on tissue and where reviewed; at most `per_slide` of each, balanced.

    Balanced: half of them hold the model's classes where there are so many, the other half do not.

    Parameters
    ----------
    mpp
        Of the model, µm per pixel.
    side
        Of a tile, in pixels at that mpp.
    seed
        Which tiles are taken where there are more; the same seed, the same tiles.

    Raises
    ------
    SlideError
        A slide cannot be read, or is too coarse for the model.
    """
    background_of(classes)
    found: list[Tile] = []
    for index, annotated in enumerate(slides):
        rng = np.random.default_rng([seed, index])
        with open_slide(annotated.ref, needed_mpp=mpp) as slide:
            new = _tiles_of_slide(slide, annotated, mpp, classes, side, per_slide, tissue or Tissue(), rng)
        if not new:
            _log.warning("%s: no tissue that is reviewed, nothing to learn from", annotated.ref.slide_id)
        found += new
    return found


def _tiles_of_slide(
    slide: Slide,
    annotated: AnnotatedSlide,
    mpp: float,
    classes: Sequence[ClassSpec],
    side: int,
    per_slide: int,
    tissue: Tissue,
    rng: np.random.Generator,
) -> list[Tile]:
    downsample = working_downsample(slide, mpp)
    places = tissue_squares(slide, tissue, side, downsample)
    labelled = [(place, label_map(annotated, place, downsample, classes)) for place in places]
    labelled = [(place, labels) for place, labels in labelled if (labels != UNKNOWN).any()]
    background = background_of(classes)
    return [
        Tile(annotated.ref.slide_id, annotated.group, slide.read(place, downsample), labels, annotated.source)
        for place, labels in _balanced(labelled, background, per_slide, rng)
    ]


def tissue_squares(slide: Slide, tissue: Tissue, side: int, downsample: float) -> list[Bounds]:
    """Squares of the slide-wide grid that hold tissue, row by row, in working-level pixels.

    The last ones may reach beyond the slide, where a slide reads as white.
    """
    cells = find_tissue(slide, tissue).cells(side, downsample, slide.size)
    width, height = working_size(slide.size, downsample)
    places = [(int(column) * side, int(row) * side) for row, column in np.argwhere(cells)]
    return [Bounds(x, y, x + side, y + side) for x, y in places if x < width and y < height]


def _balanced(
    labelled: list[tuple[Bounds, NDArray[np.uint8]]], background: int, most: int, rng: np.random.Generator
) -> list[tuple[Bounds, NDArray[np.uint8]]]:
    """At most `most`, in their order: half with a class where there are so many, filled up from the other half."""
    holds = np.array([_share(labels, background) > 0.02 for _, labels in labelled], dtype=bool)
    with_class, without = rng.permutation(np.flatnonzero(holds)), rng.permutation(np.flatnonzero(~holds))
    half = max(most - most // 2, most - without.size)
    taken = [*with_class[:half], *without[: most - min(half, with_class.size)]]
    return [labelled[index] for index in sorted(taken)]


def _share(labels: NDArray[np.uint8], background: int) -> float:
    """Share of the known pixels that belong to a class."""
    known = labels != UNKNOWN
    return float(((labels != background) & known).sum() / max(1, int(known.sum())))
