from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from wsi_pipeline.learning.calibrate import RANGE, expected_calibration_error, fit_temperature, gather, nll


def drawn(temperature: float, classes: int, count: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Logits, and labels drawn from what they say at this temperature."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, (count, classes))
    p = np.exp(logits / temperature)
    p /= p.sum(axis=1, keepdims=True)
    labels = (p.cumsum(axis=1) < rng.random((count, 1))).sum(axis=1)
    return logits.astype(np.float32), np.minimum(labels, classes - 1).astype(np.uint8)


@settings(max_examples=15, deadline=None)
@given(temperature=st.floats(0.5, 5), classes=st.integers(2, 5), seed=st.integers(0, 100))
def test_the_temperature_that_labels_were_drawn_with_is_found(temperature: float, classes: int, seed: int) -> None:
    logits, labels = drawn(temperature, classes, 20_000, seed)
    found = fit_temperature(logits, labels, groups=3)
    assert found.temperature == pytest.approx(temperature, rel=0.1)
    assert found.nll_after <= found.nll_before
    assert found.ece_after < 0.02
    assert (found.pixels, found.groups) == (20_000, 3)


def test_an_overconfident_model_is_cooled_and_its_calibration_error_falls() -> None:
    logits, labels = drawn(3, 2, 20_000, 1)
    found = fit_temperature(logits, labels, groups=1)
    assert found.ece_before > 0.1 > 0.02 > found.ece_after


@given(st.integers(0, 1000))
def test_calibration_never_makes_the_likelihood_worse(seed: int) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 5, (50, 3)).astype(np.float32)
    labels = rng.integers(0, 3, 50).astype(np.uint8)
    found = fit_temperature(logits, labels, groups=1)
    assert found.nll_after <= found.nll_before + 1e-6
    assert RANGE[0] <= found.temperature <= RANGE[1]


def test_the_error_of_a_model_that_always_says_ninety_percent_and_is_right_in_half_is_forty() -> None:
    logits = np.log(np.tile([[0.9, 0.1]], (1000, 1)))
    labels = (np.arange(1000) % 2).astype(np.uint8)
    assert expected_calibration_error(logits, labels) == pytest.approx(0.4)
    assert nll(logits, labels) == pytest.approx(-0.5 * (np.log(0.9) + np.log(0.1)))


def test_certain_logits_fall_into_the_last_bin() -> None:
    logits = np.array([[1000.0, 0.0], [0.0, 1000.0]])
    assert expected_calibration_error(logits, np.array([0, 1], dtype=np.uint8)) == 0


def test_only_known_pixels_are_gathered_in_their_order_and_thinned() -> None:
    logits = [np.arange(8, dtype=np.float32).reshape(2, 2, 2), np.arange(8, 16, dtype=np.float32).reshape(2, 2, 2)]
    labels = [np.array([[0, 255], [1, 0]], dtype=np.uint8), np.array([[255, 255], [1, 1]], dtype=np.uint8)]
    pixels, known = gather(logits, labels, unknown=255)
    np.testing.assert_array_equal(pixels, [[0, 4], [2, 6], [3, 7], [10, 14], [11, 15]])
    np.testing.assert_array_equal(known, [0, 1, 0, 1, 1])
    assert len(gather(logits, labels, unknown=255, most=2)[1]) == 3
