"""A probability map in memory, with the attributes of a prediction store."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.tiling import Bounds


@dataclass(frozen=True)
class ArrayMap:
    probability: NDArray[np.uint8]
    entropy: NDArray[np.uint8]
    block: int
    downsample: float
    size: tuple[int, int]
    apart: NDArray[np.uint8] | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        channels, height, width = self.probability.shape
        return channels, height, width

    def read(self, channel: int, bounds: Bounds) -> NDArray[np.uint8]:
        return self.probability[channel, bounds.y : bounds.bottom, bounds.x : bounds.right]

    def uncertainty(self, bounds: Bounds) -> NDArray[np.uint8]:
        return self.entropy[bounds.y : bounds.bottom, bounds.x : bounds.right]

    def mutual_information(self, bounds: Bounds) -> NDArray[np.uint8] | None:
        return None if self.apart is None else self.apart[bounds.y : bounds.bottom, bounds.x : bounds.right]


def array_map(
    probability: NDArray[np.uint8],
    *,
    block: int = 64,
    downsample: float = 1.0,
    size: tuple[int, int] | None = None,
    entropy: NDArray[np.uint8] | None = None,
    apart: NDArray[np.uint8] | None = None,
) -> ArrayMap:
    maps = probability[None] if probability.ndim == 2 else probability
    height, width = maps.shape[1:]
    return ArrayMap(
        probability=maps,
        entropy=np.zeros((height, width), np.uint8) if entropy is None else entropy,
        block=block,
        downsample=downsample,
        size=size or (round(width * downsample), round(height * downsample)),
        apart=apart,
    )


def smooth(seed: int, height: int, width: int, *, scale: int = 9) -> NDArray[np.uint8]:
    """Random blobs that fill the whole range."""
    rng = np.random.default_rng(seed)
    coarse = rng.random((height // scale + 3, width // scale + 3))
    fine = np.kron(coarse, np.ones((scale, scale)))[:height, :width]
    for axis in (0, 1):
        for shift in (1, 2, 4):
            fine = (fine + np.roll(fine, shift, axis)) / 2
    fine = (fine - fine.min()) / max(1e-9, np.ptp(fine))
    result: NDArray[np.uint8] = np.round(255 * fine).astype(np.uint8)
    return result
