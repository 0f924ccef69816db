"""Networks and images for the tests of models."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from wsi_pipeline.models.card import ClassSpec, ModelCard
from wsi_pipeline.models.unet import UNet

BACKGROUND = ClassSpec(name="Background", color=(220, 220, 220), background=True)
TUMOR = ClassSpec(name="Tumor", color=(200, 0, 0))
STROMA = ClassSpec(name="Stroma", color=(150, 200, 150))
NECROSIS = ClassSpec(name="Necrosis", color=(50, 50, 50))


def tumor_card(**changes: Any) -> ModelCard:
    return ModelCard.model_validate(
        {
            "name": "test",
            "architecture": "unet",
            "mpp": 0.5,
            "window": 128,
            "halo": 48,
            "stride": 8,
            "classes": (BACKGROUND, TUMOR),
            **changes,
        }
    )


def contrasty_unet(channels: int = 4, classes: int = 2, seed: int = 0) -> UNet:
    """A random U-Net whose batch norms fit its activations and whose logits span about ±5."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = UNet(channels, classes).train()
        x = torch.from_numpy(texture(128, 128, seed)).permute(2, 0, 1)[None].float() / 255
        with torch.no_grad():
            for module in net.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.momentum = None  # the plain mean of what it sees
            net(x)
            net.eval()
            logits = net(x)
            spread = logits.std().item()
            net.head.weight *= 3 / spread
            assert net.head.bias is not None
            net.head.bias.copy_((net.head.bias - logits.mean((0, 2, 3))) * 3 / spread)
    return net


def texture(height: int, width: int, seed: int) -> NDArray[np.uint8]:
    """uint8 (height, width, 3), random at several scales."""
    rng = np.random.default_rng(seed)
    image = np.zeros((height, width, 3))
    for grain in (32, 8, 2, 1):
        cells = rng.random((-(-height // grain), -(-width // grain), 3))
        image += cells.repeat(grain, 0).repeat(grain, 1)[:height, :width] / 4
    stretched: NDArray[np.uint8] = np.clip((image - 0.2) * 420, 0, 255).astype(np.uint8)
    return stretched
