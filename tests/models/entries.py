"""Factories as a user writes them; named by tests as `tests.models.entries:redness`."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.models import Maps, ModelCard
from wsi_pipeline.models.segmenter import binary_uncertainty


class Redness:
    """Where red is above a limit."""

    def __init__(self, card: ModelCard, limit: int) -> None:
        self.card, self.limit = card, limit

    def predict(self, images: NDArray[np.uint8]) -> Maps:
        p = np.where(images[..., 0] > self.limit, 240, 10).astype(np.uint8)[:, None]
        return Maps(p, binary_uncertainty(p))


def card(**changes: Any) -> ModelCard:
    return ModelCard.model_validate(
        {
            "name": "redness",
            "architecture": "python",
            "architecture_args": {"version": "1"},
            "mpp": 0.5,
            "window": 128,
            "halo": 0,
            "activation": "sigmoid",
            "classes": [{"name": "Red", "color": (200, 0, 0)}],
            **changes,
        }
    )


def redness(limit: str = "128") -> Redness:
    return Redness(card(architecture_args={"version": "1", "limit": limit}), int(limit))


class Blurred(Redness):
    """Looks 3 px to each side."""

    def predict(self, images: NDArray[np.uint8]) -> Maps:
        wide = np.pad(images[..., 0], ((0, 0), (3, 3), (3, 3)), mode="edge")
        p = np.lib.stride_tricks.sliding_window_view(wide, (7, 7), axis=(1, 2)).max((3, 4))[:, None].astype(np.uint8)
        return Maps(p, binary_uncertainty(p))


def without_halo() -> Blurred:
    return Blurred(card(name="blurred", halo=None), 0)


def without_version() -> Redness:
    return Redness(card(architecture_args={}), 1)


def something_else() -> str:
    return "no model"


def failing() -> Redness:
    raise RuntimeError("no licence found")


class Floats(Redness):
    def predict(self, images: NDArray[np.uint8]) -> Any:
        return images[..., 0] / 255, images[..., 0]


def floats() -> Floats:
    return Floats(card(), 1)


class Returning(Redness):
    """Gives what it was told to give."""

    def __init__(self, given: Any) -> None:
        super().__init__(card(), 1)
        self.given = given

    def predict(self, images: NDArray[np.uint8]) -> Any:
        if isinstance(self.given, Exception):
            raise self.given
        return self.given


def nothing_at_all() -> Returning:
    return Returning(None)


def three_maps() -> Returning:
    return Returning((1, 2, 3))


def lost() -> Returning:
    return Returning(KeyError("weights"))


def its_class() -> type[Redness]:
    return Redness


class Licensed(Redness):
    @property
    def card(self) -> ModelCard:
        raise RuntimeError("no licence found")

    @card.setter
    def card(self, value: ModelCard) -> None:
        pass


def without_licence() -> Licensed:
    return Licensed(card(), 1)


def leaving() -> Redness:
    sys.exit(3)


class Painting(Redness):
    def predict(self, images: NDArray[np.uint8]) -> Maps:
        maps = super().predict(images)
        images[:] = 0
        return maps


def painting() -> Painting:
    return Painting(card(), 1)
