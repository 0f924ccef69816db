"""Running the network with torch: normalisation, softmax and rounding in one graph, on CPU or CUDA."""

from __future__ import annotations

import copy
import math
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from wsi_pipeline.errors import ModelError
from wsi_pipeline.models.card import ModelCard
from wsi_pipeline.models.dropout import Draws, with_draws
from wsi_pipeline.models.ensemble import Draw
from wsi_pipeline.models.halving import HalvingBatches
from wsi_pipeline.models.segmenter import Maps, binary_uncertainty, check_images, needs_entropy_output
from wsi_pipeline.models.torch_compile import Graph, compiled
from wsi_pipeline.models.unet import read_unet

DTYPES: Final = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class MapGraph(nn.Module):
    """A network between uint8 images and uint8 maps, so that nothing is computed outside the graph.

    `forward` takes uint8 (N, H, W, 3) and gives uint8 probability (N, C, h, w) of the foreground classes; for
    softmax over three or more classes also uint8 uncertainty (N, h, w); with `checked` last bool (N,), whether all
    that the network gave are numbers.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, net: nn.Module, card: ModelCard, *, checked: bool = False) -> None:
        super().__init__()
        self.net = net
        self.checked = checked
        self.normalised = card.mean != (0, 0, 0) or card.std != (1, 1, 1)
        self.register_buffer("scale", torch.tensor([1 / std for std in card.std]).view(1, 3, 1, 1))
        self.register_buffer(
            "shift", torch.tensor([-m / s for m, s in zip(card.mean, card.std, strict=True)]).view(1, 3, 1, 1)
        )
        self.temperature = card.temperature
        self.softmax = card.activation == "softmax"
        self.channels = list(card.foreground_channels)
        self.count = len(card.classes)
        self.with_entropy = needs_entropy_output(card)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        x = images.permute(0, 3, 1, 2).to(torch.float32) / 255
        if self.normalised:
            x = x * self.scale + self.shift
        logits = self.net(x).to(torch.float32)
        maps = self._maps(logits)
        return (*maps, torch.isfinite(logits).flatten(1).all(1)) if self.checked else maps

    def _maps(self, logits: Tensor) -> tuple[Tensor, ...]:
        if self.temperature != 1:
            logits = logits / self.temperature
        if not self.softmax:
            return (_to_uint8(torch.sigmoid(logits)),)
        if self.count == 2:
            # Softmax of two is the sigmoid of their difference.
            ahead = logits[:, 1:2] - logits[:, 0:1]
            return (_to_uint8(torch.cat([torch.sigmoid(ahead if c else -ahead) for c in self.channels], 1)),)
        p = torch.softmax(logits, 1)
        entropy = -(p * torch.log(p.clamp_min(1e-30))).sum(1)
        return _to_uint8(p[:, self.channels]), _to_uint8(entropy / math.log(self.count))


def _to_uint8(share: Tensor) -> Tensor:
    return (share.clamp(0, 1) * 255).round().to(torch.uint8)


def fused(net: nn.Module) -> nn.Module:
    """A copy of `net` in evaluation mode, each batch norm that follows a convolution folded into it."""
    net = copy.deepcopy(net).eval()
    for sequence in [m for m in net.modules() if isinstance(m, nn.Sequential)]:
        for index in range(len(sequence) - 1):
            first, second = sequence[index], sequence[index + 1]
            if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
                sequence[index] = fuse_conv_bn_eval(first, second)
                sequence[index + 1] = nn.Identity()
    return net


def channels_last(net: nn.Module) -> nn.Module:
    """`net` itself, the weights of its convolutions laid out as the images are: half as fast again on a CPU."""
    for parameter in net.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return net


class TorchSegmenter:
    """A network on one torch device.

    On the CPU calls take turns, each with all threads: a second stream would only cost memory. On CUDA each
    calling thread has a stream of its own, so that one thread's copies hide behind another's computing; when
    memory runs out the batch is halved, and stays halved.

    Parameters
    ----------
    net
        Images (N, 3, H, W) to logits; it is copied.
    device
        "cpu", "cuda" or "cuda:1".
    precision
        "fp32", or "bf16" and "fp16" for autocast.
    threads
        Threads of the process's torch (which has one setting for all); None leaves it alone.
    compile_net
        Have torch.compile make code for this processor or GPU; not for dropout, and on a CPU for single images.
    """

    def __init__(
        self,
        card: ModelCard,
        net: nn.Module,
        *,
        device: str = "cpu",
        precision: str = "fp32",
        threads: int | None = None,
        compile_net: bool = False,
    ) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        self.card = card
        self.runtime = "torch.compile" if compile_net else "torch"
        self.device = device
        self.precision = precision
        self._device = torch.device(device)
        self._dtype = DTYPES[precision]
        net = fused(net)
        self._draws = Draws()
        self.has_dropout = with_draws(net, self._draws) > 0
        graph = MapGraph(channels_last(net), card, checked=True).to(self._device)
        self._graph = graph.requires_grad_(False).eval()
        with self._autocast():
            self._compiled = compiled(self._graph, card, self._device) if compile_net else None
        if self._device.type == "cuda":
            # What was begun here ends before the streams of other threads use it: they wait for no other stream.
            torch.cuda.synchronize(self._device)
        self._turn = threading.Lock()
        self._local = threading.local()
        self._batches = HalvingBatches(torch.cuda.empty_cache)

    def predict(self, images: NDArray[np.uint8]) -> Maps:
        """See `Segmenter.predict`; raises `ModelError` when one image alone is too large for the GPU."""
        return self._maps(images, None)

    def sample(self, images: NDArray[np.uint8], draws: Sequence[Draw]) -> Maps:
        """See `SamplingSegmenter.sample`."""
        return self._maps(images, draws)

    def _maps(self, images: NDArray[np.uint8], draws: Sequence[Draw] | None) -> Maps:
        check_images(images, self.card)
        graph: Graph = self._graph
        most = None
        if self._compiled is not None and draws is None:
            # Code for a CPU is made for single images; see `compiled`.
            graph, most = self._compiled, 1 if self._device.type == "cpu" else None
        compute = self._on_cpu if self._device.type == "cpu" else self._on_cuda

        def run(part: slice) -> list[NDArray[Any]]:
            with self._draws.at_work(draws[part] if draws is not None else ()):
                return compute(graph, images[part])

        try:
            parts = self._batches.run_slices(run, images.shape, most=most)
        except ModelError:
            raise
        except Exception as error:  # of a network that others saved, say for other sizes
            raise ModelError(self._failed(images, last_line(error))) from error
        outputs = [np.concatenate(group) if len(group) > 1 else group[0] for group in zip(*parts, strict=True)]
        factor = self.card.output_downsample
        height, width = outputs[0].shape[2:]
        if (height, width) != (images.shape[1] // factor, images.shape[2] // factor):
            raise ModelError(self._failed(images, f"it gives a map of {width} x {height} px"))
        return self._as_maps(outputs)

    def _failed(self, images: NDArray[np.uint8], cause: str) -> str:
        height, width = images.shape[1:3]
        return f"model {self.card.name}: the network fails on images of {width} x {height} px ({cause})"

    def _as_maps(self, outputs: list[NDArray[Any]]) -> Maps:
        probability, *entropy, numbers = outputs
        if not numbers.all():
            advice = "; set `model.precision: fp32`" if self.precision == "fp16" else ""
            raise ModelError(f"model {self.card.name}: the network gives values that are no numbers{advice}")
        return Maps(probability, entropy[0] if entropy else binary_uncertainty(probability))

    def _autocast(self) -> AbstractContextManager[object]:
        if self._dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self._device.type, dtype=self._dtype)

    def _on_cpu(self, graph: Graph, images: NDArray[np.uint8]) -> list[NDArray[Any]]:
        with self._turn, torch.inference_mode(), self._autocast():
            return [output.numpy() for output in graph(_tensor(images))]

    def _on_cuda(self, graph: Graph, images: NDArray[np.uint8]) -> list[NDArray[Any]]:
        stream = self._stream()
        with torch.cuda.stream(stream), torch.inference_mode(), self._autocast():
            # Only pinned memory is copied without blocking; the allocator keeps it until the copy is done.
            inputs = _tensor(images).pin_memory().to(self._device, non_blocking=True)
            outputs = [_start_copy_back(output) for output in graph(inputs)]
        stream.synchronize()
        return [output.numpy().copy() for output in outputs]

    def _stream(self) -> torch.cuda.Stream:
        stream: torch.cuda.Stream | None = getattr(self._local, "stream", None)
        if stream is None:
            stream = self._local.stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        return stream


def last_line(error: Exception) -> str:
    """What torch says in the end, in one line; before it stands the network's source."""
    lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return lines[-1].strip()[:200]


def _start_copy_back(output: Tensor) -> Tensor:
    host = torch.empty(output.shape, dtype=output.dtype, pin_memory=True)
    return host.copy_(output, non_blocking=True)


def _tensor(images: NDArray[np.uint8]) -> Tensor:
    # torch warns about arrays that it could write but must not.
    ready = np.ascontiguousarray(images) if images.flags.writeable else images.copy()
    # By torch: a first axis that numpy adds has steps of 0, for which all would be compiled once more.
    return torch.from_numpy(ready[0])[None] if len(ready) == 1 else torch.from_numpy(ready)


def load_torch(
    card: ModelCard,
    weights: Path,
    *,
    device: str = "cpu",
    precision: str = "fp32",
    threads: int | None = None,
    compile_net: bool = False,
) -> TorchSegmenter:
    """The bundled U-Net of `weights` on torch; see `TorchSegmenter`."""
    net = read_unet(weights, dropout=float(card.architecture_args.get("dropout", 0)))
    return TorchSegmenter(card, net, device=device, precision=precision, threads=threads, compile_net=compile_net)
