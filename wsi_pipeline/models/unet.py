"""The bundled U-Net, and how it is saved. Four levels, nearest upsampling, batch norm."""

from __future__ import annotations

import pickle  # for the name of its error only
from pathlib import Path
from typing import Final

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional

from wsi_pipeline.errors import ModelError
from wsi_pipeline.files import sha256_bytes, write_bytes, write_json
from wsi_pipeline.models.card import CARD_NAME, WEIGHTS_NAME, ModelCard

STRIDE: Final = 8
"""Three poolings by two: windows must begin at multiples of it."""

HALO: Final = 48
"""The reach is 46 px (a test measures it), rounded up to the stride."""


def _block(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
        nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


def _up(x: Tensor) -> Tensor:
    return functional.interpolate(x, scale_factor=2.0, mode="nearest")


class UNet(nn.Module):
    """A small U-Net (Ronneberger et al. 2015, with padding and batch norm).

    Parameters
    ----------
    channels
        Width of the first level; doubled at each of the other three.
    classes
        Output channels.
    dropout
        Share of the channels that is dropped in training behind the deepest stage and the two stages after it, as in
        a Bayesian SegNet (Kendall et al. 2017).
    """

    def __init__(self, channels: int = 16, classes: int = 2, dropout: float = 0.0) -> None:
        super().__init__()
        c = channels
        self.e0, self.e1, self.e2, self.e3 = _block(3, c), _block(c, 2 * c), _block(2 * c, 4 * c), _block(4 * c, 8 * c)
        self.d2, self.d1, self.d0 = _block(12 * c, 4 * c), _block(6 * c, 2 * c), _block(3 * c, c)
        self.head = nn.Conv2d(c, classes, 1)
        self.dropout = dropout
        self.drop3, self.drop2, self.drop1 = (nn.Dropout2d(dropout) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes, H, W) of normalised images (N, 3, H, W); H and W are multiples of 8."""
        a: Tensor = self.e0(x)
        b: Tensor = self.e1(functional.max_pool2d(a, 2))
        c: Tensor = self.e2(functional.max_pool2d(b, 2))
        d: Tensor = self.drop3(self.e3(functional.max_pool2d(c, 2)))
        y: Tensor = self.drop2(self.d2(torch.cat([_up(d), c], 1)))
        y = self.drop1(self.d1(torch.cat([_up(y), b], 1)))
        y = self.d0(torch.cat([_up(y), a], 1))
        logits: Tensor = self.head(y)
        return logits

    @property
    def channels(self) -> int:
        return self.head.in_channels

    @property
    def classes(self) -> int:
        return self.head.out_channels


def unet_from_state(state: dict[str, Tensor], *, source: str, dropout: float = 0.0) -> UNet:
    """The U-Net that `state` belongs to; width and number of classes are read from the head.

    Raises
    ------
    ModelError
        The names or shapes are not those of this network; `source` names the file.
    """
    head = state.get("head.weight")
    if head is None or head.ndim != 4:
        raise ModelError(f"{source}: these are not the weights of the bundled U-Net (no `head.weight`)")
    net = UNet(channels=head.shape[1], classes=head.shape[0], dropout=dropout)
    try:
        net.load_state_dict(state)
    except RuntimeError as error:
        first = " ".join(str(error).split())[:300]
        raise ModelError(f"{source}: these are not the weights of the bundled U-Net: {first}") from None
    if not all(torch.isfinite(value).all() for value in state.values()):
        raise ModelError(
            f"{source}: holds values that are no numbers, as a training that went wrong leaves; train again"
        )
    return net.eval()


def read_unet(path: Path, *, dropout: float = 0.0) -> UNet:
    """The U-Net of a `.safetensors` file, or of a state dict that `torch.save` wrote (read with `weights_only`).

    This is how weights from elsewhere come in: `save_model` then gives them a card.

    Raises
    ------
    ModelError
        There is no such file, it holds more than tensors, or other tensors.
    """
    try:
        if path.suffix == ".safetensors":
            state = safetensors.torch.load(path.read_bytes())
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ModelError(f"cannot read the weights {path}: {error.strerror or error}") from error
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"{path}: is not a file of plain tensors that can be read safely: {reason}") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ModelError(f"{path}: holds something other than a state dict of tensors")
    return unet_from_state(state, source=str(path), dropout=dropout)


def save_model(folder: Path, net: UNet, card: ModelCard) -> ModelCard:
    """Write `model.safetensors` and `card.json`, and return the card as written (weights, SHA-256, arguments).

    The card comes last: a kill between the two files leaves a folder that is refused, never one that loads
    the wrong weights.

    Raises
    ------
    ModelError
        The card has other classes than the head has outputs.
    StoreError
        The folder cannot be written.
    """
    if net.classes != len(card.classes):
        raise ModelError(f"model {card.name}: the card has {len(card.classes)} classes, the head {net.classes} outputs")
    tensors = {name: value.detach().cpu().contiguous() for name, value in net.state_dict().items()}
    data = safetensors.torch.save(tensors)
    update = {
        "architecture": "unet",
        "architecture_args": {"channels": net.channels, **({"dropout": net.dropout} if net.dropout else {})},
        "stride": STRIDE,
        "stated_halo": None if card.blend is not None else HALO,
        "weights": WEIGHTS_NAME,
        "sha256": sha256_bytes(data),
    }
    saved = ModelCard.model_validate(card.model_copy(update=update).dump())
    write_bytes(folder / WEIGHTS_NAME, data)
    write_json(folder / CARD_NAME, saved.dump())
    return saved
