"""Shapes of masks, against definitions that are slow and plain."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from wsi_pipeline.slides.shapes import closed, grown, opened, small_holes, without_small

Mask = NDArray[np.bool_]
masks = st.builds(
    lambda seed, height, width, share: np.random.default_rng(seed).random((height, width)) < share,
    st.integers(0, 10_000),
    st.integers(1, 30),
    st.integers(1, 30),
    st.sampled_from([0.0, 0.02, 0.2, 0.8, 1.0]),
)


@given(masks, st.integers(0, 12))
@settings(deadline=None)
def test_grown_is_all_that_lies_within_the_radius(mask: Mask, radius: int) -> None:
    before = mask.copy()
    far = ndimage.distance_transform_edt(~mask) if mask.any() else np.full(mask.shape, np.inf)
    np.testing.assert_array_equal(grown(mask, radius), far <= radius)
    np.testing.assert_array_equal(mask, before)


@given(masks, st.integers(1, 6))
@settings(deadline=None)
def test_closing_only_adds_opening_only_takes_and_both_do_it_once(mask: Mask, radius: int) -> None:
    more, less = closed(mask, radius), opened(mask, radius)
    assert (more | mask == more).all()
    assert (less & mask == less).all()
    np.testing.assert_array_equal(closed(more, radius), more)


def test_a_gap_is_closed_when_it_is_narrower_than_two_radii() -> None:
    mask = np.zeros((40, 60), bool)
    mask[10:30, 10:25] = mask[10:30, 31:50] = True
    assert closed(mask, 4)[20, 25:31].all()
    assert not closed(mask, 2)[20, 25:31].any()


def test_a_line_does_not_survive_opening_and_a_block_at_the_edge_does() -> None:
    mask = np.zeros((30, 30), bool)
    mask[:8, :8] = True
    mask[20] = True
    kept = opened(mask, 1)
    assert kept[0, 0]
    assert not kept[20].any()


def test_pieces_and_holes_are_counted_in_pixels() -> None:
    mask = np.zeros((12, 12), bool)
    mask[1:6, 1:6] = True
    mask[3, 3] = False
    mask[9:11, 9:11] = True
    assert without_small(mask, 5).sum() == 24
    assert small_holes(mask, 1).sum() == 1
    assert not small_holes(mask, 0).any()


@given(masks, st.integers(0, 40))
@settings(deadline=None)
def test_what_is_small_goes_whole_and_what_is_not_stays_whole(mask: Mask, pixels: int) -> None:
    kept = without_small(mask, pixels)
    labels, count = ndimage.label(mask, np.ones((3, 3)))
    for piece in range(1, count + 1):
        inside = labels == piece
        assert kept[inside].all() if inside.sum() >= pixels else not kept[inside].any()


@given(masks, st.integers(1, 40))
@settings(deadline=None)
def test_a_hole_never_touches_the_edge_of_the_picture(mask: Mask, pixels: int) -> None:
    holes = small_holes(mask, pixels)
    assert not (holes & mask).any()
    assert not any(edge.any() for edge in (holes[0], holes[-1], holes[:, 0], holes[:, -1]))
