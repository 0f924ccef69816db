"""Several predictions made one, against sums worked out by hand and against the definition in floating point."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from wsi_pipeline.errors import ModelError
from wsi_pipeline.models import ClassSpec, Maps, ModelCard, load_segmenter
from wsi_pipeline.models.ensemble import Mixture, Passes, check_passes, predict_passes, turned, turned_back

BASELINE = "baseline:stain-density?mpp=0.5&radius_um=2"


def card_of(classes: int, *, background: bool = True, activation: str = "softmax") -> ModelCard:
    specs = tuple(
        ClassSpec(name=f"c{i}", color=(i, 0, 0), background=background and i == 0 and activation == "softmax")
        for i in range(classes)
    )
    return ModelCard.model_validate(
        {"name": "made up", "architecture": "unet", "mpp": 0.5, "classes": specs, "activation": activation}
    )


def entropy(p: list[float]) -> float:
    return -sum(v * math.log(v) for v in p if v > 0)


def test_two_passes_worked_out_by_hand() -> None:
    # 1 and 0: the mean is a coin, each pass by itself is sure: all of the entropy is disagreement.
    # 0.8 and 0.6 (204 and 153 of 255): H(0.7) - (H(0.8) + H(0.6)) / 2, in bits 0.88129 - (0.72193 + 0.97095) / 2.
    mixture = Mixture(card_of(2), 1, 3)
    mixture.add(np.array([[[255, 204, 51]]], np.uint8))
    mixture.add(np.array([[[0, 153, 51]]], np.uint8))
    maps = mixture.maps()
    assert maps.probability.tolist() == [[[128, 179, 51]]]
    assert maps.uncertainty.tolist() == [[255, round(255 * 0.88129), round(255 * 0.72193)]]
    assert maps.mutual_information.tolist() == [[255, round(255 * (0.88129 - 0.84644)), 0]]


def test_three_classes_with_background_count_what_is_left_of_one() -> None:
    # Foreground (1, 0) and (0, 0): the mean is (1/2, 0) and 1/2 for the background: ln 2 over ln 3, all disagreement.
    mixture = Mixture(card_of(3), 1, 1)
    mixture.add(np.array([[[255]], [[0]]], np.uint8))
    mixture.add(np.array([[[0]], [[0]]], np.uint8))
    maps = mixture.maps()
    assert maps.uncertainty[0, 0] == maps.mutual_information[0, 0] == round(255 * math.log(2) / math.log(3))


def test_of_a_sigmoid_the_class_that_disagrees_most_counts() -> None:
    mixture = Mixture(card_of(2, activation="sigmoid"), 1, 1)
    for second in (0, 255):
        mixture.add(np.array([[[128]], [[second]]], np.uint8))
    maps = mixture.maps()
    assert maps.uncertainty[0, 0] == 255
    assert maps.mutual_information[0, 0] == 255


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 6), st.sampled_from(["two", "three", "no background", "sigmoid"]))
def test_it_is_the_definition_whatever_the_order(seed: int, count: int, kind: str) -> None:
    rng = np.random.default_rng(seed)
    card = {
        "two": card_of(2),
        "three": card_of(3),
        "no background": card_of(3, background=False),
        "sigmoid": card_of(2, activation="sigmoid"),
    }[kind]
    shares = rng.dirichlet(np.full(len(card.classes), 0.5), size=(count, 2, 3))
    if kind == "sigmoid":
        shares = rng.random(shares.shape)
    maps = np.rint(255 * np.moveaxis(shares, -1, 1)).astype(np.uint8)[:, list(card.foreground_channels)]
    weights = rng.integers(1, 65025, (count, 2, 3)).astype(np.uint32)
    found = []
    for order in (np.arange(count), rng.permutation(count)):
        mixture = Mixture(card, 2, 3)
        for i in order:
            mixture.add(maps[i], weights[i])
        found.append(mixture.maps())
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)
    for y, x in np.ndindex(2, 3):
        w = weights[:, y, x] / weights[:, y, x].sum()
        p = maps[:, :, y, x] / 255
        whole, each = expected_entropies(p, w, card)
        assert np.abs(found[0].probability[:, y, x] - 255 * (w @ p)).max() <= 0.5 + 1e-9
        assert abs(found[0].uncertainty[y, x] - 255 * min(1, max(whole))) <= 0.51
        apart = max(a - b for a, b in zip(whole, each, strict=True))
        assert abs(found[0].mutual_information[y, x] - 255 * max(0, apart)) <= 0.51 + 255 * max(0, max(whole) - 1)


def expected_entropies(
    p: NDArray[np.float64], w: NDArray[np.float64], card: ModelCard
) -> tuple[list[float], list[float]]:
    """Entropy of the mean and mean of the entropies, for all classes together or each of a sigmoid, 0..1."""
    if card.activation == "sigmoid":
        mean = w @ p
        whole = [entropy([m, 1 - m]) / math.log(2) for m in mean]
        each = [sum(wi * entropy([v, 1 - v]) for wi, v in zip(w, column, strict=True)) / math.log(2) for column in p.T]
        return whole, each

    def full(row: NDArray[np.float64]) -> list[float]:
        return [*row, max(0.0, 1 - row.sum())] if len(card.foreground) < len(card.classes) else list(row)

    scale = math.log(len(card.classes))
    return [entropy(full(w @ p)) / scale], [sum(wi * entropy(full(row)) for wi, row in zip(w, p, strict=True)) / scale]


def test_where_nothing_was_added_all_is_zero() -> None:
    mixture = Mixture(card_of(2), 2, 2)
    mixture.add(np.full((1, 1, 2), 128, np.uint8), area=(slice(0, 1), slice(0, 2)))
    maps = mixture.maps()
    assert maps.uncertainty.tolist() == [[255, 255], [0, 0]]
    assert maps.probability[0].tolist() == [[128, 128], [0, 0]]


@pytest.mark.parametrize("way", range(8))
def test_turning_back_undoes_turning(way: int) -> None:
    images = np.random.default_rng(way).integers(0, 256, (2, 6, 6, 3)).astype(np.uint8)
    maps = np.moveaxis(turned(images, way), -1, 1)
    np.testing.assert_array_equal(np.moveaxis(turned_back(maps, way), 1, -1), images)


def test_the_eight_ways_differ_and_the_first_four_are_turns() -> None:
    image = np.arange(4 * 4 * 3, dtype=np.uint8).reshape(1, 4, 4, 3)
    seen = [turned(image, way).tobytes() for way in range(8)]
    assert len(set(seen)) == 8
    assert all(np.rot90(image[0], way).tobytes() == seen[way] for way in range(4))


class Gradient:
    """Says how far left a pixel lies in the window: as far from equivariant as can be."""

    runtime = "numpy"

    def __init__(self, card: ModelCard) -> None:
        self.card = card

    def predict(self, images: NDArray[np.uint8]) -> Maps:
        count, height, width = images.shape[:3]
        row = np.linspace(0, 255, width).astype(np.uint8)
        return Maps(np.broadcast_to(row, (count, 1, height, width)), np.zeros((count, height, width), np.uint8))


def test_the_mean_over_all_ways_of_a_lopsided_model_is_flat_where_its_gradients_cancel() -> None:
    model = Gradient(card_of(2))
    images = np.zeros((1, 8, 8, 3), np.uint8)
    plain = model.predict(images).probability
    found = list(predict_passes(model, images, Passes(tta=8), [(0, 0)], plain))
    explicit = [turned_back(model.predict(turned(images, way)).probability, way) for way in range(8)]
    for one, other in zip(found, explicit, strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_allclose(np.mean(found, axis=0), 127.5, atol=0.51)


def test_the_baseline_says_the_same_of_a_turned_image() -> None:
    segmenter = load_segmenter(BASELINE)
    images = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3)).astype(np.uint8)
    plain = segmenter.predict(images)
    mixture = Mixture(segmenter.card, 64, 64)
    for probability in predict_passes(segmenter, images, Passes(tta=8), [(0, 0)], plain.probability):
        mixture.add(probability[0])
    maps = mixture.maps()
    np.testing.assert_array_equal(maps.probability, plain.probability[0])
    np.testing.assert_array_equal(maps.uncertainty, plain.uncertainty[0])
    assert not maps.mutual_information.any()


def test_dropout_of_a_model_without_it_is_refused_in_one_line() -> None:
    segmenter = load_segmenter(BASELINE)
    check_passes(segmenter, Passes(tta=8))
    with pytest.raises(ModelError, match=r"needs a network that runs on torch, not on numpy; .* `tta` instead"):
        check_passes(segmenter, Passes(dropout=5))
