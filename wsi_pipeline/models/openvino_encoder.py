"""The encoder alone on OpenVINO, on one thread; its conversion is kept beside those of the maps, so no torch is loaded.

It computes beside the engine, whose threads have the cores: a second one would only wait for them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import openvino
from numpy.typing import NDArray

from wsi_pipeline.models.appearance import WINDOW
from wsi_pipeline.models.card import ModelCard
from wsi_pipeline.models.openvino_kept import Models, kept, kept_folder, traced

XML: Final = "encoder.xml"
GRAPH_VERSION: Final = 1
"""Counted up when the graph around the encoder changes, so that no older conversion is used."""


class OpenVinoEncoder:
    """A converted encoder; not for several threads at once.

    Parameters
    ----------
    model
        From uint8 (N, H, W, 3) to float32 (N, D, h, w).
    """

    def __init__(self, model: openvino.Model) -> None:
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "INFERENCE_NUM_THREADS": 1,
            "INFERENCE_PRECISION_HINT": "f32",
            "ENABLE_CPU_PINNING": False,
        }
        self._request = openvino.Core().compile_model(model, "CPU", settings).create_infer_request()

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """float32 (N, D, H / 8, W / 8) of uint8 (N, H, W, 3)."""
        results = self._request.infer([np.ascontiguousarray(images)], share_inputs=True)
        found: NDArray[np.float32] = next(iter(results.values()))
        return found


def load_openvino_encoder(card: ModelCard, weights: Path) -> OpenVinoEncoder:
    """The encoder of the bundled U-Net of `weights`, from the kept conversion where there is one."""
    (model,) = kept(encoder_folder(card), (XML,), lambda: _convert(card, weights))
    return OpenVinoEncoder(model)


def encoder_folder(card: ModelCard) -> Path:
    """Where the conversion of this encoder is kept: one per weights, graph and OpenVINO version."""
    dumped = card.dump()
    return kept_folder(["encoder", GRAPH_VERSION], *(dumped[name] for name in ("mean", "std", "sha256")))


def _convert(card: ModelCard, weights: Path) -> Models:
    from wsi_pipeline.models.encoder import EncoderGraph
    from wsi_pipeline.models.unet import read_unet

    return (traced(EncoderGraph(read_unet(weights), card.mean, card.std), WINDOW),)
