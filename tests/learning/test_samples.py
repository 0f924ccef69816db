from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.learning.made import blob_tile
from wsi_pipeline.learning.augment import Augmentation
from wsi_pipeline.learning.labels import UNKNOWN
from wsi_pipeline.learning.samples import Crops, Tile

STILL = Augmentation(stain=0, light=0)


def marked_tile(labels: np.ndarray[tuple[int, int], np.dtype[np.uint8]]) -> Tile:
    """A tile whose image shows its own labels and positions, so that a crop can be recognised."""
    rows, columns = np.indices(labels.shape)
    image = np.stack([labels, rows, columns], axis=-1).astype(np.uint8)
    return Tile("s", "s", image, labels)


@settings(deadline=None)
@given(seed=st.integers(0, 1000), side=st.integers(16, 80))
def test_image_and_labels_of_a_crop_come_from_the_same_place(seed: int, side: int) -> None:
    labels = np.random.default_rng(seed).choice(np.array([0, 1, UNKNOWN], dtype=np.uint8), (side, side))
    labels[0, 0] = 1
    images, found = Crops([marked_tile(labels)], crop=16, classes=2, augmentation=STILL, seed=seed).batch(4)
    assert images.shape == (4, 16, 16, 3)
    np.testing.assert_array_equal(images[..., 0], found)
    np.testing.assert_array_equal(labels[images[..., 1], images[..., 2]], found)


def test_the_same_seed_gives_the_same_crops_and_another_seed_others() -> None:
    tiles = [blob_tile(seed) for seed in range(3)]

    def draw(seed: int) -> bytes:
        return Crops(tiles, crop=32, classes=2, augmentation=Augmentation(), seed=seed).batch(8)[0].tobytes()

    assert draw(1) == draw(1)
    assert draw(1) != draw(2)


def test_a_rare_class_is_in_about_half_of_the_crops() -> None:
    labels = np.zeros((256, 256), dtype=np.uint8)
    tiles = [marked_tile(labels) for _ in range(50)]
    rare = labels.copy()
    rare[100:104, 100:104] = 1
    crops = Crops([*tiles, marked_tile(rare)], crop=16, classes=2, augmentation=STILL, seed=0).batch(400)[1]
    share = float((crops == 1).any(axis=(1, 2)).mean())
    # A quarter is drawn around the class: half of the crops go by class, and one of two classes is the rare one.
    assert 0.18 < share < 0.32


def test_a_crop_always_holds_a_pixel_that_is_known() -> None:
    labels = np.full((64, 64), UNKNOWN, dtype=np.uint8)
    labels[60:, 60:] = 0
    crops = Crops([marked_tile(labels)], crop=16, classes=2, augmentation=STILL, seed=0).batch(50)[1]
    assert (crops != UNKNOWN).any(axis=(1, 2)).all()


def test_tiles_where_nothing_is_known_are_never_drawn() -> None:
    nothing = marked_tile(np.full((32, 32), UNKNOWN, dtype=np.uint8))
    something = marked_tile(np.ones((32, 32), dtype=np.uint8))
    crops = Crops([nothing, something], crop=16, classes=2, augmentation=STILL, seed=0).batch(50)[1]
    assert (crops == 1).all()
