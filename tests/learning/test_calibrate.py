from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.learning.made import trained_card
from wsi_pipeline.learning.calibrate import (
    CALIBRATION_NAME,
    RANGE,
    Pixels,
    calibrate,
    expected_calibration_error,
    fit_temperature,
    gather,
    nll,
    read_calibration,
    write_calibration,
)


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
    pixels, known, groups = gather(logits, labels, ["a", "b"], unknown=255)
    assert groups.tolist() == ["a", "a", "a", "b", "b"]
    np.testing.assert_array_equal(pixels, [[0, 4], [2, 6], [3, 7], [10, 14], [11, 15]])
    np.testing.assert_array_equal(known, [0, 1, 0, 1, 1])
    assert len(gather(logits, labels, ["a", "b"], unknown=255, most=2).labels) == 3


def patients(temperatures: list[float], count: int = 4000) -> Pixels:
    """One patient for each temperature that labels were drawn with."""
    parts = [drawn(temperature, 3, count, seed) for seed, temperature in enumerate(temperatures)]
    names = np.repeat([f"p{n}" for n in range(len(parts))], count)
    return Pixels(np.concatenate([a for a, _ in parts]), np.concatenate([b for _, b in parts]), names)


def test_each_patient_is_judged_with_a_temperature_of_the_others() -> None:
    pixels = patients([1.0, 4.0])
    found = calibrate(pixels, ["a", "b", "c"])
    own = fit_temperature(pixels.logits, pixels.labels, groups=2)
    assert found.temperature == own.temperature
    assert found.cross_fitted
    # Fitted on each other, both temperatures are wrong: the plain figure hides that.
    assert found.ece_after > own.ece_after + 0.05
    swapped = np.concatenate(
        [
            pixels.logits[part] / fit_temperature(pixels.logits[~part], pixels.labels[~part], groups=1).temperature
            for part in (pixels.groups == "p0", pixels.groups == "p1")
        ]
    ).astype(np.float64)
    assert found.ece_after == pytest.approx(expected_calibration_error(swapped, pixels.labels), abs=1e-6)
    assert [r.name for r in found.reliability] == ["a", "b", "c"]
    assert {r.groups for r in found.reliability} == {2}


def test_one_patient_alone_cannot_be_left_out_and_the_figures_say_so() -> None:
    pixels = patients([2.0])
    found = calibrate(pixels, ["a", "b", "c"])
    assert not found.cross_fitted
    alone = fit_temperature(pixels.logits, pixels.labels, groups=1)
    # The temperature of the card is rounded.
    assert found.ece_after == pytest.approx(alone.ece_after, abs=1e-4)


def test_with_many_patients_classes_have_intervals_and_small_errors() -> None:
    found = calibrate(patients([2.0] * 12, 1500), ["a", "b", "c"])
    for one in found.reliability:
        assert one.ece < 0.03
        assert one.ece_interval is not None
        assert sum(b.count for b in one.bins) == found.pixels == 18_000


def test_what_is_kept_beside_a_card_is_of_that_card_alone(tmp_path: Path) -> None:
    card, found = trained_card("new"), calibrate(patients([2.0, 2.0], 500), ["a", "b", "c"])
    assert read_calibration(tmp_path, card) is None
    write_calibration(tmp_path, card, found)
    value = read_calibration(tmp_path, card)
    assert value is not None
    assert value["temperature"] == found.temperature
    assert [c["name"] for c in value["classes"]] == ["a", "b", "c"]
    assert read_calibration(tmp_path, trained_card("other")) is None
    (tmp_path / CALIBRATION_NAME).write_text("{")
    assert read_calibration(tmp_path, card) is None
    write_calibration(tmp_path, card, None)
    assert not (tmp_path / CALIBRATION_NAME).exists()
