"""Suggestions with known faults, made from a truth of rectangles: one fault each, so that each gesture is provoked."""

from __future__ import annotations

import shapely
from shapely.geometry.base import BaseGeometry

from wsi_pipeline.objects import META_RUN, Kind, PathObject, object_uuid
from wsi_pipeline.synthetic import Truth

SIZE = (4000, 3000)
MPP = 0.5
RUN = "0123456789abcdef"


def box(x: float, y: float, width: float = 300, height: float = 300) -> shapely.Polygon:
    return shapely.box(x, y, x + width, y + height)


# (truth, suggestions)
Fault = tuple[list[BaseGeometry], list[BaseGeometry]]

RIGHT: Fault = ([box(100, 100)], [box(104, 97)])
TOO_LARGE: Fault = ([box(600, 100)], [box(600, 100, 420, 300)])
TOO_SMALL: Fault = ([box(1200, 100)], [box(1200, 100, 200, 300)])
WRONG: Fault = ([], [box(1800, 100)])
MISSED: Fault = ([box(2400, 100)], [])
IN_TWO: Fault = ([box(100, 700, 700, 300)], [box(100, 700, 320, 300), box(480, 700, 320, 300)])
BRIDGED: Fault = ([box(1200, 700), box(1620, 700)], [box(1200, 700, 720, 300)])
ALL = (RIGHT, TOO_LARGE, TOO_SMALL, WRONG, MISSED, IN_TWO, BRIDGED)


def truth_of(*faults: Fault) -> Truth:
    tumour = shapely.union_all([part for truth, _ in faults for part in truth])
    return Truth(SIZE, MPP, shapely.box(20, 20, 3900, 2900), tumour)


def suggestion(shape: BaseGeometry, path_class: str = "Tumor", **changes: object) -> PathObject:
    values: dict[str, object] = {
        "measurements": {"Confidence": 0.8},
        "metadata": {META_RUN: RUN, "wsi_confidence": "0.8000"},
    }
    uuid = object_uuid(RUN, "slide", path_class, shape)
    return PathObject(uuid, Kind.ANNOTATION, shape, path_class, **{**values, **changes})  # type: ignore[arg-type]


def suggestions_of(*faults: Fault) -> list[PathObject]:
    return [suggestion(shape) for _, shapes in faults for shape in shapes]
