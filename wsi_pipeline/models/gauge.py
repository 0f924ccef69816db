"""How unlike the training slides windows are to the network itself. Torch is loaded only where it runs the model."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.models.appearance import tissue_of
from wsi_pipeline.models.card import ModelCard
from wsi_pipeline.models.load import checked_weights, folder_of
from wsi_pipeline.models.machine import installed
from wsi_pipeline.models.structure import FeatureStatistics, pooled, read_structure

BATCH: Final = 16
"""Windows that go through the encoder at once: more gains nothing on a CPU, and costs 5 MB each."""

Floats = NDArray[np.float64]
Encoder = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""uint8 (N, H, W, 3) to float32 (N, D, h, w)."""


def features_by(encoder: Encoder, windows: Sequence[NDArray[np.uint8]]) -> Floats:
    """Features (n, D) of windows that hold tissue, uint8 (side, side, 3) all of one size; n is 1 at least."""
    found = []
    for start in range(0, len(windows), BATCH):
        images = np.stack(windows[start : start + BATCH])
        found.append(pooled(encoder(images), tissue_of(images)))
    return np.concatenate(found)


class Gauge:
    """The encoder with the statistics of the training windows.

    Parameters
    ----------
    open_encoder
        Called once, when the first window comes: not every run has one.
    """

    def __init__(self, statistics: FeatureStatistics, open_encoder: Callable[[], Encoder]) -> None:
        self._statistics = statistics
        self._open = open_encoder
        self._encoder: Encoder | None = None
        self._turn = threading.Lock()

    def strangeness(self, windows: Sequence[NDArray[np.uint8]]) -> Floats:
        """Distance over the threshold, (n,), of windows as `features_by` takes them: above 1 is strange."""
        if not windows:
            return np.empty(0)
        with self._turn:
            if self._encoder is None:
                self._encoder = self._open()
            return self._statistics.strangeness(features_by(self._encoder, windows))


def open_gauge(card: ModelCard, path: str, *, runtime: str, device: str) -> Gauge | None:
    """What measures the distance of features for the model at `path`; None where its card holds no statistics.

    Parameters
    ----------
    runtime, device
        What computes the maps: the encoder runs there too, on one thread where that is a CPU.

    Raises
    ------
    ModelError
        The statistics that the card names cannot be used.
    """
    if card.structure is None:
        return None
    statistics = read_structure(card.structure, folder_of(Path(path)))

    def open_encoder() -> Encoder:
        weights = checked_weights(card, Path(path))
        if runtime == "openvino" and installed("openvino") is not None:
            from wsi_pipeline.models.openvino_encoder import load_openvino_encoder

            return load_openvino_encoder(card, weights)
        from wsi_pipeline.models.encoder import load_torch_encoder

        return load_torch_encoder(card, weights, device)

    return Gauge(statistics, open_encoder)
