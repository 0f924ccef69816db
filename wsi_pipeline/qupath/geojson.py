"""QuPath's GeoJSON, written in batches and with the same bytes for the same objects.

One Feature a line in a FeatureCollection. What QuPath itself writes and reads is kept to: `objectType`,
`classification` with `name` (or `names` for a derived class) and `color`, or a text alone where no colour is known
(QuPath 0.4 to 0.7 refuse a whole file for an object there without `color`), `isLocked`, `measurements`, `metadata`,
`isEllipse` and `plane` inside the geometry, `nucleusGeometry` beside it. Two properties are ours, and QuPath ignores
them: `parentId` and `classProbability`.

Reading lives in `geojson_reading` and is exported here.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from wsi_pipeline.files import atomic
from wsi_pipeline.objects import DEFAULT_PLANE, RGB, Kind, PathObject, Plane, Roi
from wsi_pipeline.qupath.geojson_reading import GeoJson, parse_geojson, read_geojson
from wsi_pipeline.qupath.shapes import on_grid

__all__ = ["GeoJson", "features", "parse_geojson", "read_geojson", "write_geojson"]

BATCH = 2000
_TYPES = {kind: str(kind.value) for kind in Kind} | {Kind.TMA_CORE: "tmaCore"}


def write_geojson(path: Path, objects: Iterable[PathObject], colors: Mapping[str, RGB] | None = None) -> int:
    """Write objects as one FeatureCollection that QuPath imports (0.4: unless a measurement is NaN or infinite).

    Coordinates are rounded to 0.01 px and valid after the rounding; a shape that the rounding breaks is repaired,
    never dropped. Memory holds 2,000 objects at a time. Equal objects give equal bytes.

    Parameters
    ----------
    colors
        RGB of classes by their full name (`Tumor: Positive`); for a class that is not in it QuPath
        takes the colour that it has or gives itself.

    Returns
    -------
    How many features were written.

    Raises
    ------
    QuPathFormatError
        An object that QuPath could not import: empty or not finite, or a GeometryCollection.
    StoreError
        The file cannot be written.
    """
    count = 0
    remaining = features(objects, colors)
    with atomic(path) as file:
        file.write(b'{"type":"FeatureCollection","features":[')
        while batch := list(itertools.islice(remaining, BATCH)):
            file.write(b",\n" if count else b"\n")
            file.write(b",\n".join(batch))
            count += len(batch)
        file.write(b"\n]}\n" if count else b"]}\n")
    return count


def features(objects: Iterable[PathObject], colors: Mapping[str, RGB] | None = None) -> Iterator[bytes]:
    """The objects as GeoJSON Features, one at a time; see `write_geojson`."""
    remaining = iter(objects)
    classes = _Classes(colors or {})
    while batch := list(itertools.islice(remaining, BATCH)):
        shapes = _members([o.geometry for o in batch], batch)
        nuclei = _members([o.nucleus for o in batch], batch)
        for item, shape, nucleus in zip(batch, shapes, nuclei, strict=True):
            yield orjson.dumps(_feature(item, shape, nucleus, classes), option=orjson.OPT_SERIALIZE_NUMPY)


def _members(
    geometries: Sequence[BaseGeometry | None], owners: Sequence[PathObject]
) -> Iterator[dict[str, Any] | None]:
    """Type and coordinates of each geometry, one at a time of what is made in one go; None where there is none."""
    names = [f"object {owner.uuid}" for owner, geometry in zip(owners, geometries, strict=True) if geometry is not None]
    shapes = on_grid([geometry for geometry in geometries if geometry is not None], names)
    plain = shapely.get_type_id(shapes) == shapely.GeometryType.POLYGON
    polygons = _polygons(shapes[plain])
    others = map(orjson.loads, np.atleast_1d(shapely.to_geojson(shapes[~plain])))
    is_plain = iter(plain.tolist())
    for geometry in geometries:
        yield None if geometry is None else next(polygons if next(is_plain) else others)


def _polygons(polygons: NDArray[np.object_]) -> Iterator[dict[str, Any]]:
    """The rings stay arrays: orjson prints their numbers straight from memory, several times as fast as shapely."""
    rings, polygon = shapely.get_rings(polygons, return_index=True)
    coordinates = shapely.get_coordinates(rings)
    corners = itertools.pairwise([0, *np.cumsum(shapely.get_num_coordinates(rings)).tolist()])
    for count in np.bincount(polygon, minlength=len(polygons)).tolist():
        outline = [coordinates[first:last] for first, last in itertools.islice(corners, count)]
        yield {"type": "Polygon", "coordinates": outline}


def _geometry(members: dict[str, Any] | None, plane: Plane, roi: Roi | None) -> dict[str, Any]:
    if members is None:
        return {}  # what QuPath writes for an object without a region; null would stop its import
    if plane != DEFAULT_PLANE:
        members["plane"] = {"c": plane.c, "z": plane.z, "t": plane.t}
    if roi is Roi.ELLIPSE:
        members["isEllipse"] = True
    return members


class _Classes(dict[str, orjson.Fragment]):
    """Text of each class that was seen: a file has few of them, and very many objects."""

    def __init__(self, colors: Mapping[str, RGB]) -> None:
        super().__init__()
        self._colors = colors

    def __missing__(self, name: str) -> orjson.Fragment:
        self[name] = text = orjson.Fragment(orjson.dumps(_classification(name, self._colors.get(name))))
        return text


def _feature(
    item: PathObject, shape: dict[str, Any] | None, nucleus: dict[str, Any] | None, classes: _Classes
) -> dict[str, Any]:
    feature: dict[str, Any] = {"type": "Feature", "id": item.uuid, "geometry": _geometry(shape, item.plane, item.roi)}
    if nucleus is not None:
        feature["nucleusGeometry"] = _geometry(nucleus, item.plane, item.nucleus_roi)
    feature["properties"] = _properties(item, classes)
    return feature


def _properties(item: PathObject, classes: _Classes) -> dict[str, Any]:
    properties: dict[str, Any] = {"objectType": _TYPES[item.kind]}
    if item.name is not None:
        properties["name"] = item.name
    if item.color is not None:
        properties["color"] = list(item.color)
    if item.path_class is not None:
        properties["classification"] = classes[item.path_class]
    if item.locked:
        properties["isLocked"] = True
    if item.kind is Kind.TMA_CORE:
        properties["isMissing"] = item.missing
    if item.measurements:
        properties["measurements"] = {name: _number(value) for name, value in item.measurements.items()}
    if item.metadata:
        properties["metadata"] = dict(item.metadata)
    if item.parent is not None:
        properties["parentId"] = item.parent
    if not math.isnan(item.class_probability):
        properties["classProbability"] = item.class_probability
    return properties


def _classification(name: str, color: RGB | None) -> dict[str, Any] | str:
    if color is None:
        return name
    parts = name.split(": ")
    named: dict[str, Any] = {"name": name} if len(parts) == 1 else {"names": parts}
    return {**named, "color": list(color)}


def _number(value: float) -> float | str:
    """A measurement; JSON has no NaN and no infinity, and QuPath (from 0.5) reads these words for them."""
    if math.isfinite(value):
        return float(value)
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
