"""Running the network with OpenVINO on a CPU. A converted model is kept, so that a warm start loads no torch.

Shapes stay dynamic: over 25 window shapes between 224 and 736 px that was as fast as a compiled network per
shape (1.03 against 0.85 Mpx per CPU-second), with the memory of one.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import shutil
import tempfile
import threading
import warnings
from pathlib import Path
from typing import Final

import numpy as np
import openvino
from numpy.typing import NDArray

from wsi_pipeline.models.card import ModelCard
from wsi_pipeline.models.machine import available_cores, cache_dir
from wsi_pipeline.models.segmenter import Maps, binary_uncertainty, check_images, inside

_log = logging.getLogger(__name__)

PRECISIONS: Final = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}
XML: Final = "model.xml"
INSIDE_XML: Final = "inside.xml"
INSIDE_HALO: Final = 48
"""Input px that the graph in `INSIDE_XML` leaves out on each side: `unet.HALO`, which would load torch."""

GRAPH_VERSION: Final = 3
"""Counted up when the graph around the network changes, so that no older conversion is used."""


class OpenVinoSegmenter:
    """A converted network: one stream with all threads; calls take turns.

    Parameters
    ----------
    model
        From uint8 (N, H, W, 3) to the outputs of `torch_runtime.MapGraph`.
    inside
        The same without the outermost `INSIDE_HALO` px of the maps, at less cost. Of the two only what is used is
        compiled.
    threads
        None: all cores that the process may use.
    """

    runtime = "openvino"
    device = "cpu"

    def __init__(
        self,
        card: ModelCard,
        model: openvino.Model,
        *,
        inside: openvino.Model | None = None,
        precision: str = "fp32",
        threads: int | None = None,
    ) -> None:
        self.card = card
        self.precision = precision
        self._model = model
        self._inside = inside
        self._settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "INFERENCE_NUM_THREADS": threads or available_cores(),
            "INFERENCE_PRECISION_HINT": PRECISIONS[precision],
            # Pinned threads gain nothing when alone, and lose when several processes pin the same cores.
            "ENABLE_CPU_PINNING": False,
        }
        self._requests: dict[int, openvino.InferRequest] = {}
        self._turn = threading.Lock()

    def predict(self, images: NDArray[np.uint8]) -> Maps:
        """See `Segmenter.predict`."""
        check_images(images, self.card)
        return self._infer(self._model, images)

    def predict_inside(self, images: NDArray[np.uint8], halo: int) -> Maps:
        """See `InsideSegmenter.predict_inside`."""
        check_images(images, self.card)
        if self._inside is None or halo < INSIDE_HALO:
            return inside(self.predict(images), halo // self.card.output_downsample)
        surplus = halo - INSIDE_HALO
        rows, columns = (slice(surplus, side - surplus) for side in images.shape[1:3])
        return self._infer(self._inside, images[:, rows, columns])

    def _infer(self, model: openvino.Model, images: NDArray[np.uint8]) -> Maps:
        with self._turn:
            request = self._requests.get(id(model))
            if request is None:
                compiled = openvino.Core().compile_model(model, "CPU", self._settings)
                request = self._requests[id(model)] = compiled.create_infer_request()
            # The input is used where it lies, the outputs are copied: the next call overwrites them.
            results = request.infer([np.ascontiguousarray(images)], share_inputs=True)
        outputs: list[NDArray[np.uint8]] = list(results.values())
        probability = outputs[0]
        return Maps(probability, outputs[1] if len(outputs) > 1 else binary_uncertainty(probability))


def load_openvino(
    card: ModelCard, weights: Path, *, precision: str = "fp32", threads: int | None = None
) -> OpenVinoSegmenter:
    """The bundled U-Net of `weights` on OpenVINO, from the kept conversion where there is one."""
    folder = conversion_folder(card)
    model, within = _read(folder) or _convert_and_keep(card, weights, folder)
    return OpenVinoSegmenter(card, model, inside=within, precision=precision, threads=threads)


def conversion_folder(card: ModelCard) -> Path:
    """Where the conversion of this model is kept: one per weights, graph and OpenVINO version."""
    in_graph = ("architecture", "architecture_args", "activation", "classes", "mean", "std", "temperature", "sha256")
    dumped = card.dump()
    key = json.dumps([GRAPH_VERSION, openvino.__version__, *(dumped[name] for name in in_graph)], sort_keys=True)
    return cache_dir() / "openvino" / hashlib.sha256(key.encode()).hexdigest()[:32]


Models = tuple[openvino.Model, openvino.Model]
"""The whole map, and its inside."""


def _read(folder: Path) -> Models | None:
    files = folder / XML, folder / INSIDE_XML
    if not all(file.is_file() for file in files):
        return None
    core = openvino.Core()
    try:
        return core.read_model(files[0]), core.read_model(files[1])
    except RuntimeError as error:
        _log.warning("the kept conversion %s cannot be read (%s); converting again", folder, str(error).splitlines()[0])
        shutil.rmtree(folder, ignore_errors=True)
        return None


def _convert(card: ModelCard, weights: Path) -> Models:
    import torch

    from wsi_pipeline.models.torch_runtime import MapGraph
    from wsi_pipeline.models.unet import read_unet
    from wsi_pipeline.models.unet_rewrite import RewrittenUNet

    net = read_unet(weights)
    side = (8 + math.ceil(2 * INSIDE_HALO / card.stride)) * card.stride

    def converted(*, inside: bool) -> openvino.Model:
        graph = MapGraph(RewrittenUNet(net, inside=inside), card).eval().requires_grad_(False)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the tracer's own, about deprecated parts of torch
            model = openvino.convert_model(graph, example_input=torch.zeros(1, side, side, 3, dtype=torch.uint8))
        model.reshape([-1, -1, -1, 3])
        return model

    return converted(inside=False), converted(inside=True)


def _convert_and_keep(card: ModelCard, weights: Path, folder: Path) -> Models:
    """Convert, write beside its place, rename there; without a cache that can be written, keep nothing.

    The model is read back from disk in any case: as converted it is optimised a little differently, and a run
    that was killed must go on with the same bits.
    """
    models = _convert(card, weights)
    with tempfile.TemporaryDirectory(prefix="wsi-pipeline-") as elsewhere:
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            beside = tempfile.mkdtemp(dir=folder.parent, prefix=f"{folder.name}.")
        except OSError as error:
            _log.warning("the converted model cannot be kept in %s: %s", folder, error)
            return _written(models, Path(elsewhere))
        try:
            _write(models, Path(beside))
            os.rename(beside, folder)
        except (OSError, RuntimeError) as error:
            if not folder.is_dir():  # else another process was faster
                _log.warning("the converted model cannot be kept in %s: %s", folder, error)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
        return _read(folder) or _written(models, Path(elsewhere))


def _written(models: Models, folder: Path) -> Models:
    _write(models, folder)
    # The weights are mapped, not read: the file must not be in use when its folder is removed.
    whole, within = (
        openvino.Core().read_model((folder / name).read_bytes(), (folder / name).with_suffix(".bin").read_bytes())
        for name in (XML, INSIDE_XML)
    )
    return whole, within


def _write(models: Models, folder: Path) -> None:
    for model, name in zip(models, (XML, INSIDE_XML), strict=True):
        # Weights in fp16 would change the map, for no speed on a CPU.
        openvino.save_model(model, folder / name, compress_to_fp16=False)
