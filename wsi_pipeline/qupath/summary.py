"""data/<id>/summary.json: what QuPath writes for information beside an image's objects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from wsi_pipeline.objects import Kind, PathObject

_NAMES = {
    Kind.ANNOTATION: "Annotations",
    Kind.DETECTION: "Detections",
    Kind.CELL: "Cells",
    Kind.TILE: "Tiles",
    Kind.TMA_CORE: "TMA cores",
}
_DETECTIONS = {Kind.DETECTION, Kind.CELL, Kind.TILE}
NO_CLASS = "Unclassified"


def summary_of(
    objects: Iterable[PathObject], image_type: str, server: Mapping[str, Any] | None, timestamp: int
) -> dict[str, Any]:
    """The JSON of summary.json.

    Parameters
    ----------
    server
        `{width, height, sizeC, sizeZ, sizeT}`; left out when it is not known.
    timestamp
        When data.qpdata was written, in ms since 1970.
    """
    kinds: Counter[str] = Counter({"Root objects": 1})
    annotations: Counter[str] = Counter()
    detections: Counter[str] = Counter()
    for item in objects:
        kinds[_NAMES[item.kind]] += 1
        if item.kind is Kind.ANNOTATION:
            annotations[item.path_class or NO_CLASS] += 1
        elif item.kind in _DETECTIONS:
            detections[item.path_class or NO_CLASS] += 1
    summary: dict[str, Any] = {"timestamp": timestamp, "imageType": image_type}
    if server is not None:
        summary["server"] = dict(server)
    summary["hierarchy"] = {
        "nObjects": kinds.total(),
        "objectTypeCounts": dict(kinds),
        "annotationClassificationCounts": dict(annotations),
        "detectionClassificationCounts": dict(detections),
    }
    return summary


def server_block(size: tuple[int, int]) -> dict[str, int]:
    """The `server` of an 8-bit RGB slide of this size in px."""
    return {"width": size[0], "height": size[1], "sizeC": 3, "sizeZ": 1, "sizeT": 1}
