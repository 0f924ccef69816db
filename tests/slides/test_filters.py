"""The filters, against those of scipy.ndimage: bytes and masks to the last bit, float32 but for a rounding."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from wsi_pipeline.slides import filters
from wsi_pipeline.slides.shapes import near

# Taller than the rows that are filtered together, and smaller than a filter.
sides = st.one_of(st.integers(1, 8), st.integers(28, 70))
seeds = st.integers(0, 10_000)


def densities(seed: int, height: int, width: int) -> NDArray[np.float32]:
    """Like optical densities: few values, of which small differences are taken."""
    shades = np.random.default_rng(seed).integers(1, 257, (height, width)).astype(np.float32)
    return np.asarray(-np.log10(shades / 256) - np.float32(0.02), np.float32)


@given(seeds, sides, sides, st.sampled_from([0.4, 0.7, 1.5]))
@settings(deadline=None)
def test_gaussian(seed: int, height: int, width: int, sigma: float) -> None:
    image = densities(seed, height, width)
    np.testing.assert_allclose(filters.gaussian(image, sigma), ndimage.gaussian_filter(image, sigma), atol=1e-6)


@given(seeds, sides, sides, st.integers(0, 5))
@settings(deadline=None)
def test_mean(seed: int, height: int, width: int, radius: int) -> None:
    image = densities(seed, height, width)
    np.testing.assert_allclose(filters.mean(image, radius), ndimage.uniform_filter(image, 2 * radius + 1), atol=1e-6)


@given(seeds, sides, sides, st.integers(0, 20))
@settings(deadline=None)
def test_mean_of_bytes(seed: int, height: int, width: int, radius: int) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (height, width), np.uint8)
    np.testing.assert_array_equal(filters.mean_of_bytes(image, radius), ndimage.uniform_filter(image, 2 * radius + 1))


@pytest.mark.parametrize("height", [filters.ROWS * 8 - 1, filters.ROWS * 8 + 1, filters.ROWS * 16])
def test_tall_pictures_of_bytes(height: int) -> None:
    image = np.random.default_rng(height).integers(0, 256, (height, 5), np.uint8)
    np.testing.assert_array_equal(filters.mean_of_bytes(image, 12), ndimage.uniform_filter(image, 25))


@given(seeds, sides, sides, st.integers(0, 12), st.sampled_from([0.0, 0.01, 0.2]))
@settings(deadline=None)
def test_near_is_what_a_square_reaches(seed: int, height: int, width: int, reach: int, share: float) -> None:
    mask = np.random.default_rng(seed).random((height, width)) < share
    before = mask.copy()
    np.testing.assert_array_equal(near(mask, reach), ndimage.maximum_filter(mask, 2 * reach + 1))
    np.testing.assert_array_equal(mask, before)
