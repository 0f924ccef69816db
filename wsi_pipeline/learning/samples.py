"""What the network is trained on: tiles in memory, and the crops that are drawn from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.learning.augment import Augmentation
from wsi_pipeline.learning.labels import UNKNOWN
from wsi_pipeline.states import Source


@dataclass(frozen=True, slots=True, eq=False)
class Tile:
    """A square of a slide and what it should be.

    Attributes
    ----------
    image
        uint8 (side, side, 3) at the model's mpp.
    labels
        uint8 (side, side): channel of the class, `labels.UNKNOWN` where nobody knows.
    group
        The patient, where known, else the slide.
    """

    slide_id: str
    group: str
    image: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    source: Source = Source.MEASURED


class Crops:
    """An endless, seeded stream of augmented crops; the same tiles and seed give the same crops.

    Every other crop is taken around a pixel of a class (each class as often as the others), the rest around
    any known pixel, so that a rare class is learned and glass does not fill the batches.

    Parameters
    ----------
    crop
        Side in pixels; not longer than the tiles. Of the tiles one at least must hold a known pixel.
    """

    def __init__(
        self, tiles: Sequence[Tile], *, crop: int, classes: int, augmentation: Augmentation, seed: int
    ) -> None:
        self._tiles = [tile for tile in tiles if (tile.labels != UNKNOWN).any()]
        self._crop = crop
        self._augmentation = augmentation
        self._rng = np.random.default_rng(seed)
        present = [[bool((tile.labels == channel).any()) for tile in self._tiles] for channel in range(classes)]
        self._of_class = [np.flatnonzero(row) for row in present]
        self._present = [channel for channel in range(classes) if self._of_class[channel].size]

    def batch(self, count: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Images uint8 (count, crop, crop, 3) and labels uint8 (count, crop, crop)."""
        pairs = [self._one() for _ in range(count)]
        return np.stack([image for image, _ in pairs]), np.stack([labels for _, labels in pairs])

    def _one(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        rng = self._rng
        if rng.random() < 0.5 and self._present:
            channel = self._present[rng.integers(len(self._present))]
            tile = self._tiles[self._of_class[channel][rng.integers(self._of_class[channel].size)]]
            wanted = tile.labels == channel
        else:
            tile = self._tiles[rng.integers(len(self._tiles))]
            wanted = tile.labels != UNKNOWN
        y, x = self._corner(wanted)
        part = (slice(y, y + self._crop), slice(x, x + self._crop))
        return self._augmentation.apply(tile.image[part], tile.labels[part], rng)

    def _corner(self, wanted: NDArray[np.bool_]) -> tuple[int, int]:
        """Corner of a crop that holds a random wanted pixel somewhere."""
        flat = np.flatnonzero(wanted)
        row, column = divmod(int(flat[self._rng.integers(flat.size)]), wanted.shape[1])
        into = self._rng.integers(self._crop, size=2)
        limit_y, limit_x = wanted.shape[0] - self._crop, wanted.shape[1] - self._crop
        return int(np.clip(row - into[0], 0, limit_y)), int(np.clip(column - into[1], 0, limit_x))
