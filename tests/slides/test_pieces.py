"""Connected pieces, against the labels of scipy.ndimage."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from wsi_pipeline.slides.pieces import Pieces

Mask = NDArray[np.bool_]
masks = st.builds(
    lambda seed, height, width, share: np.random.default_rng(seed).random((height, width)) < share,
    st.integers(0, 10_000),
    st.integers(1, 40),
    st.integers(1, 40),
    st.sampled_from([0.0, 0.05, 0.3, 0.5, 0.6, 0.9, 1.0]),
)


def labels_of(mask: Mask, *, diagonal: bool) -> tuple[NDArray[np.signedinteger], int]:
    labels, count = ndimage.label(mask, np.ones((3, 3)) if diagonal else None)
    return labels, count


@given(masks, st.booleans())
@settings(deadline=None)
def test_pieces_are_those_of_ndimage_in_reading_order(mask: Mask, diagonal: bool) -> None:
    pieces = Pieces.of(mask, diagonal=diagonal)
    labels, count = labels_of(mask, diagonal=diagonal)
    assert len(pieces) == count
    # In reading order of their first pixels, which scipy does not promise.
    order = list(dict.fromkeys(labels[mask].tolist()))
    np.testing.assert_array_equal(np.array([0, *order])[pieces.of_pixels + 1], labels[mask])
    np.testing.assert_array_equal(pieces.sizes, np.bincount(labels[mask], minlength=1)[order] if order else [])


@given(masks, st.booleans(), st.integers(0, 2**32 - 1))
@settings(deadline=None)
def test_what_is_drawn_is_what_is_kept(mask: Mask, diagonal: bool, seed: int) -> None:
    pieces = Pieces.of(mask, diagonal=diagonal)
    keep = np.random.default_rng(seed).random(len(pieces)) < 0.5
    wanted = np.zeros(mask.shape, bool)
    wanted[mask] = keep[pieces.of_pixels]
    np.testing.assert_array_equal(pieces.drawn(keep), wanted)
    np.testing.assert_array_equal(pieces.drawn(np.ones(len(pieces), bool)), mask)


@given(masks)
@settings(deadline=None)
def test_those_at_the_edge_have_a_pixel_there(mask: Mask) -> None:
    pieces = Pieces.of(mask, diagonal=False)
    labels, _ = labels_of(mask, diagonal=False)
    outer = np.ones(mask.shape, bool)
    outer[1:-1, 1:-1] = False
    touching = set(labels[outer & mask].tolist())
    order = list(dict.fromkeys(labels[mask].tolist()))
    assert [number in touching for number in order] == pieces.at_edge().tolist()


@pytest.mark.parametrize("turn", range(4))
def test_a_long_snake_is_one_piece(turn: int) -> None:
    mask = np.zeros((101, 40), bool)
    mask[::2] = True
    mask[1::4, -1] = mask[3::4, 0] = True
    snake = np.rot90(mask, turn)
    assert len(Pieces.of(snake, diagonal=False)) == 1
    cut = snake.copy()
    cut[np.nonzero(snake)[0][0]] = False
    assert len(Pieces.of(cut, diagonal=False)) == labels_of(cut, diagonal=False)[1]


def test_a_comb_whose_teeth_meet_only_at_its_back_is_one_piece() -> None:
    mask = np.zeros((60, 201), bool)
    mask[:, ::2] = True
    mask[-1] = True
    assert len(Pieces.of(mask, diagonal=True)) == 1
    assert len(Pieces.of(mask[:-1], diagonal=True)) == 101
