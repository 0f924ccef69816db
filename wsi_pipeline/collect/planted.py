"""Planted errors are no errors of the model: they stand apart from its figures, with how many were found."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from wsi_pipeline.collect.matching import Pair
from wsi_pipeline.handout.planted import FOUND, PlantedObjects
from wsi_pipeline.measures import compare_areas, not_measured


def without_planted(pairs: Sequence[Pair], planted: PlantedObjects | None) -> list[Pair]:
    """The pairs that say something of the model: without the planted object, and without a missing one drawn again."""
    return list(pairs) if planted is None else [pair for pair in pairs if not _is_of(pair, planted)]


def _is_of(pair: Pair, planted: PlantedObjects) -> bool:
    if planted.planted is not None:
        return pair.before is not None and pair.before.uuid == planted.planted.uuid
    if planted.true is None or pair.before is not None or pair.after is None:
        return False
    return compare_areas(planted.true.geometry, pair.after.geometry, 1.0).iou >= FOUND


def planted_figures(images: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The part `planted` of metrics.json: by kind, how many errors were shown on reviewed images, and how many found.

    Parameters
    ----------
    images
        Facts of reviewed images.
    """
    kinds: dict[str, dict[str, int]] = {}
    for facts in images:
        if facts["planted"] is not None:
            own = kinds.setdefault(facts["planted"]["kind"], {"planted": 0, "caught": 0})
            own["planted"] += 1
            own["caught"] += facts["planted"]["caught"]
    if not kinds:
        return not_measured("no reviewed image has an error that was planted")
    return {
        "planted": sum(own["planted"] for own in kinds.values()),
        "caught": sum(own["caught"] for own in kinds.values()),
        "kinds": dict(sorted(kinds.items())),
    }
