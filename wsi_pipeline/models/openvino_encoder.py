"""The encoder alone on OpenVINO, on one thread; its conversion is kept beside those of the maps, so no torch is loaded.

It computes beside the engine, whose threads have the cores: a second one would only wait for them.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import Final

import numpy as np
import openvino
from numpy.typing import NDArray

from wsi_pipeline.models.card import ModelCard
from wsi_pipeline.models.machine import cache_dir

_log = logging.getLogger(__name__)

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
    folder = encoder_folder(card)
    return OpenVinoEncoder(_read(folder) or _convert_and_keep(card, weights, folder))


def encoder_folder(card: ModelCard) -> Path:
    """Where the conversion of this encoder is kept: one per weights, graph and OpenVINO version."""
    dumped = card.dump()
    key = json.dumps(["encoder", GRAPH_VERSION, openvino.__version__, *(dumped[k] for k in ("mean", "std", "sha256"))])
    return cache_dir() / "openvino" / hashlib.sha256(key.encode()).hexdigest()[:32]


def _read(folder: Path) -> openvino.Model | None:
    if not (folder / XML).is_file():
        return None
    try:
        return openvino.Core().read_model(folder / XML)
    except RuntimeError as error:
        _log.warning("the kept conversion %s cannot be read (%s); converting again", folder, str(error).splitlines()[0])
        shutil.rmtree(folder, ignore_errors=True)
        return None


def _convert(card: ModelCard, weights: Path) -> openvino.Model:
    import torch

    from wsi_pipeline.models.encoder import EncoderGraph
    from wsi_pipeline.models.unet import read_unet

    graph = EncoderGraph(read_unet(weights), card.mean, card.std).eval().requires_grad_(False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer's own, about deprecated parts of torch
        model = openvino.convert_model(graph, example_input=torch.zeros(1, 128, 128, 3, dtype=torch.uint8))
    model.reshape([-1, -1, -1, 3])
    return model


def _convert_and_keep(card: ModelCard, weights: Path, folder: Path) -> openvino.Model:
    """Convert, write beside its place, rename there; without a cache that can be written, keep nothing.

    What is used is what was read back: as converted the model is optimised a little differently.
    """
    model = _convert(card, weights)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f"{folder.name}."))
    except OSError as error:
        _log.warning("the converted encoder cannot be kept in %s: %s", folder, error)
        return _written(model)
    try:
        openvino.save_model(model, beside / XML, compress_to_fp16=False)
        os.rename(beside, folder)
    except (OSError, RuntimeError) as error:
        if not folder.is_dir():  # else another process was faster
            _log.warning("the converted encoder cannot be kept in %s: %s", folder, error)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return _read(folder) or _written(model)


def _written(model: openvino.Model) -> openvino.Model:
    with tempfile.TemporaryDirectory(prefix="wsi-pipeline-") as elsewhere:
        xml = Path(elsewhere) / XML
        openvino.save_model(model, xml, compress_to_fp16=False)
        # The weights are mapped, not read: the file must not be in use when its folder is removed.
        return openvino.Core().read_model(xml.read_bytes(), xml.with_suffix(".bin").read_bytes())
