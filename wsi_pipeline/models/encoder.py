"""The encoder of the bundled U-Net alone: windows in, its deepest features out, on torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from wsi_pipeline.models.card import ModelCard, Triple
from wsi_pipeline.models.torch_runtime import channels_last, fused
from wsi_pipeline.models.unet import UNet, read_unet


class EncoderGraph(nn.Module):
    """From uint8 (N, H, W, 3) to what the deepest stage (`structure.LAYER`) gives, float32 (N, D, H / 8, W / 8).

    No value is below 0. Dropout is left out. The network is copied, batch norms folded in.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, net: UNet, mean: Triple = (0, 0, 0), std: Triple = (1, 1, 1)) -> None:
        super().__init__()
        self.e0, self.e1, self.e2, self.e3 = (fused(block) for block in (net.e0, net.e1, net.e2, net.e3))
        self.register_buffer("scale", torch.tensor([1 / s for s in std]).view(1, 3, 1, 1))
        self.register_buffer("shift", torch.tensor([-m / s for m, s in zip(mean, std, strict=True)]).view(1, 3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        x = images.permute(0, 3, 1, 2).to(torch.float32) / 255 * self.scale + self.shift
        for stage, block in enumerate((self.e0, self.e1, self.e2, self.e3)):
            x = block(functional.max_pool2d(x, 2) if stage else x)
        return x


class TorchEncoder:
    """An `EncoderGraph` on a torch device, in float32 whatever the maps are computed in.

    Parameters
    ----------
    net
        It is copied.
    mean, std
        As in the model's card.
    """

    def __init__(self, net: UNet, mean: Triple = (0, 0, 0), std: Triple = (1, 1, 1), *, device: str = "cpu") -> None:
        self._device = torch.device(device)
        graph = channels_last(EncoderGraph(net, mean, std)).to(self._device)
        self._graph = graph.requires_grad_(False).eval()

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """float32 (N, D, H / 8, W / 8) of uint8 (N, H, W, 3)."""
        with torch.inference_mode():
            found: NDArray[np.float32] = self._graph(torch.tensor(images, device=self._device)).cpu().numpy()
        return found


def load_torch_encoder(card: ModelCard, weights: Path, device: str) -> TorchEncoder:
    """The encoder of `weights`; on the CPU where the device is of another machine."""
    there = device == "cpu" or torch.cuda.is_available()
    return TorchEncoder(read_unet(weights), card.mean, card.std, device=device if there else "cpu")
