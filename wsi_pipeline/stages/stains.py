"""The stains of one slide, estimated once on its tissue at low resolution, for models that must know them."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wsi_pipeline.models.macenko import Stains, estimate_stains
from wsi_pipeline.slides import Slide, TissueMask
from wsi_pipeline.slides.stains import glass_density

SIDE_PX: Final = 2048
"""Longest side of the picture that the stains are estimated on. Coarser, the stains of nuclei and of what lies
between them mix: their vectors come closer together, and the scale of haematoxylin becomes too short."""


def stains_of(slide: Slide, tissue: TissueMask) -> Stains:
    """The stains of a slide on its tissue; of the whole picture where there is no tissue.

    The vectors come from tissue alone, glass from the even bright parts.
    """
    picture = slide.thumbnail(SIDE_PX)
    density = glass_density(picture).astype(np.float64)
    # The inverse of the density of `wsi_pipeline.slides.stains`.
    red, green, blue = (float(v) for v in np.clip(256 * 10**-density - 1, 1, 255))
    where = _on(tissue, picture.shape[:2])
    pixels = picture[where] if where.any() else picture.reshape(-1, 3)
    return estimate_stains(pixels, (red, green, blue))


def _on(tissue: TissueMask, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """The mask at the picture's size."""
    height, width = shape
    resized = Image.fromarray(tissue.mask).resize((width, height), Image.Resampling.NEAREST)
    return np.asarray(resized, bool)
