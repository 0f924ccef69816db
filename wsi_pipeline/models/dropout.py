"""Dropout that stays at work (Gal & Ghahramani 2016), with masks that depend on nothing but the draw."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from wsi_pipeline.models.ensemble import Draw


class Draws:
    """The draws of the images that this thread is computing; none: dropout does nothing."""

    def __init__(self) -> None:
        self._local = threading.local()

    @property
    def current(self) -> Sequence[Draw]:
        draws: Sequence[Draw] = getattr(self._local, "draws", ())
        return draws

    @contextmanager
    def at_work(self, draws: Sequence[Draw]) -> Iterator[None]:
        self._local.draws = draws
        try:
            yield
        finally:
            self._local.draws = ()


class DrawnDropout(nn.Module):
    """In place of `nn.Dropout` and `nn.Dropout2d`.

    Whole channels are dropped by the number of the draw alone: a pass is one thinned network for the whole slide,
    and its map has no seams. Single values are dropped by number and place. Masks are made on the CPU, so that a GPU
    has the same ones.
    """

    def __init__(self, p: float, layer: int, draws: Draws, *, channels: bool) -> None:
        super().__init__()
        self.p, self.layer, self.channels = p, layer, channels
        self._draws = draws

    def forward(self, x: Tensor) -> Tensor:
        draws = self._draws.current
        if not draws:
            return x
        shape = (x.shape[1], 1, 1) if self.channels else tuple(x.shape[1:])
        keep = torch.stack([self._kept(draw, shape) for draw in draws])
        return x * (keep.to(x.device, x.dtype) / (1 - self.p) if self.p < 1 else keep.to(x.device, x.dtype))

    def _kept(self, draw: Draw, shape: tuple[int, ...]) -> Tensor:
        place = () if self.channels else (draw.x, draw.y)
        key = repr((self.layer, draw.number, *place)).encode()
        seed = int.from_bytes(hashlib.blake2b(key, digest_size=7).digest())
        return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) >= self.p


def with_draws(net: nn.Module, draws: Draws) -> int:
    """Put `DrawnDropout` in place of each dropout layer of `net` that does anything; returns how many there are."""
    count = 0
    for parent in list(net.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, (nn.Dropout, nn.Dropout2d)) and layer.p > 0:
                setattr(parent, name, DrawnDropout(layer.p, count, draws, channels=isinstance(layer, nn.Dropout2d)))
                count += 1
    return count
