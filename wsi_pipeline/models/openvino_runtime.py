"""Running the network with OpenVINO on a CPU. A converted model is kept, so that a warm start loads no torch.

Shapes stay dynamic: over 25 window shapes between 224 and 736 px that was as fast as a compiled network per
shape (1.03 against 0.85 Mpx per CPU-second), with the memory of one.
"""

from __future__ import annotations

import math
import threading
from pathlib import Path
from typing import Any, Final

import numpy as np
import openvino
from numpy.typing import NDArray

from wsi_pipeline.errors import ModelError
from wsi_pipeline.models.card import ModelCard
from wsi_pipeline.models.machine import available_cores
from wsi_pipeline.models.openvino_kept import Models, kept, kept_folder, traced
from wsi_pipeline.models.segmenter import Maps, binary_uncertainty, check_images, inside

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
            try:
                results = request.infer([np.ascontiguousarray(images)], share_inputs=True)
            except RuntimeError as error:
                height, width = images.shape[1:3]
                told = " ".join(str(error).split())[:200]
                raise ModelError(
                    f"model {self.card.name}: OpenVINO fails on images of {width} x {height} px ({told}); set "
                    "`model.runtime: torch`"
                ) from error
        outputs: list[NDArray[Any]] = list(results.values())
        if outputs[-1].dtype == np.bool_ and not outputs.pop().all():
            raise ModelError(f"model {self.card.name}: the network gives values that are no numbers")
        probability = outputs[0]
        return Maps(probability, outputs[1] if len(outputs) > 1 else binary_uncertainty(probability))


def load_openvino(
    card: ModelCard, weights: Path, *, precision: str = "fp32", threads: int | None = None
) -> OpenVinoSegmenter:
    """The bundled U-Net of `weights` on OpenVINO, from the kept conversion where there is one."""
    model, within = kept(conversion_folder(card), (XML, INSIDE_XML), lambda: _convert(card, weights))
    return OpenVinoSegmenter(card, model, inside=within, precision=precision, threads=threads)


def conversion_folder(card: ModelCard) -> Path:
    """Where the conversion of this model is kept: one per weights, graph and OpenVINO version."""
    in_graph = ("architecture", "architecture_args", "activation", "classes", "mean", "std", "temperature", "sha256")
    dumped = card.dump()
    return kept_folder(GRAPH_VERSION, *(dumped[name] for name in in_graph))


def _convert(card: ModelCard, weights: Path) -> Models:
    """The whole map, and its inside."""
    from wsi_pipeline.models.torch_runtime import MapGraph
    from wsi_pipeline.models.unet import read_unet
    from wsi_pipeline.models.unet_rewrite import RewrittenUNet

    net = read_unet(weights)
    side = (8 + math.ceil(2 * INSIDE_HALO / card.stride)) * card.stride
    return tuple(traced(MapGraph(RewrittenUNet(net, inside=inside), card), side) for inside in (False, True))
