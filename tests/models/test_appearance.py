"""What looks like the training slides and what does not, on windows with known colour and blur."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError
from scipy.ndimage import gaussian_filter, laplace
from scipy.spatial.distance import mahalanobis

from tests.learning.made import trained_card
from wsi_pipeline.errors import ModelError
from wsi_pipeline.models.appearance import (
    FEWEST_WINDOWS,
    QUANTILE,
    Appearance,
    Floats,
    features_of,
    fit_appearance,
    tissue_of,
    windows_of,
)
from wsi_pipeline.models.card import parse_card


def window(seed: int, *, slide: int = 0, blur: float = 0.0, tint: float = 1.0) -> NDArray[np.uint8]:
    """Grainy pink tissue with violet spots; each slide has its own stain."""
    stain = 1 + 0.05 * np.random.default_rng(1000 + slide).normal(size=3)
    rng = np.random.default_rng([seed, slide])
    spots = gaussian_filter(rng.random((128, 128)), 3) > 0.5
    colour = np.where(spots[..., None], [120.0, 70, 160], [225.0, 165, 205])
    density = -np.log10(colour / 256) * stain * [tint, 1.0, 1.0]
    density *= 1 + 0.1 * rng.normal(size=(128, 128, 1))
    if blur:
        density = gaussian_filter(density, (blur, blur, 0))
    return np.clip(256 * 10**-density - 1, 0, 255).astype(np.uint8)


def features(slides: int, each: int = 12) -> tuple[Floats, NDArray[np.intp]]:
    rows = [features_of(window(n, slide=s)) for s in range(slides) for n in range(each)]
    return np.array(rows), np.repeat(np.arange(slides), each)


@pytest.fixture(scope="module")
def appearance() -> Appearance:
    found = fit_appearance(*features(8))
    assert found is not None
    return found


def strangeness(appearance: Appearance, image: NDArray[np.uint8]) -> tuple[float, str]:
    found = features_of(image)
    assert found is not None
    return float(appearance.strangeness(found[None])[0]), appearance.words(found[None])[0]


def test_other_windows_of_such_slides_are_mostly_familiar(appearance: Appearance) -> None:
    found = [strangeness(appearance, window(500 + n, slide=100 + n))[0] for n in range(40)]
    assert np.mean([value > 1 for value in found]) <= 0.1


def test_blur_and_another_stain_are_strange_and_named(appearance: Appearance) -> None:
    value, word = strangeness(appearance, window(9, blur=2.0))
    assert value > 1
    assert word in {"sharpness", "contrast"}
    value, word = strangeness(appearance, window(9, tint=2.5))
    assert value > 1
    assert word in {"colour", "contrast"}


def test_glass_says_nothing() -> None:
    assert features_of(np.full((128, 128, 3), 245, np.uint8)) is None
    half = window(1)
    half[:, 24:] = 250
    assert features_of(half) is None
    assert windows_of(np.full((256, 256, 3), 250, np.uint8)) == []


def test_the_distance_is_that_of_scipy(appearance: Appearance) -> None:
    found = features_of(window(3, slide=5))
    assert found is not None
    inverse = np.linalg.inv(np.array(appearance.covariance))
    wanted = mahalanobis(found, np.array(appearance.mean), inverse) / appearance.threshold
    assert appearance.strangeness(found[None])[0] == pytest.approx(wanted)


def test_the_threshold_holds_each_slide_against_the_others_where_there_are_enough() -> None:
    rows, slides = features(8)
    left_out, together = fit_appearance(rows, slides), fit_appearance(rows, np.zeros(len(rows)))
    assert left_out is not None
    assert together is not None
    assert (left_out.left_out, together.left_out) == (True, False)
    assert left_out.threshold > together.threshold
    assert np.mean(together.strangeness(rows) <= 1) == pytest.approx(QUANTILE, abs=0.011)


def test_too_few_windows_give_nothing() -> None:
    rows, slides = features(2, FEWEST_WINDOWS // 2)
    assert fit_appearance(rows, slides) is not None
    assert fit_appearance(rows[1:], slides[1:]) is None


@given(seed=st.integers(0, 1000), n=st.integers(30, 60), m=st.integers(30, 60))
@settings(max_examples=20, deadline=None)
def test_what_two_models_have_seen_has_the_moments_of_all(seed: int, n: int, m: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(n, 7)), rng.normal(1, 2, size=(m, 7))
    first, second = fit_appearance(a, np.zeros(n)), fit_appearance(b, np.ones(m))
    assert first is not None
    assert second is not None
    both = first.with_others(second)
    together = np.concatenate([a, b])
    assert both.windows == n + m
    np.testing.assert_allclose(both.mean, together.mean(axis=0))
    variances = np.diag(np.array(both.covariance))
    # Of 30 windows, n or n − 1 in a variance is 3 %.
    np.testing.assert_allclose(variances, together.var(axis=0), rtol=0.04)
    assert both.threshold == max(first.threshold, second.threshold)


def test_windows_of_a_tile_are_its_quarters() -> None:
    tile = np.tile(window(1), (2, 2, 1))
    found = windows_of(tile)
    assert len(found) == 4
    for part, row in found:
        np.testing.assert_array_equal(part, window(1))
        np.testing.assert_array_equal(row, features_of(window(1)))
    assert [part.shape for part, _ in windows_of(window(1)[:64, :64])] == [(64, 64, 3)]


def test_sharpness_is_the_variance_of_scipys_laplacian() -> None:
    image = np.random.default_rng(4).integers(0, 200, (64, 80, 3), dtype=np.uint8)
    features = features_of(image)
    assert features is not None
    edges = laplace((-np.log10((image.astype(np.float64) + 1) / 256)).mean(axis=2))
    assert features[6] == pytest.approx(np.log10(edges.var() + 1e-8), abs=1e-9)


def test_a_card_keeps_it_and_one_without_is_what_it_was(appearance: Appearance) -> None:
    plain = trained_card("old")
    assert "appearance" not in plain.dump()
    card = plain.model_copy(update={"appearance": appearance})
    assert parse_card(card.dump(), source="card.json") == card
    with pytest.raises(ValidationError):
        Appearance.model_validate({**appearance.model_dump(), "mean": (1.0,)})


@pytest.mark.parametrize("damage", ["zeros", "lopsided", "short row", "negative"])
def test_a_covariance_that_is_none_is_refused_in_one_line(appearance: Appearance, damage: str) -> None:
    matrix = np.array(appearance.covariance)
    if damage == "zeros":
        matrix = np.zeros((7, 7))
    elif damage == "negative":
        matrix = -matrix
    elif damage == "lopsided":
        matrix[0, 1] += 1
    rows = matrix.tolist()
    if damage == "short row":
        rows[3] = rows[3][:6]
    raw = {**trained_card("old").dump(), "appearance": {**appearance.model_dump(), "covariance": rows}}
    with pytest.raises(ModelError, match=r"^card\.json: appearance\.covariance: must be") as error:
        parse_card(raw, source="card.json")
    assert "\n" not in str(error.value)


def test_densities_by_table_are_those_of_the_formula() -> None:
    image = np.random.default_rng(6).integers(0, 256, (3, 40, 50, 3), dtype=np.uint8)
    density = -np.log10((image.astype(np.float64) + 1) / 256)
    np.testing.assert_array_equal(tissue_of(image), density.mean(axis=-1) > 0.06)
    found = features_of(image[0])
    assert found is not None
    tissue = tissue_of(image[0])
    np.testing.assert_array_equal(found[:3], density[0][tissue].mean(axis=0))
    np.testing.assert_array_equal(found[3:6], density[0][tissue].std(axis=0))
