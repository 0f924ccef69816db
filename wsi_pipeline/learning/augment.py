"""Variations of a training crop: turned, mirrored, stained and lit a little differently."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.models.stain import STAINS

_UNIT_STAINS = STAINS / np.linalg.norm(STAINS, axis=1, keepdims=True)
_TO_STAINS = np.linalg.inv(_UNIT_STAINS)


@dataclass(frozen=True, slots=True)
class Augmentation:
    """How much a crop may change.

    Attributes
    ----------
    stain
        Each of haematoxylin, eosin and the rest is multiplied by 1 ± this.
    light
        Optical density added to or taken from all colours, at most.
    """

    stain: float = 0.05
    light: float = 0.01

    def apply(
        self, image: NDArray[np.uint8], labels: NDArray[np.uint8], rng: np.random.Generator
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """One variation of uint8 (side, side, 3) and its labels (side, side); the same `rng` state, the same one."""
        turns, mirrored = int(rng.integers(4)), bool(rng.integers(2))
        image, labels = np.rot90(image, turns), np.rot90(labels, turns)
        if mirrored:
            image, labels = image[:, ::-1], labels[:, ::-1]
        factors = 1 + rng.uniform(-self.stain, self.stain, 3)
        offset = rng.uniform(-self.light, self.light)
        return restain(image, factors, offset), labels


def restain(image: NDArray[np.uint8], factors: NDArray[np.float64], offset: float) -> NDArray[np.uint8]:
    """`image` with its stains multiplied by `factors` (haematoxylin, eosin, rest) and `offset` more density."""
    if not offset and (factors == 1).all():
        return image
    change = (_TO_STAINS * factors) @ _UNIT_STAINS
    density = _DENSITY[image] @ change.astype(np.float32) + np.float32(offset)
    restained: NDArray[np.uint8] = np.clip(np.exp(-density) * 256 - 1 + 0.5, 0, 255).astype(np.uint8)
    return restained


# Natural optical density of a value, with one added so that black has a finite one.
_DENSITY = -np.log((np.arange(256, dtype=np.float32) + 1) / 256)
