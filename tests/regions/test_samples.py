"""Samples of the maps: the same as of the whole map, and no block decoded more often than memory asks for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.regions.fakes import ArrayMap, array_map, smooth
from wsi_pipeline.regions.contours import pooled
from wsi_pipeline.regions.samples import Kept, Samples
from wsi_pipeline.tiling import Bounds


@given(
    height=st.integers(2, 70), width=st.integers(2, 70), block=st.sampled_from([8, 16, 32]), seed=st.integers(0, 999)
)
@settings(max_examples=40, deadline=None)
def test_blocks_come_with_their_neighbours_border_and_every_pixel_is_read_once(
    height: int, width: int, block: int, seed: int
) -> None:
    factor = 2
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (height, width), dtype=np.uint8)
    read = np.zeros((height, width), int)

    class Counted(ArrayMap):
        def read(self, channel: int, bounds: Bounds) -> NDArray[np.uint8]:
            read[bounds.y : bounds.bottom, bounds.x : bounds.right] += 1
            return super().read(channel, bounds)

    source = Counted(image[None], image, block, 1.0, (width, height))
    whole, seen = pooled(image, factor), 0
    samples = Samples(source, 0, factor)
    blocks = list(samples.grid)
    for number in rng.permutation(len(blocks)):
        row, column = blocks[number]
        found = samples.with_neighbours(row, column)
        y, x, side = row * block // factor, column * block // factor, block // factor
        np.testing.assert_array_equal(found, whole[y : y + side + 1, x : x + side + 1])
        seen += min(side, whole.shape[0] - y) * min(side, whole.shape[1] - x)
    assert seen == whole.size
    assert (read == 1).all()


@given(
    x=st.integers(0, 40), y=st.integers(0, 40), w=st.integers(0, 40), h=st.integers(0, 40), kept=st.integers(1, 3000)
)
@settings(max_examples=60, deadline=None)
def test_any_rectangle_is_that_of_the_whole_map(x: int, y: int, w: int, h: int, kept: int) -> None:
    maps = [smooth(seed, 80, 80) for seed in (1, 2, 3)]
    maps[0][:20, :20] = 0
    source = array_map(maps[0], block=16, entropy=maps[1], apart=maps[2])
    samples = Samples(source, 0, 2, Kept(kept))
    bounds = Bounds(x, y, x + w, y + h).within(Bounds(0, 0, 40, 40))
    area = np.s_[bounds.y : bounds.bottom, bounds.x : bounds.right]
    for found, image in zip(samples.read(bounds), maps, strict=True):
        assert found is not None
        np.testing.assert_array_equal(found, pooled(image, 2)[area])


def test_a_map_without_disagreement_has_none_anywhere() -> None:
    samples = Samples(array_map(smooth(1, 40, 40), block=16), 0, 1)
    assert samples.read(Bounds(3, 3, 20, 20)).mutual_information is None


def test_what_is_kept_stays_within_its_bytes_and_what_is_nothing_takes_none() -> None:
    kept = Kept(1000)
    owner = object()
    for number in range(50):
        kept.get(owner, ("a", number, 0), lambda: np.ones((20, 20), np.uint8))
        assert kept._bytes == sum(400 if m is not None else 64 for _, m in kept._maps.values()) <= 1000
    assert [key[2] for key in kept._maps] == [48, 49]  # type: ignore[index]
    assert kept.get(owner, ("b", 0, 0), lambda: np.zeros((500, 500), np.uint8)) is None
    assert kept._bytes <= 1000
    # One that is larger than all of it is kept alone.
    large = kept.get(owner, ("c", 0, 0), lambda: np.ones((50, 50), np.uint8))
    assert large is not None
    assert kept.get(owner, ("c", 0, 0), lambda: pytest.fail("read twice")) is large


def test_maps_of_two_slides_are_not_taken_for_each_other() -> None:
    kept = Kept()
    images = [smooth(seed, 40, 40) for seed in (1, 2)]
    for _ in range(2):
        for image in images:
            found = Samples(array_map(image, block=16), 0, 1, kept).probability(Bounds(0, 0, 40, 40))
            np.testing.assert_array_equal(found, image)
