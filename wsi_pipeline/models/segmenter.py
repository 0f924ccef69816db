"""What the engine asks of a model, whatever format it has: images in, uint8 maps out. Loads no torch."""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.errors import ModelError
from wsi_pipeline.models.card import ModelCard


class Maps(NamedTuple):
    """What a model says about N images of H x W pixels; h = H / output_downsample, w likewise.

    Attributes
    ----------
    probability
        uint8 (N, C, h, w): round(255 p) of the foreground classes.
    uncertainty
        uint8 (N, h, w): round(255 entropy / ln K) for softmax over K classes; for sigmoid the highest binary
        entropy of any class, over ln 2.
    """

    probability: NDArray[np.uint8]
    uncertainty: NDArray[np.uint8]


class Segmenter(Protocol):
    """A loaded model. `predict` may be called from several threads at once."""

    @property
    def card(self) -> ModelCard: ...

    @property
    def runtime(self) -> str:
        """What computes: "torch", "openvino", "onnxruntime", "numpy", or "python" for a function of the user's."""
        ...

    def predict(self, images: NDArray[np.uint8]) -> Maps:
        """The maps of uint8 (N, H, W, 3) RGB images at the card's mpp; H and W are multiples of its stride."""
        ...


@runtime_checkable
class InsideSegmenter(Segmenter, Protocol):
    """A model that is quicker when the maps of the halo are not asked for."""

    def predict_inside(self, images: NDArray[np.uint8], halo: int) -> Maps:
        """`predict`, less `halo` input px on each side; a multiple of the card's stride."""
        ...


def inside(maps: Maps, halo: int) -> Maps:
    """Maps without `halo` map px on each side."""
    height, width = maps.uncertainty.shape[1:]
    area = (slice(halo, height - halo), slice(halo, width - halo))
    return Maps(maps.probability[:, :, *area], maps.uncertainty[:, *area])


def _binary_entropy_table() -> NDArray[np.uint8]:
    p = np.arange(256) / 255
    with np.errstate(divide="ignore", invalid="ignore"):
        entropy = -(p * np.log(p) + (1 - p) * np.log(1 - p))
    table: NDArray[np.uint8] = np.rint(255 * np.nan_to_num(entropy) / math.log(2)).astype(np.uint8)
    return table


BINARY_ENTROPY = _binary_entropy_table()
"""uint8 (256,): round(255 H(p) / ln 2) of a two-sided choice with p = index / 255."""


def needs_entropy_output(card: ModelCard) -> bool:
    """Whether the uncertainty must be computed from all channels; otherwise `BINARY_ENTROPY` gives it."""
    return card.activation == "softmax" and len(card.classes) > 2


def binary_uncertainty(probability: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Uncertainty (N, h, w) of sigmoid or two-class maps: the highest binary entropy of the channels.

    Parameters
    ----------
    probability
        uint8 (N, C, h, w). With two softmax classes both channels give the same entropy.
    """
    if probability.shape[1] == 1:
        return BINARY_ENTROPY[probability[:, 0]]
    highest: NDArray[np.uint8] = BINARY_ENTROPY[probability].max(axis=1)
    return highest


def check_images(images: NDArray[np.uint8], card: ModelCard) -> None:
    """Refuse what the model cannot take.

    Raises
    ------
    ModelError
        Not uint8 (N, H, W, 3), or H or W no multiple of the card's stride.
    """
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3:
        raise ModelError(f"model {card.name} takes uint8 (N, H, W, 3), not {images.dtype} {images.shape}")
    if images.shape[1] % card.stride or images.shape[2] % card.stride or 0 in images.shape:
        height, width = images.shape[1:3]
        raise ModelError(f"model {card.name} takes sides that are multiples of {card.stride}, not {width} x {height}")
