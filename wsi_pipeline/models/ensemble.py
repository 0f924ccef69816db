"""Several predictions of the same place made one: mean, entropy of the mean, and how far they disagree. No torch.

Everything is added up in integers, so that the order of the predictions changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.errors import ModelError
from wsi_pipeline.models.card import ModelCard
from wsi_pipeline.models.segmenter import Maps, Segmenter

ENTROPY_STEPS: Final = 2**16 - 1
"""Entropies are added up in steps of 1 over this."""
_STRIPE: Final = 256
"""Rows whose means are computed at once: their floating-point values are many times as large as the maps."""


@dataclass(frozen=True, slots=True)
class Passes:
    """Which further predictions are made where the model is not sure.

    Attributes
    ----------
    tta
        4: the image turned by 0, 90, 180 and 270 degrees; 8: also mirrored; 0: none.
    dropout
        Passes with dropout at work.
    above
        Mean entropy (0..1) of a place from which on it counts as unsure.
    """

    tta: int = 0
    dropout: int = 0
    above: float = 0.2

    @property
    def count(self) -> int:
        """Predictions that are averaged; all have the same weight."""
        return self.tta + self.dropout

    def to_json(self) -> dict[str, Any]:
        """JSON values; `Passes(**values)` reads them."""
        return {"tta": self.tta, "dropout": self.dropout, "above": self.above}


class Draw(NamedTuple):
    """Which dropout masks a pass has: its number, and the place (corner in working px) that it looks at."""

    number: int
    x: int
    y: int


@runtime_checkable
class SamplingSegmenter(Segmenter, Protocol):
    """A model that can leave its dropout at work."""

    @property
    def has_dropout(self) -> bool:
        """Whether there is a layer of dropout that does anything."""
        ...

    def sample(self, images: NDArray[np.uint8], draws: Sequence[Draw]) -> Maps:
        """`predict` with dropout, one draw for each image; the same draw has the same masks, whatever the order."""
        ...


def check_passes(segmenter: Segmenter, passes: Passes | None) -> None:
    """Raise `ModelError` for passes that the model, or what runs it, cannot make."""
    if passes is not None and passes.dropout:
        _sampler(segmenter)


def _sampler(segmenter: Segmenter) -> SamplingSegmenter:
    name = segmenter.card.name
    if not isinstance(segmenter, SamplingSegmenter):
        raise ModelError(
            f"model {name}: `inference.uncertainty.dropout` needs a network that runs on torch, not on "
            f"{segmenter.runtime}; set `model.runtime: torch`, or use `tta` instead"
        )
    if not segmenter.has_dropout:
        raise ModelError(
            f"model {name} has no dropout layers; set `inference.uncertainty.dropout: 0` (`tta` works with any model)"
        )
    return segmenter


def turned(images: NDArray[np.uint8], way: int) -> NDArray[np.uint8]:
    """Images (N, H, W, ...) in one of the eight ways of the square: 0 as they are, 1-3 turned, 4-7 mirrored first."""
    mirrored = images[:, :, ::-1] if way >= 4 else images
    return np.rot90(mirrored, way % 4, axes=(1, 2))


def turned_back(maps: NDArray[np.uint8], way: int) -> NDArray[np.uint8]:
    """Inverse of `turned`, for maps (..., h, w)."""
    back = np.rot90(maps, -(way % 4), axes=(-2, -1))
    return back[..., ::-1] if way >= 4 else back


def predict_passes(
    segmenter: Segmenter,
    images: NDArray[np.uint8],
    passes: Passes,
    corners: Sequence[tuple[int, int]],
    plain: NDArray[np.uint8],
) -> Iterator[NDArray[np.uint8]]:
    """Probability maps uint8 (N, C, h, w) of `passes.count` passes, one after the other.

    Parameters
    ----------
    images
        uint8 (N, side, side, 3).
    corners
        Of each image in working px, for its draws.
    plain
        What the model says of the images as they are; the first pass of test-time augmentation.
    """
    if passes.tta:
        yield plain
    for way in range(1, passes.tta):
        seen = np.ascontiguousarray(turned(images, way))
        yield turned_back(segmenter.predict(seen).probability, way)
    if passes.dropout:
        sampler = _sampler(segmenter)
        for number in range(passes.dropout):
            draws = [Draw(number, *corner) for corner in corners]
            yield sampler.sample(images, draws).probability


class MixedMaps(NamedTuple):
    """What several predictions say together.

    Attributes
    ----------
    probability
        uint8 (C, h, w): round(255 p̄), the weighted mean.
    uncertainty
        uint8 (h, w): entropy of the mean, scaled as in `Maps`.
    mutual_information
        uint8 (h, w): entropy of the mean less the mean entropy, on the same scale (Houlsby et al. 2011, BALD); for
        sigmoid the highest of any class. 0 where all agree.
    """

    probability: NDArray[np.uint8]
    uncertainty: NDArray[np.uint8]
    mutual_information: NDArray[np.uint8]


class Mixture:
    """Adds up predictions over an area of `height` x `width` map px.

    The weights at a pixel may add up to 2^32 / 255 (16.8 million) at most.
    """

    def __init__(self, card: ModelCard, height: int, width: int) -> None:
        self._exclusive = card.activation == "softmax"
        self._background = len(card.foreground) < len(card.classes)
        self._classes = len(card.classes)
        channels = len(card.foreground)
        self._sums = np.zeros((channels, height, width), np.uint32)
        self._entropy = np.zeros((1 if self._exclusive else channels, height, width), np.uint64)
        self._weights = np.zeros((height, width), np.uint32)

    def add(
        self,
        probability: NDArray[np.uint8],
        weights: NDArray[np.uint32] | int = 1,
        area: tuple[slice, slice] = (slice(None), slice(None)),
    ) -> None:
        """Add one prediction, uint8 (C, h, w), of the part `area`; `weights` (h, w) are whole numbers."""
        weight = np.uint32(weights) if isinstance(weights, int) else weights
        self._sums[:, *area] += probability * weight
        self._entropy[:, *area] += self._entropy_of(probability) * np.asarray(weight, np.uint64)
        self._weights[area] += weight

    def maps(self) -> MixedMaps:
        """What has been added so far; 0 where nothing was."""
        channels, height, width = self._sums.shape
        mixed = MixedMaps(
            np.zeros((channels, height, width), np.uint8),
            np.zeros((height, width), np.uint8),
            np.zeros((height, width), np.uint8),
        )
        for top in range(0, height, _STRIPE):
            rows = slice(top, top + _STRIPE)
            weights = np.maximum(self._weights[rows], 1).astype(np.uint64)
            sums = self._sums[:, rows].astype(np.uint64)
            mixed.probability[:, rows] = (2 * sums + weights) // (2 * weights)
            of_mean = self._normalised_entropy(sums / (255.0 * weights))
            of_mean[:, self._weights[rows] == 0] = 0
            apart = of_mean - self._entropy[:, rows] / (float(ENTROPY_STEPS) * weights)
            mixed.uncertainty[rows] = np.rint(255 * of_mean.max(axis=0))
            mixed.mutual_information[rows] = np.rint(255 * apart.max(axis=0).clip(0, 1))
        return mixed

    def _entropy_of(self, probability: NDArray[np.uint8]) -> NDArray[np.uint64]:
        """Of one prediction, in `ENTROPY_STEPS`, uint64 (1 or C, h, w)."""
        if not self._exclusive:
            return _BINARY[probability]
        total = _TERMS[probability].sum(axis=0)
        if self._background:
            rest = 255 - np.minimum(probability.sum(axis=0, dtype=np.uint16), 255)
            total += _TERMS[rest]
        steps: NDArray[np.uint64] = np.rint(total * (ENTROPY_STEPS / math.log(self._classes))).astype(np.uint64)
        return steps[None]

    def _normalised_entropy(self, p: NDArray[np.float64]) -> NDArray[np.float64]:
        """0..1, float64 (1 or C, h, w), of mean probabilities (C, h, w)."""
        if not self._exclusive:
            return (_terms(p) + _terms(1 - p)) / math.log(2)
        total = _terms(p).sum(axis=0)
        if self._background:
            total += _terms((1 - p.sum(axis=0)).clip(0, 1))
        normalised: NDArray[np.float64] = (total / math.log(self._classes)).clip(0, 1)
        return normalised[None]


def _terms(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """-p ln p, 0 at 0."""
    terms: NDArray[np.float64] = -p * np.log(np.maximum(p, 1e-300))
    return terms


_TERMS: Final = _terms(np.arange(256) / 255)
_BINARY: Final[NDArray[np.uint64]] = np.rint((_TERMS + _TERMS[::-1]) * (ENTROPY_STEPS / math.log(2))).astype(np.uint64)
