"""Networks that somebody saved with torch: TorchScript, exported programs, and classifiers of patches.

Files are loaded only after `wsi_pipeline.models.weights.check_file` has looked at them.
"""

from __future__ import annotations

import inspect
import os
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from wsi_pipeline.errors import ModelError
from wsi_pipeline.models.card import ModelCard
from wsi_pipeline.models.halving import HalvingBatches, is_out_of_memory
from wsi_pipeline.models.net_segmenter import Floats, NetSegmenter
from wsi_pipeline.models.segmenter import Segmenter
from wsi_pipeline.models.shapes import check_sides, try_net
from wsi_pipeline.models.torch_runtime import TorchSegmenter, last_line

_LOADING: Final = threading.Lock()
_WEIGHTS_ONLY: Final = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"


class LoadedNet(nn.Module):
    """A network as it was saved: images (N, 3, H, W) to logits (N, C, h, w).

    It is never trained nor copied: scripted and exported modules can do neither. Where there are several outputs
    the first one counts. A network that takes one image at a time gets them one by one.
    """

    def __init__(self, net: nn.Module, card: ModelCard, *, one_by_one: bool = False) -> None:
        super().__init__()
        self.net = net
        self.one_by_one = one_by_one
        self.as_logits = _inverse(card)

    def train(self, mode: bool = True) -> Self:
        """Nothing: the mode was fixed when it was saved."""
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def forward(self, x: Tensor) -> Tensor:
        return self.as_logits(self.given(x))

    def given(self, x: Tensor) -> Tensor:
        """What the network itself gives, as float32."""
        if self.one_by_one and len(x) > 1:
            found = torch.cat([_first(self.net(x[i : i + 1])) for i in range(len(x))])
        else:
            found = _first(self.net(x))
        return found.to(torch.float32)


class PatchNet(nn.Module):
    """A classifier of patches as a network of coarse maps: a pixel of the map for each patch of the grid.

    Parameters
    ----------
    net
        Patches (n, 3, size, size) to logits (n, C).
    patch
        Side of a patch of the image, in pixels.
    size
        Side that patches are resized to, bilinear and anti-aliased, or None.
    """

    def __init__(self, net: nn.Module, patch: int, size: int | None) -> None:
        super().__init__()
        self.net, self.patch, self.size = net, patch, size

    def forward(self, x: Tensor) -> Tensor:
        count, rows, columns = len(x), x.shape[2] // self.patch, x.shape[3] // self.patch
        patches = x.reshape(count, 3, rows, self.patch, columns, self.patch).permute(0, 2, 4, 1, 3, 5)
        patches = patches.reshape(-1, 3, self.patch, self.patch)
        if self.size is not None and self.size != self.patch:
            side = (self.size, self.size)
            patches = functional.interpolate(patches, side, mode="bilinear", antialias=True, align_corners=False)
        found = _first(self.net(patches.contiguous()))
        if found.ndim == 1:
            found = found[:, None]
        return found.reshape(count, rows, columns, -1).permute(0, 3, 1, 2)


def open_net(
    card: ModelCard, weights: Path, *, device: str = "cpu", precision: str = "fp32", threads: int | None = None
) -> Segmenter:
    """The network of `weights` as a `Segmenter`; parameters as `TorchSegmenter`, errors as `load_net`."""
    net = load_net(card, weights, device)
    if card.preprocessing == "none":
        return TorchSegmenter(card, net, device=device, precision=precision, threads=threads)
    if threads is not None:
        torch.set_num_threads(threads)
    plain = card.model_copy(update={"output": "logits"})  # `LoadedNet` gives logits whatever the file gives

    def run(x: Floats) -> Floats:
        with torch.inference_mode():
            found: Floats = net(torch.from_numpy(x).to(device)).cpu().numpy()
            return found

    batches = HalvingBatches(torch.cuda.empty_cache)
    return NetSegmenter(plain, run, runtime="torch", device=device, batches=batches)


def load_net(card: ModelCard, weights: Path, device: str) -> LoadedNet:
    """The network of `weights` on a device, tried on one image.

    Raises
    ------
    ModelError
        It cannot be loaded, it does not take images of the card's sides, or gives something else than the card says.
    """
    with _told(card, weights), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, about its older formats
        net = _exported(card, weights, device) if card.architecture == "exported" else _scripted(card, weights, device)
        _try(card, net, weights, device)
    return net


def _scripted(card: ModelCard, weights: Path, device: str) -> LoadedNet:
    net: nn.Module = torch.jit.load(str(weights), map_location=device).eval()  # type: ignore[no-untyped-call]
    if card.architecture == "wsinfer":
        net = PatchNet(net, card.output_downsample, card.architecture_args.get("resize"))
    return LoadedNet(net, card)


def _exported(card: ModelCard, weights: Path, device: str) -> LoadedNet:
    with _weights_only():
        program = torch.export.load(weights)
    if device != "cpu":
        from torch.export.passes import move_to_device_pass

        program = move_to_device_pass(program, device)
    one_by_one = check_sides(card, weights, _taken(program))
    return LoadedNet(_module(program), card, one_by_one=one_by_one)


def _module(program: torch.export.ExportedProgram) -> nn.Module:
    """Its network, without the conditions on its inputs: they are source code of the file's, which torch would run."""
    if "check_guards" in inspect.signature(program.module).parameters:
        return program.module(check_guards=False)
    return program.module()  # a torch that knows no such conditions


def _taken(program: torch.export.ExportedProgram) -> list[int | None]:
    """Shape that the program takes, None for a length that is left open; empty where it is not one tensor."""
    inputs = program.graph_signature.user_inputs
    shapes = [node.meta["val"].shape for node in program.graph.nodes if node.name in inputs and "val" in node.meta]
    return [side if isinstance(side, int) else None for side in shapes[0]] if len(shapes) == 1 else []


def _try(card: ModelCard, net: LoadedNet, weights: Path, device: str) -> None:
    def run(x: Floats) -> Floats:
        with torch.inference_mode():
            found: Floats = net.given(torch.from_numpy(x).to(device)).cpu().numpy()
            return found

    try_net(card, weights, run)


def _first(found: Any) -> Tensor:
    while isinstance(found, (tuple, list, dict)) and found:
        found = next(iter(found.values() if isinstance(found, dict) else found))
    if not isinstance(found, Tensor):
        raise TypeError(f"the network gives {type(found).__name__}, no tensor")
    return found


def _inverse(card: ModelCard) -> Callable[[Tensor], Tensor]:
    """From what the network gives to logits."""
    if card.output == "logits":
        return lambda x: x
    if card.activation == "softmax":
        return lambda p: torch.log(p.clamp(1e-7, 1))
    return lambda p: torch.logit(p, 1e-7)


@contextmanager
def _weights_only() -> Iterator[None]:
    """Have `torch.load` refuse what it would run, also where torch itself calls it with `weights_only=False`."""
    with _LOADING:
        before = os.environ.get(_WEIGHTS_ONLY)
        os.environ[_WEIGHTS_ONLY] = "1"
        try:
            yield
        finally:
            if before is None:
                del os.environ[_WEIGHTS_ONLY]
            else:
                os.environ[_WEIGHTS_ONLY] = before


@contextmanager
def _told(card: ModelCard, weights: Path) -> Iterator[None]:
    """What torch raises while it loads and tries a network, as `ModelError` that names the file."""
    try:
        yield
    except ModelError:
        raise
    except Exception as error:  # what others saved may fail in any way
        if is_out_of_memory(error):
            raise ModelError(f"{weights}: the memory does not hold the model; use `model.device: cpu`") from error
        raise ModelError(f"{weights}: torch cannot use it as {card.architecture} ({last_line(error)})") from error
