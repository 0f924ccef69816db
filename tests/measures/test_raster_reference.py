"""Measures on vectors against scikit-image on masks of the same shapes."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from tests.measures.shapes import region
from wsi_pipeline.measures import compare_areas, compare_boundaries

metrics = pytest.importorskip("skimage.metrics")
draw = pytest.importorskip("skimage.draw")
segmentation = pytest.importorskip("skimage.segmentation")
measure = pytest.importorskip("skimage.measure")

# Pixels to one of the shapes' units: thin parts do not vanish.
SCALE = 2
SIDE = 330 * SCALE
few = settings(max_examples=15, deadline=None)


def mask_of(shape: BaseGeometry) -> NDArray[np.bool_]:
    """Pixels whose centre lies inside, drawn ring by ring by scikit-image."""
    mask = np.zeros((SIDE, SIDE), bool)
    for part in shapely.get_parts(shape):
        for ring in (part.exterior, *part.interiors):
            # Rows and columns of pixel centres; the shapes reach beyond 0.
            points = (np.array(ring.coords)[:, ::-1] + 60) * SCALE - 0.5
            mask ^= draw.polygon2mask((SIDE, SIDE), points)
    return mask


@given(seed=st.integers(0, 10_000))
@few
def test_overlap_is_that_of_the_masks(seed: int) -> None:
    a, b = region(seed), region(seed + 1)
    first, second = mask_of(a), mask_of(b)
    found = compare_areas(a, b, 0.5)
    um2 = (0.5 / SCALE) ** 2
    # A mask is off by less than half a pixel along its outline.
    slack = 0.5 * SCALE * (a.length + b.length) * um2
    assert found.before == pytest.approx(first.sum() * um2, abs=slack)
    assert found.kept == pytest.approx((first & second).sum() * um2, abs=slack)
    assert found.removed == pytest.approx((first & ~second).sum() * um2, abs=slack)
    assert found.added == pytest.approx((second & ~first).sum() * um2, abs=slack)
    assert found.dice == pytest.approx(2 * (first & second).sum() / (first.sum() + second.sum()), abs=0.03)


@given(seed=st.integers(0, 10_000))
@few
def test_the_hausdorff_distance_is_that_of_the_outlines_pixels_within_one(seed: int) -> None:
    a, b = region(seed), region(seed + 1)
    outlines = [segmentation.find_boundaries(mask_of(shape), mode="inner") for shape in (a, b)]
    found = compare_boundaries(a, b, 1.0, tolerance_um=1.0)
    assert found.hd == pytest.approx(metrics.hausdorff_distance(*outlines) / SCALE, abs=1)


@given(seed=st.integers(0, 10_000))
@few
def test_perimeters_are_those_of_the_marching_squares(seed: int) -> None:
    shape = region(seed)
    contours = measure.find_contours(mask_of(shape).astype(float), 0.5)
    # A staircase of half-pixel diagonals is at most 8.3 % too long.
    length = sum(np.hypot(*np.diff(c, axis=0).T).sum() for c in contours) / SCALE
    found = compare_boundaries(shape, region(seed + 1), 1.0, tolerance_um=1.0).length_before
    assert found * 0.97 <= length <= found * 1.1
