"""Networks that somebody saved with torch (TorchScript, exported programs) on OpenVINO: converted once, and kept.

On a CPU without bf16 this was 2.5 times as fast as torch. A warm start loads no torch.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import openvino

from wsi_pipeline.errors import ModelError
from wsi_pipeline.models.card import ModelCard
from wsi_pipeline.models.openvino_kept import Models, kept, kept_folder, traced
from wsi_pipeline.models.openvino_runtime import XML, OpenVinoSegmenter

if TYPE_CHECKING:
    from wsi_pipeline.models.torch_nets import LoadedNet

GRAPH_VERSION: Final = 1
"""Counted up when the graph around the network changes, so that no older conversion is used."""
IN_GRAPH: Final = (
    "architecture", "architecture_args", "activation", "classes", "mean", "std", "temperature", "sha256", "stride",
)  # fmt: skip
"""What of a card goes into a conversion."""


def load_openvino_net(
    card: ModelCard, weights: Path, *, precision: str = "fp32", threads: int | None = None
) -> OpenVinoSegmenter:
    """The network of `weights` on OpenVINO, from the kept conversion where there is one.

    Raises
    ------
    ModelError
        torch cannot load it, OpenVINO cannot convert it, or the conversion gives another map.
    """
    dumped = card.dump()
    parts = [dumped[name] for name in IN_GRAPH]
    folder = kept_folder(["net", GRAPH_VERSION, card.output, card.fixed_window and card.window], *parts)
    (model,) = kept(folder, (XML,), lambda: _convert(card, weights))
    return OpenVinoSegmenter(card, model, precision=precision, threads=threads)


def _convert(card: ModelCard, weights: Path) -> Models:
    from wsi_pipeline.models.torch_nets import load_net
    from wsi_pipeline.models.torch_runtime import MapGraph

    net = load_net(card, weights, "cpu")
    if net.one_by_one:
        raise ModelError(f"{weights}: takes one image at a time; it runs with torch only")
    graph = MapGraph(net, card, checked=True).eval().requires_grad_(False)
    side = card.window if card.fixed_window else card.stride * -(-64 // card.stride)
    try:
        model = traced(graph, side) if card.architecture == "torchscript" else _exported(graph, side, card.stride)
    except Exception as error:  # there is no limit to what a converter may raise
        told = " ".join(str(error).split())[:200]
        raise ModelError(f"{weights}: OpenVINO cannot convert it ({told})") from error
    _compare(card, weights, net, model, side)
    return (model,)


def _exported(graph: Any, side: int, stride: int) -> openvino.Model:
    """An exported program cannot be traced; with the graph around it, it is exported once more."""
    import torch

    free = torch.export.Dim.AUTO
    # Neither square nor alike in anything else: what is equal in the example is taken to be equal in all.
    example = torch.zeros(2, side, side + stride, 3, dtype=torch.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(graph, (example,), dynamic_shapes=({0: free, 1: free, 2: free},))
        return openvino.convert_model(program)


def _compare(card: ModelCard, weights: Path, net: LoadedNet, model: openvino.Model, side: int) -> None:
    """Refuse a conversion into which sizes were cast, or that computes something else."""
    from wsi_pipeline.models.runtime import TOLERANCE, probe
    from wsi_pipeline.models.torch_runtime import TorchSegmenter

    plain, other = TorchSegmenter(card, net), OpenVinoSegmenter(card, model)
    step = 0 if card.fixed_window else card.stride
    for count, height, width in ((1, side, side), (2, side + 2 * step, side + step), (3, side + step, side)):
        images = probe(card, side=max(height, width))[:, :height, :width].repeat(count, axis=0)
        maps = other.predict(images).probability.astype(np.int16)
        wanted = plain.predict(images).probability
        if maps.shape != wanted.shape or np.abs(maps - wanted).max() > 255 * TOLERANCE + 0.5:
            raise ModelError(f"{weights}: OpenVINO gives another map than torch for {count} of {width} x {height} px")
