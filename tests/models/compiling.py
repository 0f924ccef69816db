"""What `test_torch_compile` runs in processes of its own: torch remembers what it has compiled, and how.

python -m tests.models.compiling same|batches MODEL_FOLDER
python -m tests.models.compiling fails
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np

from tests.models.nets import contrasty_unet, tumor_card
from wsi_pipeline.errors import ModelError
from wsi_pipeline.models import load_segmenter
from wsi_pipeline.models.runtime import probe
from wsi_pipeline.models.torch_runtime import TorchSegmenter


def same(folder: Path) -> None:
    """The compiled net gives the maps of the plain one, and compiles once for windows of every size."""
    plain = load_segmenter(folder, device="cpu", runtime="torch", precision="fp32", threads=1)
    compiled = load_segmenter(folder, device="cpu", runtime="torch.compile", precision="fp32", threads=1)
    assert (plain.runtime, compiled.runtime) == ("torch", "torch.compile")
    # Code was made, and is kept.
    assert list(Path(os.environ["TORCHINDUCTOR_CACHE_DIR"]).rglob("*.so"))
    import torch

    before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    for height, width, count in ((256, 256, 1), (192, 288, 1), (256, 208, 1), (208, 208, 3)):
        images = np.concatenate([probe(plain.card, seed=seed, side=320)[:, :height, :width] for seed in range(count)])
        found, expected = compiled.predict(images), plain.predict(images)
        for mine, theirs in zip(found, expected, strict=True):
            assert mine.shape == theirs.shape
            assert np.abs(mine.astype(int) - theirs).max() <= 1
        assert np.ptp(found.probability) > 50
    # No size was compiled anew.
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == before


def batches(folder: Path) -> None:
    """Code for any number of images gives the maps of the plain net, and is made for many and for one only."""
    import torch

    from wsi_pipeline.models.load import load_card
    from wsi_pipeline.models.torch_compile import MANY, compiled
    from wsi_pipeline.models.torch_runtime import MapGraph, channels_last, fused
    from wsi_pipeline.models.unet import read_unet

    card = load_card(folder)
    graph = MapGraph(channels_last(fused(read_unet(folder / "model.safetensors"))), card, checked=True).eval()
    code = compiled(graph.requires_grad_(False), card, torch.device("cpu"), counts=(MANY, 1))
    before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    for side, count in ((256, 2), (192, 5), (256, 1), (224, 3)):
        with torch.inference_mode():
            images = torch.from_numpy(np.concatenate([probe(card, seed=seed, side=side) for seed in range(count)]))
            for mine, theirs in zip(code(images), graph(images), strict=True):
                assert mine.shape == theirs.shape
                assert (mine.int() - theirs.int()).abs().max() <= 1
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == before


def fails() -> None:
    """Print what is told where the compiler fails."""
    try:
        TorchSegmenter(tumor_card(sha256="c" * 64), contrasty_unet(), compile_net=True)
    except ModelError as error:
        sys.stdout.write(f"{error}\n")


if __name__ == "__main__":
    if sys.argv[1] in ("same", "batches"):
        {"same": same, "batches": batches}[sys.argv[1]](Path(sys.argv[2]))
    else:
        fails()
    sys.stdout.write("through\n")
