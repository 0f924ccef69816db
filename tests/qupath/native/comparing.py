"""What it means that two objects are the same, for tests."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from wsi_pipeline.objects import PathObject

# QuPath rounds to 0.01 px in its texts.
TOLERANCE = 0.02


def same_numbers(a: Mapping[str, float], b: Mapping[str, float], tolerance: float = 0.0) -> bool:
    """Equal names in equal order, and equal values with NaN like NaN; `tolerance` is relative above 1."""
    return list(a) == list(b) and all(_same_number(a[name], b[name], tolerance) for name in a)


def _same_number(a: float, b: float, tolerance: float) -> bool:
    if math.isnan(a) or math.isinf(a):
        return math.isnan(b) if math.isnan(a) else a == b
    return abs(a - b) <= tolerance * max(1.0, abs(a))


def same_region(a: BaseGeometry, b: BaseGeometry) -> bool:
    """The same region up to 0.02 px times its perimeter; lines and points vertex by vertex, in any order."""
    with np.errstate(all="ignore"):
        a, b = shapely.make_valid(a), shapely.make_valid(b)
        if a.area > 0 or b.area > 0:
            difference = shapely.symmetric_difference(a, b).area
            return bool(difference <= TOLERANCE * max(a.length, b.length) + TOLERANCE**2)
    return _near(a, b) and _near(b, a)


def _near(a: BaseGeometry, b: BaseGeometry) -> bool:
    if a.is_empty or b.is_empty:
        return a.is_empty == b.is_empty
    found = shapely.STRtree(shapely.get_parts(b)).query(
        shapely.points(shapely.get_coordinates(a)), predicate="dwithin", distance=TOLERANCE
    )
    return len(np.unique(found[0])) == shapely.get_num_coordinates(a)


def differences(a: Sequence[PathObject], b: Sequence[PathObject]) -> list[str]:
    """Every field in which two lists of objects are not exactly the same."""
    if len(a) != len(b):
        return [f"{len(a)} objects and {len(b)}"]
    return [f"{x.uuid}.{name}" for x, y in zip(a, b, strict=True) for name in _different_fields(x, y)]


def _different_fields(a: PathObject, b: PathObject) -> list[str]:
    found = []
    for name in PathObject.__slots__:
        x, y = getattr(a, name), getattr(b, name)
        if name in ("geometry", "nucleus"):
            same = (x is None and y is None) or bool(shapely.equals_identical(x, y))
        elif name == "measurements":
            same = same_numbers(x, y)
        elif name == "metadata":
            same = list(x.items()) == list(y.items())
        elif name == "class_probability":
            same = x == y or (math.isnan(x) and math.isnan(y))
        else:
            same = x == y
        if not same:
            found.append(name)
    return found
