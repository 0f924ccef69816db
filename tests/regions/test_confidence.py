"""Values of tiles against a loop over pixels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsi_pipeline.regions.confidence import TileSums, stripe_sums


def by_hand(p: list[list[float]], level: float, exclusive: bool) -> tuple[float, float, float | None]:
    """Expected share wrong, margin and soft Dice of pixels that each list their classes' 255 p."""
    wrong, margin, inside, total, area = 0.0, 0.0, 0.0, 0.0, 0
    for pixel in p:
        marked = [v > level for v in pixel]
        if exclusive:
            everything = sorted([*pixel, max(0.0, 255 - sum(pixel))])
            label = max(pixel) if any(marked) else max(0.0, 255 - sum(pixel))
            wrong += 255 - label
            margin += everything[-1] - everything[-2]
        else:
            wrong += max(255 - v if m else v for v, m in zip(pixel, marked, strict=True))
            margin += min(abs(2 * v - 255) for v in pixel)
        inside += sum(v for v, m in zip(pixel, marked, strict=True) if m)
        area += sum(marked)
        total += sum(pixel)
    n = 255 * len(p)
    return wrong / n, margin / n, 2 * inside / (total + 255 * area) if area else None


@given(
    seed=st.integers(0, 10_000),
    classes=st.integers(1, 3),
    exclusive=st.booleans(),
    level=st.sampled_from([50.5, 127.5]),
)
@settings(max_examples=40, deadline=None)
def test_each_tile_is_the_loop_over_its_tissue(seed: int, classes: int, exclusive: bool, level: float) -> None:
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(np.full(classes + 1, 0.4), (7, 20))
    maps = [np.round(255 * shares[..., c]).astype(np.uint8) for c in range(classes)]
    entropy = rng.integers(0, 256, (7, 20)).astype(np.uint8)
    tissue = rng.random((7, 20)) < 0.7
    tissue[:, 12:] &= rng.random() < 0.7
    starts = np.array([0, 5, 12])
    found = stripe_sums(maps, entropy, tissue, starts, level=level, exclusive=exclusive)
    for tile, first, last in zip(found, starts, (5, 12, 20), strict=True):
        there = tissue[:, first:last]
        assert tile.pixels == there.sum()
        if not tile.pixels:
            assert (tile.margin, tile.confidence, tile.expected) == (None, None, 0.0)
            continue
        pixels = np.stack([m[:, first:last][there] for m in maps], axis=1).astype(float).tolist()
        wrong, margin, confidence = by_hand(pixels, level, exclusive)
        assert tile.expected == pytest.approx(wrong)
        assert tile.margin == pytest.approx(margin)
        assert tile.confidence == (None if confidence is None else pytest.approx(confidence))
        assert tile.entropy == pytest.approx(entropy[:, first:last][there].mean() / 255)
        assert tile.predicted_share == pytest.approx(np.mean([max(p) > level for p in pixels]))


def one(value: int, *, exclusive: bool = True) -> TileSums:
    p = np.full((4, 4), value, np.uint8)
    return stripe_sums([p], p, np.ones((4, 4), bool), np.array([0]), level=127.5, exclusive=exclusive)[0]


@pytest.mark.parametrize("value", [0, 3, 127, 128, 250, 255])
def test_one_class_is_the_same_for_softmax_and_sigmoid(value: int) -> None:
    assert one(value) == one(value, exclusive=False)


def test_nothing_is_expected_where_the_map_is_certain_and_half_where_it_is_torn() -> None:
    assert (one(0).expected, one(255).expected) == (0.0, 0.0)
    assert (one(0).margin, one(255).confidence, one(0).confidence) == (1.0, 1.0, None)
    assert one(127).expected == pytest.approx(0.5, abs=0.01)
