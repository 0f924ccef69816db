"""torch.compile: the network as code for this processor or GPU, made once per machine, and used later, too."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Final

import torch
from torch import Tensor, nn

from wsi_pipeline.errors import ModelError
from wsi_pipeline.models.card import ModelCard
from wsi_pipeline.models.machine import cache_dir, compiler_missing

Graph = Callable[[Tensor], tuple[Tensor, ...]]

# Neither square nor alike in anything else: what is equal in the first images is taken to be equal in all.
_ROWS: Final = 3
_COLUMNS: Final = 5
MANY: Final = 7
"""Images of a batch that the code for any number is made from."""


def compiled(graph: nn.Module, card: ModelCard, device: torch.device, *, counts: Sequence[int] = ()) -> Graph:
    """`graph`, from uint8 (N, H, W, 3) images on a device, compiled for every H and W; this takes seconds.

    Windows are of many sizes, and each would be compiled anew: so sizes are left open. (Far smaller ones, for which
    torch convolves in another way, are compiled once more.) On a CPU one image at a time; on a GPU any number, for
    which there are two pieces of code, since torch makes one of its own for a single image.

    Parameters
    ----------
    counts
        Numbers of images to compile for; by default what the device is given.

    Raises
    ------
    ModelError
        There is no compiler, or it fails.
    """
    missing = compiler_missing(device.type)
    if missing is not None:
        raise ModelError(f"torch.compile: {missing}; set `model.runtime: torch`")
    # Kept with everything else that is worth keeping, not in the folder for temporary files; what a user says stands.
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_dir() / "inductor"))
    import torch._inductor.config as settings

    # In this process: helpers would stay as long as it does.
    settings.compile_threads = 1
    found: Graph = torch.compile(graph, dynamic=True)
    side = card.stride * 8
    try:
        with torch.inference_mode():
            for count in counts or ((1,) if device.type == "cpu" else (MANY, 1)):
                found(torch.zeros(count, _ROWS * side, _COLUMNS * side, 3, dtype=torch.uint8, device=device))
    except Exception as error:
        lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        raise ModelError(f"torch.compile fails ({lines[0][:200]}); set `model.runtime: torch`") from error
    return found
