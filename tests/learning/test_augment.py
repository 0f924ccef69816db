from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tests.learning.made import blob_tile
from wsi_pipeline.learning.augment import Augmentation, restain
from wsi_pipeline.models.stain import haematoxylin

TILE = blob_tile(1, side=32)
STILL = Augmentation(stain=0, light=0)


@given(seed=st.integers(0, 10_000))
def test_image_and_labels_are_turned_together(seed: int) -> None:
    marked = np.zeros((8, 8, 3), dtype=np.uint8)
    marked[1, 5] = 200
    labels = (marked[..., 0] > 0).astype(np.uint8)
    image, turned = STILL.apply(marked, labels, np.random.default_rng(seed))
    np.testing.assert_array_equal(image[..., 0] > 0, turned == 1)


def test_all_eight_positions_occur() -> None:
    corner = np.zeros((4, 4), dtype=np.uint8)
    corner[0, 1] = 1
    image = np.zeros((4, 4, 3), dtype=np.uint8)
    seen = {STILL.apply(image, corner, np.random.default_rng(seed))[1].tobytes() for seed in range(100)}
    assert len(seen) == 8


@given(seed=st.integers(0, 10_000))
def test_the_same_seed_gives_the_same_variation(seed: int) -> None:
    first = Augmentation().apply(TILE.image, TILE.labels, np.random.default_rng(seed))
    second = Augmentation().apply(TILE.image, TILE.labels, np.random.default_rng(seed))
    np.testing.assert_array_equal(first[0], second[0])
    assert first[0].dtype == np.uint8


def test_restaining_by_one_changes_nothing() -> None:
    assert restain(TILE.image, np.ones(3), 0.0) is TILE.image
    nearly = restain(TILE.image, np.ones(3) + 1e-7, 0.0).astype(int)
    assert np.abs(nearly - TILE.image).max() <= 1


def test_more_haematoxylin_is_more_haematoxylin() -> None:
    image = np.full((1, 1, 1, 3), (150, 110, 180), dtype=np.uint8)
    more = restain(image, np.array([1.5, 1, 1]), 0.0)
    before, after = haematoxylin(image).item(), haematoxylin(more).item()
    assert 1.4 < after / before < 1.6


def test_more_density_is_darker_and_less_is_lighter() -> None:
    assert (
        restain(TILE.image, np.ones(3), 0.1).mean() < TILE.image.mean() < restain(TILE.image, np.ones(3), -0.1).mean()
    )
