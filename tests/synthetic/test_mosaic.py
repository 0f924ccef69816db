"""Quilts of tiles: pixels are moved and never invented, and the truth moves with them."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from wsi_pipeline.raster import fill
from wsi_pipeline.synthetic.marks import dust, pen
from wsi_pipeline.synthetic.mosaic import Deck, Glass, Tile, piece_of
from wsi_pipeline.tiling import Bounds

SIDE = 256


def tile(value: int, *, tumour: bool) -> Tile:
    """One colour, all tumour or none: so that every pixel tells which tile it came from."""
    return Tile(np.full((SIDE, SIDE, 3), value, np.uint8), np.full((SIDE, SIDE), tumour))


def patterned(seed: int) -> Tile:
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 200, (SIDE, SIDE, 3)).astype(np.uint8)
    y, x = np.mgrid[0:SIDE, 0:SIDE]
    return Tile(image, (x - 90) ** 2 + (y - 120) ** 2 < 60**2)


def test_the_eight_ways_to_turn_a_tile_differ_and_keep_every_pixel() -> None:
    source = patterned(1)
    turned = [source.turned(way) for way in range(8)]
    assert len({one.image.tobytes() for one in turned}) == 8
    for one in turned:
        assert np.bincount(one.image.reshape(-1)).tolist() == np.bincount(source.image.reshape(-1)).tolist()
        assert one.tumour.sum() == source.tumour.sum()


@pytest.mark.parametrize("way", range(8))
def test_picture_and_mask_are_turned_together(way: int) -> None:
    source = patterned(2)
    source = Tile(np.where(source.tumour[..., None], 255, source.image).astype(np.uint8), source.tumour)
    turned = source.turned(way)
    assert (turned.image[turned.tumour] == 255).all()
    assert (turned.image[~turned.tumour] < 255).all()


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 999), rows=st.integers(1, 3), columns=st.integers(1, 3))
def test_a_piece_of_tumour_tiles_is_tumour_all_over(seed: int, rows: int, columns: int) -> None:
    piece = piece_of(np.random.default_rng(seed), [[tile(120, tumour=True)] * columns] * rows)
    assert piece.outline.is_valid
    assert piece.outline.symmetric_difference(piece.tumour).area < 0.02 * piece.outline.area
    height, width = piece.opacity.shape
    assert shapely.box(0, 0, width, height).contains(piece.outline)
    # Most of the tissue is kept.
    assert 0.5 < piece.outline.area / (width * height) < 0.95


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 999))
def test_where_the_truth_says_tumour_the_picture_shows_the_tumour_tile(seed: int) -> None:
    piece = piece_of(np.random.default_rng(seed), [[tile(40, tumour=True), tile(200, tumour=False)]])
    frame = Bounds(0, 0, piece.opacity.shape[1], piece.opacity.shape[0])
    dark = piece.image[..., 0] < 120
    tumour, inside = fill(piece.tumour, frame), fill(piece.outline, frame)
    assert ((dark != tumour) & inside).sum() < 0.02 * inside.sum()


def test_opacity_is_half_on_the_outline() -> None:
    piece = piece_of(np.random.default_rng(3), [[patterned(3), patterned(4)]])
    inside = fill(piece.outline, Bounds(0, 0, piece.opacity.shape[1], piece.opacity.shape[0]))
    assert ((piece.opacity > 0.5) != inside).mean() < 0.003


def test_a_deck_deals_every_tile_equally_often_and_never_twice_the_same_way() -> None:
    tiles = [patterned(seed) for seed in range(3)]
    deck = Deck(np.random.default_rng(0), tiles)
    dealt = [t for _ in range(4) for row in deck.grid(2, 3) for t in row]
    assert len({t.image.tobytes() for t in dealt}) == 24
    with pytest.raises(ValueError, match="empty"):
        deck.grid(1, 1)


def test_a_deck_continues_what_it_can() -> None:
    """Half dark, half bright: dark is laid beside dark."""
    image = np.zeros((SIDE, SIDE, 3), np.uint8)
    image[:, SIDE // 2 :] = 200
    half = Tile(image, image[..., 0] > 100)
    for seed in range(8):
        left, right = Deck(np.random.default_rng(seed), [half]).grid(1, 2)[0]
        assert np.array_equal(left.image[:, -1], right.image[:, 0])


def test_laying_pieces_adds_their_truth_at_their_place() -> None:
    rng = np.random.default_rng(5)
    piece = piece_of(rng, [[patterned(5), patterned(6)]])
    glass = Glass.empty(rng, (1500, 700), (228.0, 220.0, 223.0))
    glass.lay(piece, 40, 60)
    glass.lay(piece, 800, 300)
    truth = glass.truth(0.5)
    assert truth.size == (1500, 700)
    assert truth.tumour.area == pytest.approx(2 * piece.tumour.area, rel=1e-3)
    left = shapely.affinity.translate(piece.outline, 40, 60)
    assert truth.tissue.intersection(left).area == pytest.approx(left.area, rel=1e-3)


def test_pen_stays_off_tissue_and_dust_does_not() -> None:
    rng = np.random.default_rng(6)
    glass = Glass.empty(rng, (900, 600), (228.0, 220.0, 223.0))
    glass.lay(piece_of(rng, [[tile(150, tumour=False)] * 2]), 200, 150)
    core = fill(glass.outline.buffer(-6), Bounds(0, 0, 900, 600))
    before = glass.picture()
    glass.mark(pen(rng, (420.0, 280.0), (200.0, 120.0), 30.0, (30, 30, 34)))
    after = glass.picture()
    changed = (before != after).any(axis=2)
    assert changed.sum() > 1000
    assert not (changed & core).any()
    specks = [dust(rng, (900, 600), 0.5) for _ in range(60)]
    for speck in specks:
        glass.mark(speck)
    assert ((glass.picture() != after).any(axis=2) & core).any()
