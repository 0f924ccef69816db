"""A model that costs almost nothing, to show what the engine around it costs.

The mean colour of 32 x 32 px decides, dark and blue being tumour: one linear layer, softmax, the answer enlarged.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.models import ClassSpec, Maps, ModelCard, RuntimeChoice
from wsi_pipeline.models.segmenter import binary_uncertainty, check_images

SIDE = 32
# Logit of the tumour for R, G and B in 0..1, and its constant; the background has the same with the other sign.
WEIGHTS = (-8.0, -14.0, 0.0)
BIAS = 13.2
NAME = "null"


def null_card(mpp: float) -> ModelCard:
    """Its card; it looks no farther than its 32 px."""
    classes = (
        ClassSpec(name="Background", color=(200, 200, 200), background=True),
        ClassSpec(name="Tumor", color=(200, 0, 0)),
    )
    return ModelCard(
        name=NAME, architecture="stain-density", mpp=mpp, window=512, halo=0, stride=SIDE, classes=classes,
        sha256="0" * 64,
    )  # fmt: skip


class NullNet:
    """The model as a `Segmenter`, in numpy."""

    runtime = "numpy"

    def __init__(self, card: ModelCard) -> None:
        self.card = card

    def predict(self, images: NDArray[np.uint8]) -> Maps:
        """See `Segmenter.predict`."""
        check_images(images, self.card)
        count, height, width, _ = images.shape
        rows = images.reshape(count, height // SIDE, SIDE, width * 3).sum(axis=2, dtype=np.uint16)
        sums = rows.reshape(count, height // SIDE, width // SIDE, SIDE, 3).sum(axis=3, dtype=np.uint32)
        mean = sums.astype(np.float32) / (255 * SIDE**2)
        ahead = 2 * (mean @ np.array(WEIGHTS, np.float32) + np.float32(BIAS))
        small = np.rint(255 / (1 + np.exp(-ahead))).astype(np.uint8)
        probability = small.repeat(SIDE, 1).repeat(SIDE, 2)[:, None]
        uncertainty = binary_uncertainty(small[:, None]).repeat(SIDE, 1).repeat(SIDE, 2)
        return Maps(probability, uncertainty)


@contextmanager
def installed(mpp: float) -> Iterator[str]:
    """Have the engine of this process use it, whatever model it is asked for; gives a path to ask with."""
    card = null_card(mpp)
    choice = RuntimeChoice("numpy", "cpu", "float", 1, "nothing to choose")

    def chosen(*_: Any, **__: Any) -> Any:
        return choice

    with (
        patch("wsi_pipeline.stages.predict.load_card", lambda _: card),
        patch("wsi_pipeline.inference.engine.load_card", lambda _: card),
        patch("wsi_pipeline.inference.engine.choose_runtime", chosen),
        patch("wsi_pipeline.inference.registry.load_segmenter", lambda *_, **__: NullNet(card)),
    ):
        yield "baseline:null"
