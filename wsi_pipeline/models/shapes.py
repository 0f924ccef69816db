"""Whether a network takes and gives what its card says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.errors import ModelError
from wsi_pipeline.models.card import ModelCard


def check_sides(card: ModelCard, weights: Path, taken: Sequence[int | None]) -> bool:
    """Check the shape that a network takes, None where any length will do; True where it takes one image at a time.

    Raises
    ------
    ModelError
        No images, a number of them, or a size that the card does not keep to.
    """
    if len(taken) != 4 or taken[1] not in (None, 3):
        raise ModelError(f"{weights}: the network must take one tensor of images (N, 3, H, W), not {list(taken)}")
    batch, _, height, width = taken
    if (height, width) != (None, None) and not (card.fixed_window and card.window == height == width):
        raise ModelError(
            f"{weights}: the network takes images of {width or 'any'} x {height or 'any'} px only; write "
            f'"window": {height or width}, "fixed_window": true and a "halo" into the card, or export it for any size'
        )
    if batch not in (None, 1):
        raise ModelError(f"{weights}: it takes {batch} images at a time; export it for one, or for any number")
    return batch == 1


def trial_side(card: ModelCard) -> int:
    """Side of an image that the model must take, in pixels."""
    return card.window if card.fixed_window else -(-64 // card.stride) * card.stride


def check_given(card: ModelCard, weights: Path, shape: Sequence[int], side: int) -> None:
    """Raise `ModelError` unless an image of `side` gave (1, classes, side / output_downsample, the same)."""
    h = side // card.output_downsample
    wanted = (1, len(card.classes), h, h)
    if tuple(shape) != wanted:
        names = ", ".join(spec.name for spec in card.classes)
        raise ModelError(
            f"{weights}: the network gives {tuple(shape)} for an image of {side} px, the card asks for {wanted} "
            f"(classes {names}; output_downsample {card.output_downsample})"
        )


def try_net(card: ModelCard, weights: Path, net: Callable[[NDArray[np.float32]], NDArray[Any]]) -> None:
    """Refuse a network that gives something else than its card says, as far as two images of noise show it.

    Parameters
    ----------
    net
        Normalised images, float32 (1, 3, side, side), to what the network gives for them.

    Raises
    ------
    ModelError
        Of another shape, no numbers, or logits where the card says probabilities, or the other way round.
    """
    side = trial_side(card)
    noise = np.random.default_rng(0).random((1, 3, side, side), np.float32)
    mean, std = (np.array(triple, np.float32).reshape(3, 1, 1) for triple in (card.mean, card.std))
    found = net((noise - mean) / std)
    check_given(card, weights, found.shape, side)
    if not np.isfinite(found).all():
        raise ModelError(f"{weights}: the network gives values that are no numbers; it is damaged, or badly trained")
    # Logits grow with what the network sees; probabilities cannot.
    louder = net(10 * noise)
    bounded = all(values.min() >= -1e-4 and values.max() <= 1 + 1e-4 for values in (found, louder))
    lowest, highest = float(found.min()), float(found.max())
    exclusive = bool(np.abs(found.sum(axis=1) - 1).max() < 1e-2)
    if card.output == "logits" and bounded and highest - lowest > 1e-6:
        raise ModelError(
            f'{weights}: the network gives probabilities already, the card says logits; write "output": '
            '"probabilities" into it' + ("" if exclusive == _exclusive(card) else f" and {_activation(exclusive)}")
        )
    if card.output == "probabilities" and not bounded:
        raise ModelError(
            f"{weights}: the network gives values from {lowest:.2g} to {highest:.2g}, which are no probabilities; "
            'leave `output` out of the card, or write "logits"'
        )
    if card.output == "probabilities" and _exclusive(card) and not exclusive:
        raise ModelError(
            f"{weights}: the probabilities of a place do not add up to 1 as `activation: softmax` has it; write "
            f"{_activation(False)}, and no background"
        )


def _exclusive(card: ModelCard) -> bool:
    return card.activation == "softmax"


def _activation(exclusive: bool) -> str:
    return f'"activation": "{"softmax" if exclusive else "sigmoid"}"'
