"""Regions as SVG paths over a picture, and what a correction kept, removed and added."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from wsi_pipeline.objects import Kind, PathObject
from wsi_pipeline.report.facts import UNCLASSIFIED

# Paths are written in whole tenths of a picture pixel: crisp when enlarged, and short.
UNITS = 10
# A detail smaller than this many picture pixels is not drawn.
DETAIL = 0.35

Unions = Mapping[str, BaseGeometry]


@dataclass(frozen=True, slots=True)
class Frame:
    """The rectangle of the slide that a picture shows.

    Corner and size in level-0 px; `scale` is picture px per level-0 px.
    """

    x: float
    y: float
    width: float
    height: float
    scale: float

    @property
    def view(self) -> tuple[int, int]:
        """Width and height in path units."""
        return round(self.width * self.scale * UNITS), round(self.height * self.scale * UNITS)

    @property
    def box(self) -> BaseGeometry:
        return shapely.box(self.x, self.y, self.x + self.width, self.y + self.height)


class Difference(NamedTuple):
    """Areas of all classes in level-0 px: in both, only in the prediction, only in the correction.

    Where a region changed its class, its area is removed from the one and added to the other.
    """

    kept: BaseGeometry
    removed: BaseGeometry
    added: BaseGeometry


def class_unions(objects: Iterable[PathObject]) -> dict[str, BaseGeometry]:
    """The area of each class, from annotations alone; classes that QuPath ignores (`Ignore*`) are left out."""
    shapes: dict[str, list[BaseGeometry]] = {}
    for item in objects:
        name = item.path_class or UNCLASSIFIED
        if item.kind is Kind.ANNOTATION and item.geometry is not None and not name.endswith("*"):
            shapes.setdefault(name, []).append(item.geometry)
    return {name: _areas(shapely.union_all(shapely.make_valid(np.array(parts)))) for name, parts in shapes.items()}


def difference(before: Unions, after: Unions) -> Difference:
    """What became of the prediction, class by class, joined for the picture."""
    nothing = shapely.Polygon()
    kept, removed, added = [], [], []
    for name in sorted({*before, *after}):
        old, new = before.get(name, nothing), after.get(name, nothing)
        kept.append(shapely.intersection(old, new))
        removed.append(shapely.difference(old, new))
        added.append(shapely.difference(new, old))
    return Difference(*(_areas(shapely.union_all(parts)) for parts in (kept, removed, added)))


def path_data(geometry: BaseGeometry, frame: Frame, *, detail: float = DETAIL) -> str:
    """The `d` of an SVG path with fill rule evenodd; empty where nothing of `geometry` lies in the frame.

    Parameters
    ----------
    geometry
        Level-0 px.
    detail
        Tolerance of the simplification, in picture pixels; parts smaller than its square are dropped.
    """
    tolerance = detail / frame.scale
    # The margin keeps the outline along the picture's edge out of sight.
    shapely.prepare(geometry)
    room = shapely.buffer(frame.box, 8 * tolerance, join_style="mitre")
    shown = geometry if shapely.contains(room, geometry) else _areas(shapely.intersection(geometry, room))
    parts = shapely.get_parts(shapely.simplify(shown, tolerance))
    parts = parts[shapely.area(parts) >= tolerance**2]
    return "".join(_ring(ring, frame) for ring in shapely.get_rings(parts))


def vertices(geometries: Iterable[BaseGeometry]) -> int:
    """How many vertices there are in all."""
    return int(sum(shapely.get_num_coordinates(g) for g in geometries))


def _ring(ring: BaseGeometry, frame: Frame) -> str:
    points = (shapely.get_coordinates(ring)[:-1] - (frame.x, frame.y)) * frame.scale * UNITS
    whole: NDArray[np.int64] = np.rint(points).astype(np.int64)
    whole = whole[np.any(whole != np.roll(whole, 1, axis=0), axis=1)]
    if len(whole) < 3:
        return ""
    steps = np.diff(whole, axis=0)
    lines = "".join(f"{'' if dx < 0 else ' '}{dx}{'' if dy < 0 else ' '}{dy}" for dx, dy in steps.tolist())
    return f"M{whole[0, 0]} {whole[0, 1]}l{lines.lstrip()}z"


def _areas(geometry: BaseGeometry) -> BaseGeometry:
    """Only the polygons of a geometry: lines and points cover no area."""
    parts = shapely.get_parts(shapely.get_parts(geometry))
    areas: BaseGeometry = shapely.multipolygons(parts[shapely.get_type_id(parts) == shapely.GeometryType.POLYGON.value])
    return areas
