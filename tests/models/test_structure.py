"""Statistics of features: against other implementations of their formulas, and as files that somebody damaged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError
from safetensors.numpy import save
from scipy.spatial.distance import mahalanobis

from tests.learning.made import trained_card
from wsi_pipeline.errors import ModelError
from wsi_pipeline.files import sha256_bytes
from wsi_pipeline.models.appearance import FEWEST_WINDOWS
from wsi_pipeline.models.card import parse_card
from wsi_pipeline.models.structure import (
    STRUCTURE_NAME,
    FeatureStatistics,
    Structure,
    fit_structure,
    pooled,
    read_structure,
    shrunk_covariance,
    write_structure,
)

Floats = NDArray[np.float64]


def rows(seed: int, count: int, size: int = 6) -> Floats:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(count, size)) @ rng.normal(size=(size, size)) + 3


def fitted(features: Floats, slides: NDArray[Any] | None = None) -> FeatureStatistics:
    found = fit_structure(features, np.zeros(len(features)) if slides is None else slides)
    assert found is not None
    return found


@given(seed=st.integers(0, 999), count=st.integers(3, 40), size=st.integers(2, 12))
@settings(max_examples=40, deadline=None)
def test_the_shrunk_covariance_is_that_of_the_paper(seed: int, count: int, size: int) -> None:
    """Ledoit & Wolf 2004, lemma 3.2 to 3.5, with their norm |A|² = tr(A Aᵀ) / p and one matrix for each row."""
    x = rows(seed, count, size)
    x = x - x.mean(axis=0)
    s = sum(np.outer(row, row) for row in x) / count
    m = np.trace(s) / size
    d2 = ((s - m * np.eye(size)) ** 2).sum() / size
    b2 = min(d2, sum(((np.outer(row, row) - s) ** 2).sum() / size for row in x) / count**2)
    found, share = shrunk_covariance(x + 5)
    assert share == pytest.approx(b2 / d2, abs=1e-9)
    np.testing.assert_allclose(found, b2 / d2 * m * np.eye(size) + (1 - b2 / d2) * s, atol=1e-9)
    assert np.linalg.eigvalsh(found)[0] > 0


def test_the_distance_is_mahalanobis_as_scipy_has_it() -> None:
    x = rows(1, 80)
    statistics = fitted(x)
    inverse = np.linalg.inv(shrunk_covariance(x)[0])
    wanted = [mahalanobis(row, x.mean(axis=0), inverse) / statistics.threshold for row in x[:9]]
    np.testing.assert_allclose(statistics.strangeness(x[:9]), wanted, rtol=1e-4)


def test_one_in_a_hundred_others_is_strange_where_slides_differ_too() -> None:
    """Slides have means of their own: only holding each against the others gives the threshold of a new slide."""
    rng = np.random.default_rng(5)

    def slides(count: int) -> tuple[Floats, NDArray[np.intp]]:
        own = 0.7 * rng.normal(size=(count, 1, 10))
        return (own + rng.normal(size=(count, 40, 10))).reshape(-1, 10), np.repeat(np.arange(count), 40)

    seen, names = slides(12)
    statistics = fitted(seen, names)
    assert statistics.left_out
    assert statistics.slides == 12
    new, _ = slides(200)
    assert 0.003 <= (statistics.strangeness(new) > 1).mean() <= 0.03
    together = fitted(seen)
    assert not together.left_out
    assert together.threshold < statistics.threshold
    assert (together.strangeness(seen) > 1).mean() == pytest.approx(0.01, abs=0.003)


def test_more_features_than_windows_are_no_trouble() -> None:
    x = np.sqrt(np.random.default_rng(3).gamma(0.5, size=(40, 128)))
    statistics = fitted(x, np.arange(40) % 4)
    assert np.isfinite(statistics.strangeness(x)).all()
    assert (statistics.strangeness(x) <= 1).mean() >= 0.97
    assert (statistics.strangeness(x + 5) > 1).all()


def test_too_few_windows_or_no_difference_give_nothing() -> None:
    assert fit_structure(rows(0, FEWEST_WINDOWS - 1), np.zeros(FEWEST_WINDOWS - 1)) is None
    assert fit_structure(rows(0, FEWEST_WINDOWS), np.zeros(FEWEST_WINDOWS)) is not None
    assert fit_structure(np.full((50, 4), 0.3), np.zeros(50)) is None


@given(seed=st.integers(0, 99), cell=st.sampled_from([1, 2, 8]))
@settings(max_examples=20, deadline=None)
def test_features_are_roots_of_means_over_tissue(seed: int, cell: int) -> None:
    rng = np.random.default_rng(seed)
    maps = rng.random((2, 3, 4, 5), np.float32)
    tissue = rng.random((2, 4 * cell, 5 * cell)) < 0.4
    tissue[:, 0, 0] = True
    wanted = np.zeros((2, 3))
    for n in range(2):
        for d in range(3):
            spread = maps[n, d].repeat(cell, 0).repeat(cell, 1)
            wanted[n, d] = np.sqrt(spread[tissue[n]].mean())
    np.testing.assert_allclose(pooled(maps, tissue), wanted, rtol=1e-6)
    # What lies on glass is not looked at.
    beside = tissue.reshape(2, 4, cell, 5, cell).sum(axis=(2, 4)) == 0
    maps[np.repeat(beside[:, None], 3, axis=1)] = 99
    np.testing.assert_allclose(pooled(maps, tissue), wanted, rtol=1e-6)


def test_a_window_without_tissue_has_no_features() -> None:
    with pytest.raises(ValueError, match="without tissue"):
        pooled(np.ones((1, 2, 2, 2), np.float32), np.zeros((1, 4, 4), bool))


@pytest.fixture
def kept(tmp_path: Path) -> Structure:
    found = write_structure(tmp_path, fitted(rows(2, 90), np.arange(90) % 5))
    assert found is not None
    return found


def test_what_is_written_is_read_again_and_a_card_keeps_it(kept: Structure, tmp_path: Path) -> None:
    x = rows(2, 90)
    again = read_structure(kept, tmp_path)
    np.testing.assert_array_equal(again.strangeness(x), fitted(x, np.arange(90) % 5).strangeness(x))
    card = trained_card("new").model_copy(update={"structure": kept})
    assert parse_card(card.dump(), source="card.json") == card
    assert "structure" not in trained_card("old").dump()


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({"mean": np.zeros(6, np.float32)}, "does not hold statistics of 6 features"),
        ({"mean": np.zeros(5, np.float32), "whitening": np.eye(6, dtype=np.float32)}, "statistics of 6 features"),
        ({"mean": np.full(6, np.nan, np.float32), "whitening": np.eye(6, dtype=np.float32)}, "no numbers"),
        ({"mean": np.zeros(6, np.float32), "whitening": np.zeros((6, 6), np.float32)}, "nothing but zeros"),
    ],
)
def test_statistics_that_are_none_are_refused(
    kept: Structure, tmp_path: Path, tensors: dict[str, Any], said: str
) -> None:
    data = save(tensors)
    (tmp_path / STRUCTURE_NAME).write_bytes(data)
    with pytest.raises(ModelError, match=said) as error:
        read_structure(kept.model_copy(update={"sha256": sha256_bytes(data)}), tmp_path)
    assert "train the model again" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there_damaged_or_no_safetensors_is_named(kept: Structure, tmp_path: Path) -> None:
    path = tmp_path / STRUCTURE_NAME
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(ModelError, match="copy both anew"):
        read_structure(kept, tmp_path)
    path.write_bytes(b"plain text")
    with pytest.raises(ModelError, match="no safetensors file"):
        read_structure(kept.model_copy(update={"sha256": sha256_bytes(b"plain text")}), tmp_path)
    path.unlink()
    with pytest.raises(ModelError, match=rf"{STRUCTURE_NAME}.*not there; copy the whole folder"):
        read_structure(kept, tmp_path)
    path.mkdir()
    with pytest.raises(ModelError, match="cannot read"):
        read_structure(kept, tmp_path)


@pytest.mark.parametrize(
    "wrong",
    [
        {"threshold": 0},
        {"threshold": float("nan")},
        {"shrinkage": 1.5},
        {"layer": "d0"},
        {"file": "../elsewhere"},
        {"sha256": "abc"},
        {"features": 0},
        {"surplus": 1},
    ],
)
def test_a_card_with_nonsense_in_it_is_refused_in_one_line(kept: Structure, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Structure.model_validate({**kept.model_dump(), **wrong})
    raw = {**trained_card("new").dump(), "structure": {**kept.model_dump(), **wrong}}
    with pytest.raises(ModelError) as error:
        parse_card(raw, source="card.json")
    assert str(error.value).startswith(f"card.json: structure.{next(iter(wrong))}: ")
    assert "\n" not in str(error.value)


def test_only_the_networks_whose_features_are_known_have_them(kept: Structure) -> None:
    raw = {**trained_card("new").dump(), "structure": kept.model_dump(), "architecture": "onnx"}
    with pytest.raises(ModelError, match="only of `architecture: unet`"):
        parse_card(raw, source="card.json")
