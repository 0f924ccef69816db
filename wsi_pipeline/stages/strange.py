"""How unlike the training slides each review tile of a slide is: one window in its middle."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.config import Review
from wsi_pipeline.models import ModelCard
from wsi_pipeline.models.appearance import WINDOW, Appearance, Floats, features_of
from wsi_pipeline.models.gauge import BATCH, Gauge
from wsi_pipeline.regions.tiles import tile_side
from wsi_pipeline.regions.unlike import Unlike
from wsi_pipeline.slides import Slide, TissueMask
from wsi_pipeline.tiling import Bounds

Corner = tuple[int, int]


def strange_tiles(
    slide: Slide,
    tissue: TissueMask,
    card: ModelCard,
    gauge: Gauge | None,
    settings: Review,
    *,
    downsample: float,
    map_downsample: float,
) -> dict[Corner, Unlike]:
    """By the corner of the tile in level-0 px; tiles with hardly any tissue in their middle are not in it.

    Parameters
    ----------
    gauge
        Of the model, where its card has statistics of features.
    downsample, map_downsample
        Level-0 px to a pixel of the working level, and to one of the prediction map.

    Raises
    ------
    SlideError
        The slide cannot be read.
    """
    found: dict[Corner, Unlike] = {}
    if card.appearance is None and gauge is None:
        return found
    side = tile_side(map_downsample, settings, slide.mpp)
    batch: list[tuple[Corner, NDArray[np.uint8], Floats]] = []
    # Windows of a large slide are a gigabyte: a batch of them at a time.
    for item in _windows(slide, tissue, side, downsample):
        batch.append(item)
        if len(batch) == BATCH:
            found.update(_unlike(batch, card.appearance, gauge))
            batch = []
    found.update(_unlike(batch, card.appearance, gauge))
    return found


def _windows(
    slide: Slide, tissue: TissueMask, side: int, downsample: float
) -> Iterator[tuple[Corner, NDArray[np.uint8], Floats]]:
    """Corner, window and features of the appearance of each tile whose middle holds enough tissue."""
    for x, y in _corners(slide.size, tissue, side):
        left, top = (round((v + side / 2) / downsample) - WINDOW // 2 for v in (x, y))
        window = slide.read(Bounds(left, top, left + WINDOW, top + WINDOW), downsample)
        features = features_of(window)
        if features is not None:
            yield (x, y), window, features


def _unlike(
    batch: list[tuple[Corner, NDArray[np.uint8], Floats]], appearance: Appearance | None, gauge: Gauge | None
) -> dict[Corner, Unlike]:
    if not batch:
        return {}
    corners, windows, rows = zip(*batch, strict=True)
    features = np.array(rows)
    none = [None] * len(batch)
    looks = none if appearance is None else appearance.strangeness(features).tolist()
    words = ["colour"] * len(batch) if appearance is None else appearance.words(features)
    structures = none if gauge is None else gauge.strangeness(windows).tolist()
    values = zip(corners, looks, words, structures, strict=True)
    return {corner: Unlike(look, word, structure) for corner, look, word, structure in values}


def _corners(size: tuple[int, int], tissue: TissueMask, side: int) -> list[Corner]:
    """Corners of the grid's tiles that hold any tissue."""
    rows, columns = np.nonzero(tissue.mask)
    x, y = (((v + 0.5) * tissue.downsample).astype(np.intp) // side for v in (columns, rows))
    cells = np.unique(np.stack([y, x], axis=1), axis=0)
    return [(int(c) * side, int(r) * side) for r, c in cells if c * side < size[0] and r * side < size[1]]
