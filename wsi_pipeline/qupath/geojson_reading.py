"""Reading the GeoJSON that QuPath 0.2 to 0.7, this package and other tools write."""

from __future__ import annotations

import gc
import itertools
import json
import logging
import uuid as uuid_module
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import shapely
from numpy.typing import NDArray

from wsi_pipeline.errors import QuPathFormatError, StoreError
from wsi_pipeline.objects import RGB, Kind, PathObject, Plane, Roi

logger = logging.getLogger(__name__)

_KINDS = {
    "annotation": Kind.ANNOTATION,
    "unknown": Kind.ANNOTATION,
    "detection": Kind.DETECTION,
    "cell": Kind.CELL,
    "tile": Kind.TILE,
    "tmaCore": Kind.TMA_CORE,
    "tma_core": Kind.TMA_CORE,
}
# QuPath 0.2 and 0.3 wrote the object's Java class where a Feature has its id.
_LEGACY_IDS = {
    "PathAnnotationObject": Kind.ANNOTATION,
    "PathDetectionObject": Kind.DETECTION,
    "PathCellObject": Kind.CELL,
    "PathTileObject": Kind.TILE,
    "TMACoreObject": Kind.TMA_CORE,
}
_ROOTS = {"root", "PathRootObject"}
_TWO = 2
_WORDS = {"nan": float("nan"), "inf": float("inf"), "infinity": float("inf"), "-inf": -float("inf")}


@dataclass(frozen=True, slots=True)
class GeoJson:
    """What a GeoJSON file holds: objects in file order, and the colours of their classes by full name."""

    objects: list[PathObject]
    colors: dict[str, RGB] = field(default_factory=dict)


def read_geojson(path: Path) -> list[PathObject]:
    """Objects of a QuPath GeoJSON file, in file order and in the file's coordinates.

    See `parse_geojson`, which gives the colours of the classes too.

    Raises
    ------
    StoreError
        The file cannot be read.
    QuPathFormatError
        It is not GeoJSON, or one of its features cannot be understood; nothing is skipped.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror or error}") from error
    return parse_geojson(data, source=str(path)).objects


def parse_geojson(data: bytes, *, source: str = "GeoJSON") -> GeoJson:
    """Parse a FeatureCollection, a list of Features or one Feature.

    Accepted besides what QuPath 0.7 writes: bare NaN (0.4, 0.5), the key `metadata` twice (0.6 on), class names as
    `name`, `names` or a plain text, colours as `[r, g, b]` or as `colorRGB`, measurements as a list of
    `{name, value}`, `object_type`, Java class names as ids (0.2, 0.3), children inside `childObjects`.

    An object without a UUID gets one derived from its place in the file and its shape, so that the same file gives the
    same ids. A shape of more than two dimensions loses z.

    Raises
    ------
    QuPathFormatError
        With the number of the feature that is at fault.
    """
    with _paused_collector():
        return _parse(data, source)


@contextmanager
def _paused_collector() -> Iterator[None]:
    """Millions of small lists come to life, none of them in a cycle: looking for cycles would take most of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _parse(data: bytes, source: str) -> GeoJson:
    flat = list(_flatten(_features(_load(data, source), source), None, source))
    shapes = _geometries([f.raw.get("geometry") for f in flat], source)
    nuclei = _geometries([f.raw.get("nucleusGeometry") for f in flat], source)
    colors: dict[str, RGB] = {}
    objects = []
    for index, (feature, shape, nucleus) in enumerate(zip(flat, shapes, nuclei, strict=True)):
        try:
            objects.append(_object(feature, index, shape, nucleus, colors))
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise QuPathFormatError(f"{source}: feature {index + 1} cannot be understood: {error}") from error
    return GeoJson(objects=objects, colors=colors)


@dataclass(slots=True)
class _Feature:
    """One object's JSON with the uuid that it has in the file, and its parent's."""

    raw: dict[str, Any]
    uuid: str | None
    parent: str | None


def _load(data: bytes, source: str) -> Any:
    data = data.removeprefix(b"\xef\xbb\xbf")
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        # QuPath 0.4 and 0.5 write bare NaN, which is not JSON; Python's own parser takes it.
        try:
            return json.loads(data)
        except (ValueError, RecursionError) as error:
            raise QuPathFormatError(f"{source} is not valid JSON: {error}") from error


def _features(root: Any, source: str) -> list[Any]:
    if isinstance(root, list):
        return root
    if isinstance(root, dict) and isinstance(root.get("features"), list):
        return list(root["features"])
    if isinstance(root, dict) and root.get("type") == "Feature":
        return [root]
    raise QuPathFormatError(f"{source} holds neither a FeatureCollection nor a list of Features")


def _flatten(raws: list[Any], parent: str | None, source: str) -> Iterator[_Feature]:
    """Depth first, parents before their children; a root object is no object, its children are at the top."""
    stack = [(raw, parent) for raw in reversed(raws)]
    while stack:
        raw, parent = stack.pop()
        if not isinstance(raw, dict) or not isinstance(raw.get("properties") or {}, dict):
            raise QuPathFormatError(f"{source}: a feature is not a JSON object with `properties`")
        properties = raw["properties"] = raw.get("properties") or {}
        is_root = (properties.get("objectType") or raw.get("id")) in _ROOTS
        given = _uuid(raw.get("id"))
        children = properties.get("childObjects", properties.get("children"))
        if isinstance(children, list) and children:
            if given is None and not is_root:
                given = str(uuid_module.uuid5(uuid_module.NAMESPACE_OID, orjson.dumps(raw).decode()))
            stack.extend((child, None if is_root else given) for child in reversed(children))
        if not is_root:
            named = properties.get("parentId")
            yield _Feature(raw, given, parent or (named if isinstance(named, str) else None))


def _uuid(value: Any) -> str | None:
    try:
        return str(uuid_module.UUID(value)) if isinstance(value, str) and len(value) == 36 else None
    except ValueError:
        return None


def _geometries(raws: list[Any], source: str) -> NDArray[np.object_]:
    """shapely geometries, made in one go; None where a feature has none."""
    shapes = np.full(len(raws), None, dtype=object)
    present = [i for i, raw in enumerate(raws) if isinstance(raw, dict) and raw.get("type") is not None]
    plain = [i for i in present if raws[i]["type"] == "Polygon" and raws[i].get("coordinates")]
    made = _polygons([raws[i]["coordinates"] for i in plain])
    if made is not None:
        shapes[plain] = made
    else:
        plain = []
    others = sorted(set(present).difference(plain))
    for i in others:
        try:
            shapes[i] = shapely.force_2d(shapely.from_geojson(orjson.dumps(raws[i])))
        except shapely.errors.GEOSException as error:
            raise QuPathFormatError(f"{source}: feature {i + 1} has no usable geometry: {error}") from error
    return shapes


def _polygons(polygons: list[list[Any]]) -> NDArray[np.object_] | None:
    """Polygons from the nested lists of GeoJSON by way of one array; None when one of them is out of the ordinary."""
    try:
        rings = list(itertools.chain.from_iterable(polygons))
        points = list(itertools.chain.from_iterable(rings))
        if not points or any(map(_TWO.__ne__, map(len, points))):
            return None
        coordinates = np.fromiter(itertools.chain.from_iterable(points), dtype=float, count=2 * len(points))
        ring_starts = np.cumsum([0, *map(len, rings)])
        polygon_starts = np.cumsum([0, *map(len, polygons)])
        made = shapely.from_ragged_array(
            shapely.GeometryType.POLYGON, coordinates.reshape(-1, 2), (ring_starts, polygon_starts)
        )
    except (TypeError, ValueError, shapely.errors.GEOSException):
        return None
    return np.asarray(made, dtype=object)


def _object(feature: _Feature, index: int, shape: Any, nucleus: Any, colors: dict[str, RGB]) -> PathObject:
    raw, properties = feature.raw, feature.raw["properties"]
    kind = _kind(raw, properties)
    name, color = _path_class(properties.get("classification"))
    if name is not None and color is not None:
        colors.setdefault(name, color)
    geometry = raw.get("geometry") or {}
    return PathObject(
        uuid=feature.uuid or _derived_uuid(index, raw),
        kind=kind,
        geometry=shape,
        path_class=name,
        name=None if properties.get("name") is None else str(properties["name"]),
        measurements=_measurements(properties.get("measurements")),
        metadata={str(k): _text(v) for k, v in (properties.get("metadata") or {}).items() if v is not None},
        color=_rgb(properties.get("color")),
        locked=properties.get("isLocked") is True,
        parent=feature.parent,
        plane=_plane(geometry.get("plane")),
        roi=Roi.ELLIPSE if geometry.get("isEllipse") is True else None,
        class_probability=float(properties.get("classProbability", "nan")),
        nucleus=nucleus,
        nucleus_roi=Roi.ELLIPSE if (raw.get("nucleusGeometry") or {}).get("isEllipse") is True else None,
        missing=properties.get("isMissing") is True,
    )


def _derived_uuid(index: int, raw: Mapping[str, Any]) -> str:
    text = f"{index}\n".encode() + orjson.dumps(raw.get("geometry"))
    return str(uuid_module.uuid5(uuid_module.NAMESPACE_OID, text.decode()))


def _kind(raw: Mapping[str, Any], properties: Mapping[str, Any]) -> Kind:
    for key in ("objectType", "object_type", "type"):
        word = properties.get(key)
        if isinstance(word, str):
            if word in _LEGACY_IDS:
                return _LEGACY_IDS[word]
            if word not in _KINDS:
                # QuPath does the same: an annotation, with a warning.
                logger.warning("an object of the unknown type %r is read as an annotation", word)
            return _KINDS.get(word, Kind.ANNOTATION)
    legacy = raw.get("id")
    return _LEGACY_IDS.get(legacy, Kind.ANNOTATION) if isinstance(legacy, str) else Kind.ANNOTATION


def _path_class(value: Any) -> tuple[str | None, RGB | None]:
    if value is None:
        return None, None
    if isinstance(value, str):
        return value or None, None
    names = value.get("names")
    name = ": ".join(str(part) for part in names) if names else value.get("name")
    return (str(name) if name else None), _rgb(value.get("color", value.get("colorRGB")))


def _rgb(value: Any) -> RGB | None:
    """A colour as `[r, g, b]` (a fourth number is alpha) or as Java's signed ARGB integer."""
    if value is None:
        return None
    if isinstance(value, list):
        red, green, blue = (int(channel) for channel in value[:3])
        return red, green, blue
    packed = int(value) & 0xFFFFFF
    return packed >> 16, packed >> 8 & 0xFF, packed & 0xFF


def _measurements(value: Any) -> dict[str, float]:
    if value is None:
        return {}
    if isinstance(value, list):
        return {str(item["name"]): _float(item["value"]) for item in value}
    return {str(name): _float(number) for name, number in value.items()}


def _float(value: Any) -> float:
    if value is None:
        return float("nan")
    if isinstance(value, str):
        word = value.strip().lower()
        return _WORDS[word] if word in _WORDS else float(word)
    return float(value)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _plane(value: Any) -> Plane:
    if not isinstance(value, dict):
        return Plane()
    return Plane(c=int(value.get("c", -1)), z=int(value.get("z", 0)), t=int(value.get("t", 0)))
