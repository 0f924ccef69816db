"""Whether a network takes and gives what its card says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

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
