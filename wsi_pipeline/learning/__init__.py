"""Learning from annotations: tiles, training, evaluation, and whether a new model replaces the old one.

Torch is loaded when `train` or `Recipe` is first asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wsi_pipeline.learning.augment import Augmentation
    from wsi_pipeline.learning.evaluation import evaluate, score_regions
    from wsi_pipeline.learning.labels import AnnotatedSlide
    from wsi_pipeline.learning.promote import Decision, Verdict, decide
    from wsi_pipeline.learning.samples import Tile
    from wsi_pipeline.learning.scores import Overlap, SlideScore
    from wsi_pipeline.learning.tiles import tiles_of
    from wsi_pipeline.learning.training import Recipe, train

_HOME = {
    "AnnotatedSlide": "labels",
    "Augmentation": "augment",
    "Decision": "promote",
    "Overlap": "scores",
    "Recipe": "training",
    "SlideScore": "scores",
    "Tile": "samples",
    "Verdict": "promote",
    "decide": "promote",
    "evaluate": "evaluation",
    "score_regions": "evaluation",
    "tiles_of": "tiles",
    "train": "training",
}

__all__ = [
    "AnnotatedSlide",
    "Augmentation",
    "Decision",
    "Overlap",
    "Recipe",
    "SlideScore",
    "Tile",
    "Verdict",
    "decide",
    "evaluate",
    "score_regions",
    "tiles_of",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
