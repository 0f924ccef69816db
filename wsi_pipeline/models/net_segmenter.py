"""Running a network that knows nothing of pictures and maps: channels before it, uint8 maps after it, by numpy."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.errors import ModelError
from wsi_pipeline.models.card import ModelCard
from wsi_pipeline.models.halving import HalvingBatches
from wsi_pipeline.models.macenko import CHANNELS, REFERENCE, Stains, Unmixer
from wsi_pipeline.models.segmenter import Maps, Segmenter, binary_uncertainty, check_images, needs_entropy_output

Floats = NDArray[np.float32]
Net = Callable[[Floats], Floats]
"""float32 (N, 3, H, W) to float32 (N, C, h, w): what the card's `output` says. Several threads may call it."""


@runtime_checkable
class StainAware(Protocol):
    """A model that must know the stains of the slide that it works on."""

    def for_stains(self, stains: Stains) -> Segmenter:
        """The same model, sharing everything, for the slide with these stains."""
        ...


def stained(segmenter: Segmenter, stains: Stains | None) -> Segmenter:
    """The model for a slide with these stains; itself where its card asks for none.

    Raises
    ------
    ModelError
        The card asks for stains and nobody has estimated them, or the model does not take them.
    """
    if segmenter.card.preprocessing == "none":
        return segmenter
    if stains is None:
        raise ModelError(f"model {segmenter.card.name} needs the stains of the slide; give them in its `SlideJob`")
    if not isinstance(segmenter, StainAware):
        raise ModelError(f"model {segmenter.card.name}: its card asks for stains, which its code does not take")
    return segmenter.for_stains(stains)


class NetSegmenter:
    """A `Net` as a `Segmenter`.

    Parameters
    ----------
    runtime, device, precision
        What computes; for reports.
    stains
        Of the slide, where the card's `preprocessing` asks for them.
    batches
        Halves what the device's memory does not hold; shared by models that share the network.
    """

    def __init__(
        self,
        card: ModelCard,
        net: Net,
        *,
        runtime: str,
        device: str = "cpu",
        precision: str = "fp32",
        stains: Stains = REFERENCE,
        batches: HalvingBatches | None = None,
    ) -> None:
        self.card = card
        self.runtime = runtime
        self.device = device
        self.precision = precision
        self._net = net
        self._batches = batches or HalvingBatches()
        channels: Unmixer | _Colours = _unmixer(card, stains) if card.preprocessing == "macenko" else _Colours(card)
        self._channels = channels

    def for_stains(self, stains: Stains) -> NetSegmenter:
        """See `StainAware`."""
        return NetSegmenter(
            self.card,
            self._net,
            runtime=self.runtime,
            device=self.device,
            precision=self.precision,
            stains=stains,
            batches=self._batches,
        )

    def predict(self, images: NDArray[np.uint8]) -> Maps:
        """See `Segmenter.predict`."""
        check_images(images, self.card)
        parts = self._batches.run_slices(lambda part: self._net(self._channels(images[part])), images.shape)
        found = np.concatenate(parts) if len(parts) > 1 else parts[0]
        count, height, width = images.shape[:3]
        factor = self.card.output_downsample
        wanted = (count, len(self.card.classes), height // factor, width // factor)
        if found.shape != wanted:
            raise ModelError(f"model {self.card.name}: the network gives {found.shape} instead of {wanted}")
        return to_maps(found, self.card)


def _unmixer(card: ModelCard, stains: Stains) -> Unmixer:
    args = card.architecture_args
    return Unmixer(stains, tuple(args.get("channels", CHANNELS)), inverted=bool(args.get("inverted", False)))


class _Colours:
    """(x / 255 - mean) / std by a table for each colour."""

    def __init__(self, card: ModelCard) -> None:
        values = np.arange(256, dtype=np.float32) / 255
        mean, std = (np.array(triple, np.float32)[:, None] for triple in (card.mean, card.std))
        self._tables: Floats = np.asarray((values - mean) / std, np.float32)

    def __call__(self, images: NDArray[np.uint8]) -> Floats:
        planes = [table[images[..., colour]] for colour, table in enumerate(self._tables)]
        return np.stack(planes, axis=1)


def to_maps(found: Floats, card: ModelCard) -> Maps:
    """uint8 maps of what a network gave, float (N, C, h, w); see `Maps`."""
    with np.errstate(divide="ignore", over="ignore"):
        share = _share(np.asarray(found, np.float32), card)
    if not np.isfinite(share).all():
        raise ModelError(f"model {card.name}: the network gives values that are no numbers")
    probability = np.rint(255 * np.clip(share[:, list(card.foreground_channels)], 0, 1)).astype(np.uint8)
    if not needs_entropy_output(card):
        return Maps(probability, binary_uncertainty(probability))
    entropy = -(share * np.log(np.maximum(share, 1e-30))).sum(axis=1) / math.log(len(card.classes))
    return Maps(probability, np.rint(255 * np.clip(entropy, 0, 1)).astype(np.uint8))


def _share(found: Floats, card: ModelCard) -> Floats:
    if card.output == "probabilities":
        if card.temperature == 1:
            return found
        softmax = card.activation == "softmax"
        kept = np.clip(found, 1e-7, 1 if softmax else 1 - 1e-7)
        found = np.log(kept) if softmax else np.log(kept / (1 - kept))
    if card.temperature != 1:
        found = found / np.float32(card.temperature)
    if card.activation == "sigmoid":
        return np.asarray(1 / (1 + np.exp(-found)), np.float32)
    found = np.exp(found - found.max(axis=1, keepdims=True))
    return np.asarray(found / found.sum(axis=1, keepdims=True), np.float32)
