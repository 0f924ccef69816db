from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from wsi_pipeline.errors import ModelError
from wsi_pipeline.models.macenko import CHANNELS, REFERENCE, Stains, Unmixer, estimate_stains

HAEMATOXYLIN = np.array([0.65, 0.70, 0.29]) / np.linalg.norm([0.65, 0.70, 0.29])
EOSIN = np.array([0.07, 0.99, 0.11]) / np.linalg.norm([0.07, 0.99, 0.11])


def stained(
    count: int = 20_000, *, seed: int = 0, glass: float = 255, first: NDArray[np.float64] = HAEMATOXYLIN
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Pixels uint8 (n, 3) that hold known amounts, float64 (n, 2), of two stains; many hold one alone."""
    rng = np.random.default_rng(seed)
    amounts = rng.uniform(0.3, 1.6, (count, 2)) * rng.choice([[1, 0], [0, 1], [1, 1]], count, p=[0.3, 0.3, 0.4])
    density = amounts @ np.stack([first, EOSIN])
    return np.clip(np.rint(glass * np.exp(-density)), 0, 255).astype(np.uint8), amounts


def angle(one: tuple[float, ...], other: NDArray[np.float64]) -> float:
    """Degrees between two vectors."""
    return float(np.degrees(np.arccos(np.clip(np.dot(one, other) / np.linalg.norm(one), -1, 1))))


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), glass=st.floats(200, 255))
def test_the_stains_of_a_mixture_are_found(seed: int, glass: float) -> None:
    pixels, _ = stained(seed=seed, glass=glass)
    # Pixels with one stain alone have a colour without density: the paper's threshold keeps mixtures only.
    found = estimate_stains(pixels, (glass, glass, glass))
    assert angle(found.haematoxylin, HAEMATOXYLIN) < 6
    assert angle(found.eosin, EOSIN) < 12
    assert found.haematoxylin[0] > found.eosin[0]


def test_the_order_of_the_pixels_does_not_matter_nor_do_more_of_the_same() -> None:
    pixels, _ = stained()
    shuffled = np.random.default_rng(1).permutation(pixels)
    first = estimate_stains(pixels)
    for other in (estimate_stains(shuffled), estimate_stains(pixels.reshape(100, 200, 3))):
        for name in ("haematoxylin", "eosin", "low", "high"):
            np.testing.assert_allclose(getattr(first, name), getattr(other, name), atol=2e-5)


def test_the_amounts_come_back() -> None:
    pixels, amounts = stained()
    truth = Stains((255, 255, 255), tuple(HAEMATOXYLIN), tuple(EOSIN), (0, 0, 0), (2, 2, 2))
    channels = Unmixer(truth)(pixels[None])[0, :, :, 0] if pixels.ndim == 3 else Unmixer(truth)(pixels[None, None])[0]
    np.testing.assert_allclose(channels[:2, 0].T * 2, amounts, atol=0.06)
    density = -np.log(np.maximum(pixels, 1) / 255).mean(axis=1)
    np.testing.assert_allclose(channels[2, 0] * 2, density, atol=1e-5)


def test_a_slide_fills_the_scale() -> None:
    pixels, _ = stained()
    channels = Unmixer(estimate_stains(pixels))(pixels[None, None])[0, :, 0]
    for channel in channels:
        assert np.percentile(channel, 2) < 0.02 < 0.98 < np.percentile(channel, 99.5)
        assert channel.min() >= 0
        assert channel.max() <= 1


def test_channels_are_given_in_the_order_that_the_model_wants() -> None:
    pixels, _ = stained(200)
    stains = estimate_stains(pixels)
    usual = Unmixer(stains)(pixels[None, None])
    turned = Unmixer(stains, ("eosin", "haematoxylin", "density"))(pixels[None, None])
    np.testing.assert_array_equal(turned, usual[:, [1, 0, 2]])
    inverted = Unmixer(stains, inverted=True)(pixels[None, None])
    np.testing.assert_allclose(inverted, 1 - usual, atol=1e-5)


@settings(max_examples=30, deadline=None)
@given(height=st.integers(1, 9), width=st.integers(1, 9), seed=st.integers(0, 99))
def test_a_pixel_becomes_the_same_wherever_it_lies(height: int, width: int, seed: int) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (2, height, width, 3), np.uint8)
    unmix = Unmixer(REFERENCE)
    whole = unmix(image)
    assert whole.shape == (2, 3, height, width)
    assert whole.dtype == np.float32
    np.testing.assert_array_equal(unmix(image[:, height // 2 :])[..., 0, 0], whole[:, :, height // 2, 0])


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((0, 3), np.uint8),
        np.full((5000, 3), 255, np.uint8),
        np.full((5000, 3), 90, np.uint8),
        np.tile(np.array([[120, 60, 140]], np.uint8), (5000, 1)),
        np.random.default_rng(0).integers(0, 256, (5000, 3), np.uint8),
    ],
    ids=["none", "glass", "grey", "one colour", "noise"],
)
def test_what_is_no_stained_tissue_gives_stains_that_can_be_used(pixels: NDArray[np.uint8]) -> None:
    found = estimate_stains(pixels)
    channels = Unmixer(found)(np.arange(192, dtype=np.uint8).reshape(1, 8, 8, 3))
    assert np.isfinite(channels).all()
    for name in ("haematoxylin", "eosin"):
        assert np.linalg.norm(getattr(found, name)) == pytest.approx(1, abs=1e-2)


def test_without_stain_the_reference_is_taken() -> None:
    found = estimate_stains(np.full((5000, 3), 255, np.uint8))
    assert (found.haematoxylin, found.eosin) == (REFERENCE.haematoxylin, REFERENCE.eosin)


def test_stains_go_through_json_unchanged() -> None:
    found = estimate_stains(stained()[0], (246.123456789, 240, 250))
    assert Stains.from_json(found.to_json()) == found


@pytest.mark.parametrize("channels", [("eosin",), ("eosin", "haematoxylin", "dab"), CHANNELS + CHANNELS])
def test_other_channels_are_refused(channels: tuple[str, ...]) -> None:
    with pytest.raises(ModelError, match="channels must be three of haematoxylin, eosin, density"):
        Unmixer(REFERENCE, channels)
