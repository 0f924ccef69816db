"""How unlike the training slides each review tile of a slide looks: one window in its middle."""

from __future__ import annotations

import numpy as np

from wsi_pipeline.config import Review
from wsi_pipeline.models.appearance import WINDOW, Appearance, features_of
from wsi_pipeline.regions.tiles import Strangeness, tile_side
from wsi_pipeline.slides import Slide, TissueMask
from wsi_pipeline.tiling import Bounds


def strange_tiles(
    slide: Slide,
    tissue: TissueMask,
    appearance: Appearance,
    settings: Review,
    *,
    downsample: float,
    map_downsample: float,
) -> dict[tuple[int, int], Strangeness]:
    """By the corner of the tile in level-0 px; tiles with hardly any tissue in their middle are not in it.

    Parameters
    ----------
    downsample, map_downsample
        Level-0 px to a pixel of the working level, and to one of the prediction map.

    Raises
    ------
    SlideError
        The slide cannot be read.
    """
    side = tile_side(map_downsample, settings, slide.mpp)
    corners, found = [], []
    for x, y in _corners(slide.size, tissue, side):
        middle = [round((v + side / 2) / downsample) - WINDOW // 2 for v in (x, y)]
        window = Bounds(middle[0], middle[1], middle[0] + WINDOW, middle[1] + WINDOW)
        features = features_of(slide.read(window, downsample))
        if features is not None:
            corners.append((x, y))
            found.append(features)
    if not found:
        return {}
    features = np.array(found)
    values = zip(appearance.strangeness(features).tolist(), appearance.words(features), strict=True)
    return dict(zip(corners, values, strict=True))


def _corners(size: tuple[int, int], tissue: TissueMask, side: int) -> list[tuple[int, int]]:
    """Corners of the grid's tiles that hold any tissue."""
    rows, columns = np.nonzero(tissue.mask)
    x, y = (((v + 0.5) * tissue.downsample).astype(np.intp) // side for v in (columns, rows))
    cells = np.unique(np.stack([y, x], axis=1), axis=0)
    return [(int(c) * side, int(r) * side) for r, c in cells if c * side < size[0] and r * side < size[1]]
