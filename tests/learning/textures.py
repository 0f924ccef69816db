"""Tissue that a small network can learn, and other textures made of the very same pixels, as sharp as it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from wsi_pipeline.learning.samples import Tile
from wsi_pipeline.models.appearance import features_of
from wsi_pipeline.states import Source

PINK, VIOLET = np.array([225.0, 165, 205]), np.array([110.0, 60, 150])
SIDE = 256


def tissue_tile(seed: int, slide: int, side: int = SIDE) -> Tile:
    """Round violet nuclei on pink; a quarter of the tile or so is crowded with them: that is the tumour.

    Each slide has a stain of its own.
    """
    rng = np.random.default_rng([seed, slide])
    stain = 1 + 0.04 * np.random.default_rng(1000 + slide).normal(size=3)
    crowded = gaussian_filter(rng.normal(size=(side, side)), side / 8) > 0
    nuclei = np.zeros((side, side), bool)
    for cy, cx in rng.uniform(0, side, (side * side // 150, 2)):
        if crowded[int(cy), int(cx)] or rng.random() < 0.3:
            top, left = (max(0, int(v) - 5) for v in (cy, cx))
            y, x = np.mgrid[top : min(side, top + 11), left : min(side, left + 11)]
            nuclei[y, x] |= (y - cy) ** 2 + (x - cx) ** 2 < rng.uniform(2.5, 4.5) ** 2
    density = -np.log10(np.where(nuclei[..., None], VIOLET, PINK) / 256) * stain
    density = gaussian_filter(density, (0.6, 0.6, 0)) * (1 + 0.08 * rng.normal(size=(side, side, 1)))
    image = np.clip(256 * 10**-density - 1, 0, 255).astype(np.uint8)
    return Tile(f"slide{slide}", f"slide{slide}", image, crowded.astype(np.uint8), Source.SIMULATED)


def woven(window: NDArray[np.uint8], seed: int) -> NDArray[np.uint8]:
    """The pixels of a window in another order: stripes at an angle, with just so much noise that it is as sharp.

    All that is said of single pixels (mean and standard deviation of each colour) stays exactly the same.
    """
    rng = np.random.default_rng(seed)
    side = window.shape[0]
    y, x = np.mgrid[:side, :side]
    angle, period = rng.uniform(0, np.pi), rng.uniform(14, 22)
    noise = rng.normal(size=(side, side))
    wanted = sharpness(window)
    while True:
        stripes = np.sin(2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / period)
        if sharpness(_laid_out(window, stripes)) < wanted:
            break
        period *= 1.25
    low, high = 0.0, 4.0
    for _ in range(30):
        amount = (low + high) / 2
        found = _laid_out(window, stripes + amount * noise)
        low, high = (amount, high) if sharpness(found) < wanted else (low, amount)
    return _laid_out(window, stripes + high * noise)


def sharpness(window: NDArray[np.uint8]) -> float:
    """Logarithm of the variance of the Laplacian, as the appearance has it."""
    found = features_of(window)
    assert found is not None
    return float(found[6])


def _laid_out(window: NDArray[np.uint8], order: NDArray[np.float64]) -> NDArray[np.uint8]:
    """The window's pixels, the lightest where `order` is highest."""
    pixels = window.reshape(-1, 3)
    by_light = pixels[np.argsort(pixels.sum(axis=1, dtype=np.intp), kind="stable")]
    ranks = np.empty(order.size, np.intp)
    ranks[np.argsort(order.ravel(), kind="stable")] = np.arange(order.size)
    return by_light[ranks].reshape(window.shape)
